"""Pieces that a batch holds more than once, each of them decoded once and stacked with others of about its length.

A stack pads its segments to the longest of them and every segment's uses to the most used one, so that one matrix
product serves all of it. Padding costs work and bytes, a further stack costs calls: a stack is cut in two where that
saves more than it costs (our choice).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphflow.backbone.cache import Placed
from graphflow.backbone.residual_stack import ResidualStack, frame_of, readable, values_of
from graphflow.kv.accounting import KVShape, tensor_bytes
from graphflow.kv.segment import Cut, Piece

Use = tuple[int, int]  # row of the batch, offset in its context
Held = tuple[Piece, list[Use]]

# Costs in tokens that one row's queries meet: of holding a token, and of a stack's calls (some 20 of 4 microseconds).
TOKEN, STACK = 4, 2048


@dataclass(frozen=True, eq=False)
class Stack:
    """Distinct segments of about one length, and who holds them where.

    Attributes:
        kv: (layers, 2, kv_heads, segments, L, head_dim), keys at local positions, the two channels that turn together
            side by side (`interleaved`); short segments are padded with 0. Or the segments as base and residual.
        lengths: int64 (segments,), tokens of each.
        segment: int64 (uses,), which segment is used; ascending.
        row: int64 (uses,), by which row of the batch.
        offset: int64 (uses,), at which position of its context.
        pieces: The segments as they were given.
        frames: int64 (segments,), position of a segment's first token in the frame that its keys are in: 0 but for cuts
            that are kept as base and residual.

    All but ``kv`` are on the CPU.
    """

    kv: Tensor | ResidualStack
    lengths: Tensor
    segment: Tensor
    row: Tensor
    offset: Tensor
    pieces: tuple[Piece, ...]
    frames: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, padding included."""
        return self.kv.nbytes if isinstance(self.kv, ResidualStack) else tensor_bytes(self.kv)

    @property
    def length(self) -> int:
        """Tokens that every segment is padded to."""
        return self.kv.length if isinstance(self.kv, ResidualStack) else self.kv.shape[4]

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self.kv.base.device if isinstance(self.kv, ResidualStack) else self.kv.device

    def select(self, rows: Tensor) -> Stack:
        """The same segments as rows of a new batch hold them.

        Args:
            rows: int64 (new batch,), the old row of each new one; on the CPU.
        """
        new, use = (rows[:, None] == self.row).nonzero(as_tuple=True)
        order = self.segment[use].argsort(stable=True)
        new, use = new[order], use[order]
        return replace(self, segment=self.segment[use], row=new, offset=self.offset[use])

    def used(self, shared: Mapping[Hashable, Held]) -> list[Stack]:
        """The same segments with these uses; nothing if nobody uses any of them.

        Args:
            shared: Pieces by `identity`, with their uses.
        """
        uses = [
            (index, *use)
            for index, piece in enumerate(self.pieces)
            if identity(piece) in shared
            for use in shared[identity(piece)][1]
        ]
        if not uses:
            return []
        segment, row, offset = torch.tensor(uses).unbind(1)
        return [replace(self, segment=segment, row=row, offset=offset)]


def interleaved(tensor: Tensor) -> Tensor:
    """Channels i and i + head_dim/2 of the last dimension side by side, so that a turn is one complex product."""
    return tensor.unflatten(-1, (2, -1)).mT.flatten(-2)


def often(held: Held) -> bool:
    """True for a piece that is held more than once."""
    return len(held[1]) > 1


def divide(rows: Sequence[Placed], stacked: Callable[[Held], bool] = often) -> tuple[list[Held], list[Placed]]:
    """Pieces that go into stacks with their uses, and what is left of every row.

    A piece is one object; cuts of one object at the same place are one piece too.
    """
    shared = {key: held for key, held in holders(rows).items() if stacked(held)}
    private: list[Placed] = [
        [(piece, offset) for piece, offset in row if identity(piece) not in shared] for row in rows
    ]
    return list(shared.values()), private


def holders(rows: Sequence[Placed]) -> dict[Hashable, Held]:
    """Every piece that is not empty, by `identity`, with its uses."""
    found: dict[Hashable, Held] = {}
    for index, row in enumerate(rows):
        for piece, offset in row:
            if piece.length:
                found.setdefault(identity(piece), (piece, []))[1].append((index, offset))
    return found


def stack_residuals(shared: Sequence[Held], shape: KVShape, dtype: torch.dtype, device: torch.device) -> list[Stack]:
    """As `stack_up`; pieces that can be read as base and residual are not decoded."""
    kinds: dict[torch.dtype, list[Held]] = {}
    for held in shared:
        if readable(held[0]):
            kinds.setdefault(values_of(held[0]).dtype, []).append(held)
    stacks = stack_up([held for held in shared if not readable(held[0])], shape, dtype, device)
    for members in (group for kind in kinds.values() for group in _groups(kind)):
        kv = ResidualStack.of([piece for piece, _ in members if readable(piece)], dtype, device)
        stacks.append(_stack(kv, members))
    return stacks


def stack_up(shared: Sequence[Held], shape: KVShape, dtype: torch.dtype, device: torch.device) -> list[Stack]:
    """Stacks of pieces that `divide` gave, in the dtype and on the device that the model computes on."""
    stacks = []
    for members in _groups(list(shared)):
        longest = max(piece.length for piece, _ in members)
        sizes = (shape.layers, 2, shape.kv_heads, len(members), longest, shape.head_dim)
        kv = torch.zeros(sizes, dtype=dtype, device=device)
        for index, (piece, _) in enumerate(members):
            keys, values = piece.tensor().unbind(1)
            kv[:, 0, :, index, : piece.length] = interleaved(keys)
            kv[:, 1, :, index, : piece.length] = values
        stacks.append(_stack(kv, members))
    return stacks


def _stack(kv: Tensor | ResidualStack, members: Sequence[Held]) -> Stack:
    """A stack of these, whose KV is there."""
    uses = [(index, *use) for index, (_, held) in enumerate(members) for use in held]
    segment, row, offset = torch.tensor(uses).unbind(1)
    pieces = tuple(piece for piece, _ in members)
    frames = [frame_of(piece) if isinstance(kv, ResidualStack) else 0 for piece in pieces]
    lengths = torch.tensor([piece.length for piece in pieces])
    return Stack(kv, lengths, segment, row, offset, pieces, torch.tensor(frames))


def spans(stacks: Sequence[Stack], batch: int) -> list[tuple[int, int]]:
    """For every row the first and the last position of its shared segments; a row without any has none before it."""
    first, last = torch.full((batch,), torch.iinfo(torch.int64).max), torch.full((batch,), -1)
    for stack in stacks:
        end = stack.offset + stack.lengths[stack.segment] - 1
        first.scatter_reduce_(0, stack.row, stack.offset, "amin")
        last.scatter_reduce_(0, stack.row, end, "amax")
    return list(zip(first.tolist(), last.tolist(), strict=True))


def _groups(members: list[Held]) -> list[list[Held]]:
    """Members of each stack: those of one stack, cut in two by length or by uses as long as that is cheaper."""
    if not members:
        return []
    best, parts = _cost(members), [members]
    for order in (lambda held: held[0].length, lambda held: len(held[1])):
        ordered = sorted(members, key=order)
        for cut in range(1, len(ordered)):
            low, high = ordered[:cut], ordered[cut:]
            if _cost(low) + _cost(high) < best:
                best, parts = _cost(low) + _cost(high), [low, high]
    return parts if len(parts) == 1 else [group for part in parts for group in _groups(part)]


def _cost(members: list[Held]) -> int:
    """Cost of one stack of these."""
    tokens = len(members) * max(piece.length for piece, _ in members)
    return tokens * (TOKEN + max(len(uses) for _, uses in members)) + STACK


def identity(piece: Piece) -> Hashable:
    """What makes two pieces one piece of memory."""
    return (identity(piece.of), piece.start, piece.stop) if isinstance(piece, Cut) else id(piece)
