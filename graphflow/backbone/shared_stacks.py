"""Pieces that a batch holds more than once, each of them decoded once and stacked with others of about its length.

A stack pads its segments to the longest of them and every segment's uses to the most used one, so that one matrix
product serves all of it. Padding costs work and bytes, a further stack costs calls: a stack is cut in two where that
saves more than it costs (our choice).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphflow.backbone.cache import Placed
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
            side by side (`interleaved`); short segments are padded with 0.
        lengths: int64 (segments,), tokens of each.
        segment: int64 (uses,), which segment is used; ascending.
        row: int64 (uses,), by which row of the batch.
        offset: int64 (uses,), at which position of its context.
        pieces: The segments as they were given.

    All but ``kv`` are on the CPU.
    """

    kv: Tensor
    lengths: Tensor
    segment: Tensor
    row: Tensor
    offset: Tensor
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, padding included."""
        return tensor_bytes(self.kv)

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


def divide(rows: Sequence[Placed]) -> tuple[list[Held], list[Placed]]:
    """Pieces that are held at least twice with their uses, and what is left of every row.

    A piece is one object; cuts of one object at the same place are one piece too.
    """
    shared = {key: held for key, held in holders(rows).items() if len(held[1]) > 1}
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


def stack_up(shared: Sequence[Held], shape: KVShape, dtype: torch.dtype, device: torch.device) -> list[Stack]:
    """Stacks of pieces that `divide` gave, in the dtype and on the device that the model computes on."""
    stacks = []
    for members in _groups(list(shared)):
        lengths = torch.tensor([piece.length for piece, _ in members])
        sizes = (shape.layers, 2, shape.kv_heads, len(members), int(lengths.max()), shape.head_dim)
        kv = torch.zeros(sizes, dtype=dtype, device=device)
        for index, (piece, _) in enumerate(members):
            keys, values = piece.tensor().unbind(1)
            kv[:, 0, :, index, : piece.length] = interleaved(keys)
            kv[:, 1, :, index, : piece.length] = values
        uses = [(index, *use) for index, (_, held) in enumerate(members) for use in held]
        segment, row, offset = torch.tensor(uses).unbind(1)
        stacks.append(Stack(kv, lengths, segment, row, offset, tuple(piece for piece, _ in members)))
    return stacks


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
