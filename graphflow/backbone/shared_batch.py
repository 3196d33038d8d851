"""A batch of contexts that holds every shared segment once; only what is a row's own is dense.

It stands where a `ResidualCache` does: `Backbone.forward` runs on it once the model attends through
`graphflow.backbone.shared_attention`. Its slots are those of the rows' own tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence, Set

import torch
from torch import Tensor

from graphflow.backbone.cache import Part, Placed, ResidualCache
from graphflow.backbone.residual_stack import readable
from graphflow.backbone.shared_plan import Reading, Tables, hidden_keys, lay, reach, seen_tokens
from graphflow.backbone.shared_stacks import (
    Held,
    Stack,
    divide,
    holders,
    identity,
    often,
    spans,
    stack_residuals,
    stack_up,
)
from graphflow.kv.accounting import KVShape
from graphflow.kv.rope import Rope


class SharedBatch(ResidualCache):
    """KV of a batch of contexts: segments held more than once in stacks, the rest of each row densely.

    Attributes:
        stacks: The shared segments, each once, and who holds them at which offset.

    Args:
        rows: For every row its pieces and their offsets, as for `ResidualCache`.
        rope: Rotary embedding of the model.
        shape: Shape of the model's KV.
        dtype: Dtype that the model computes in.
        device: Device that the model computes on.
    """

    _stacked, _stack_up = staticmethod(often), staticmethod(stack_up)

    def __init__(self, rows: Sequence[Placed], rope: Rope, shape: KVShape, dtype: torch.dtype, device: torch.device):
        shared, private = divide(rows, self._stacked)
        super().__init__(private, rope, shape, dtype, device)
        self.stacks: list[Stack] = self._stack_up(shared, shape, dtype, device)
        self._rope, self._shape, self._dtype, self._held = rope, shape, dtype, [tuple(row) for row in rows]
        self._forget()

    def _forget(self) -> None:
        """Drops all tables: other rows, or none yet."""
        self._positions: Tensor | None = None
        self._queries: list[tuple[int, int]] = []
        self._tables: dict[int | None, tuple[Tensor, Tables | None]] = {}
        self._readings: dict[int | None, Reading | None] = {}
        self._whole: Reading | None = None
        self._spans = spans(self.stacks, len(self.positions))

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared segments, each once, padding and tables of uses included."""
        tables = [tables for _, tables in self._tables.values() if tables is not None]
        tables += [self._whole.tables] if self._whole is not None else []
        return sum(part.nbytes for part in (*self.stacks, *tables))

    @property
    def private_bytes(self) -> int:
        """Bytes of keys and values that are one row's own, room to grow included."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self.shared_bytes + self.private_bytes

    @property
    def lean(self) -> bool:
        """True if to lay the rows anew would give nothing back (see `ResidualCache`): half of the pieces are held."""
        held = sum(len(stack.segment.unique()) for stack in self.stacks)
        return super().lean and 2 * held >= sum(len(stack.pieces) for stack in self.stacks)

    def visible(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What new tokens may attend to among their rows' own tokens; notes where they stand (see `ResidualCache`)."""
        if self.stacks:
            self._positions, self._readings = positions, {}
            real = [[place for place in row if place >= 0] for row in positions.tolist()]
            self._queries = [(min(row), max(row)) if row else (-1, -1) for row in real]
        return super().visible(positions)

    def reading(self, window: int | None) -> Reading | None:
        """What the tokens of this forward pass meet of the shared segments in a layer; None if nothing.

        Args:
            window: Keys are seen from less than so many positions away; None for no bound.
        """
        if not self.stacks:
            return None
        if window not in self._readings:
            self._readings[window] = self._all() if self._sees_all(window) else self._some(window)
        return self._readings[window]

    def _sees_all(self, window: int | None) -> bool:
        """True if every query stands behind all segments of its row, and all of them within the window."""
        return all(
            high < 0 or (low >= last and (window is None or high - first < window))
            for (low, high), (first, last) in zip(self._queries, self._spans, strict=True)
        )

    def _all(self) -> Reading | None:
        """All uses of all stacks: what decoding meets in full attention, the same at every step."""
        if self._whole is None:
            every = [torch.ones_like(stack.row, dtype=torch.bool) for stack in self.stacks]
            tables = lay(self.stacks, every, len(self.positions), self._rope)
            self._whole = tables and Reading(tables, tuple(seats.padding for seats in tables.seats))
        return self._whole

    def _some(self, window: int | None) -> Reading | None:
        """The uses that are in reach, with masks where one is in reach in part."""
        assert self._positions is not None, "visible() says where the tokens stand"
        low, high = torch.tensor(self._queries).unbind(1)
        reached = [reach(stack, low, high, window) for stack in self.stacks]
        active = torch.cat([meets for meets, _ in reached])
        known, tables = self._tables.get(window, (None, None))
        if known is None or not torch.equal(known, active):
            tables = lay(self.stacks, [meets for meets, _ in reached], len(self.positions), self._rope)
            self._tables[window] = active, tables
        if tables is None:
            return None
        seats = iter(tables.seats)
        hidden = []
        for stack, (meets, whole) in zip(self.stacks, reached, strict=True):
            if bool(meets.any()):
                own = next(seats)
                masked = bool((meets & ~whole).any())
                limits = hidden_keys if isinstance(stack.kv, Tensor) else seen_tokens
                hidden.append(limits(own, self._positions, window) if masked else own.padding)
        return Reading(tables, tuple(hidden))

    def advance(self, positions: Tensor) -> None:
        """Records the positions of tokens that a forward pass has just appended (see `ResidualCache`).

        Raises:
            RuntimeError: The forward pass did not read the shared segments: the model attends in another way.
        """
        if self.stacks and not self._readings:
            raise RuntimeError(
                "the model did not read the batch's shared segments: call use_shared_attention(model) before it runs"
            )
        super().advance(positions)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; a row may be repeated (see `ResidualCache`)."""
        super().select(rows)
        self._held = [self._held[row] for row in rows.tolist()]
        self.stacks = [stack.select(rows.cpu()) for stack in self.stacks]
        self._forget()

    def lay(self, parts: Sequence[Part]) -> None:
        """Becomes rows of some batches (see `ResidualCache`).

        A piece that two of the rows hold, or that is in a stack of theirs already, is in a stack afterwards; what a row
        had of it densely is dropped. Stacks stay as they are where they have all such pieces and half of theirs are
        held.
        """
        mine = [(cache, rows) for cache, rows in parts if isinstance(cache, SharedBatch) and len(rows)]
        assert len(mine) == sum(len(rows) > 0 for _, rows in parts), "batches of one backbone are of one kind"
        held = [cache._held[row] for cache, rows in mine for row in rows.tolist()]
        known = [{identity(piece) for stack in cache.stacks for piece in stack.pieces} for cache, _ in mine]
        shared = {
            key: uses
            for key, uses in holders(held).items()
            if self._stacked(uses) or any(key in keys for keys in known)
        }
        for (cache, rows), keys in zip(mine, known, strict=True):
            cache._drop(rows.tolist(), shared.keys() - keys)
        super().lay(parts)
        self._held = held
        whole = (cache for (cache, _), keys in zip(mine, known, strict=True) if shared.keys() <= keys)
        kept = next((cache for cache in whole if 2 * len(shared) >= sum(len(s.pieces) for s in cache.stacks)), None)
        if kept is not None:
            self.stacks = [own for stack in kept.stacks for own in stack.used(shared)]
        else:
            self.stacks = self._stack_up(list(shared.values()), self._shape, self._dtype, self.positions.device)
        self._forget()

    def _drop(self, rows: Iterable[int], keys: Set[Hashable]) -> None:
        """Forgets what these rows have densely of some pieces."""
        self.positions = self.positions.clone()  # what a forward pass made cannot be written to
        for row in rows:
            for piece, offset in self._held[row]:
                if identity(piece) in keys:
                    own = self.positions[row]
                    own[(own >= offset) & (own < offset + piece.length)] = -1


def _apart(held: Held) -> bool:
    """True for a piece that is held more than once, or can be read as base and residual."""
    return often(held) or readable(held[0])


class ResidualBatch(SharedBatch):
    """A batch that reads segments which are a base and a sparse residual as such: none is reconstructed in memory."""

    _stacked, _stack_up = staticmethod(_apart), staticmethod(stack_residuals)
