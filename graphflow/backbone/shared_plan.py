"""Which queries meet which segment, and where: the tables of forward passes over the stacks of a batch.

Queries of every use of a segment stand side by side, so that the segment is read once for all of them. The tables
change only when a segment comes into reach or leaves a sliding window; between that they are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphflow.backbone.residual_stack import Seen
from graphflow.backbone.shared_stacks import Stack
from graphflow.kv.accounting import tensor_bytes
from graphflow.kv.rope import Rope


@dataclass(frozen=True, eq=False)
class Seats:
    """Places of the uses of a stack in a table (segments, places); all on the device.

    Attributes:
        stack: The segments.
        segments: int64 (segments,), those that take part; None if all of the stack do.
        places: Places of a segment, the most that any has uses.
        rows: int64 (segments * places,), the row whose queries stand there; 0 where nobody does.
        offsets: int64 (segments, places), position of the segment in that row's context.
        turn: complex64 (segments * places, 1, head_dim/2), the turn by -offset that moves queries to the frame of a
            segment's keys.
        padding: bool (segments, 1, 1, 1, L), True beyond a segment's end; None if all are as long as the stack, or kept
            as base and residual.
    """

    stack: Stack
    segments: Tensor | None
    places: int
    rows: Tensor
    offsets: Tensor
    turn: Tensor
    padding: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        tables = (self.segments, self.rows, self.offsets, self.turn, self.padding)
        return sum(tensor_bytes(table) for table in tables if table is not None)


@dataclass(frozen=True, eq=False)
class Tables:
    """Where queries go, and how what they found comes back to their rows.

    Results lie in one list: of the rows' own tokens, one a row, then of every place of every stack.

    Attributes:
        seats: One for each stack with a use that takes part.
        parts: Results of a row at most: that of its own tokens, and one a use.
        back: int64 (batch * parts,), where each of a row's results lies; its own tokens' again beyond its last.
        absent: bool (batch, parts, 1, 1), True beyond a row's last result; None if all rows have as many.
    """

    seats: tuple[Seats, ...]
    parts: int
    back: Tensor
    absent: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        own = tensor_bytes(self.back) + (tensor_bytes(self.absent) if self.absent is not None else 0)
        return own + sum(seats.nbytes for seats in self.seats)


@dataclass(frozen=True, eq=False)
class Reading:
    """What a layer reads of the shared segments in one forward pass.

    Attributes:
        tables: Who meets what.
        hidden: For each of the tables' seats the keys that queries must not see, bool broadcastable to (segments,
            places, 1, queries, L); of segments that are kept as base and residual the tokens that they see instead
            (`seen_tokens`). None where all queries see everything.
    """

    tables: Tables
    hidden: tuple[Tensor | Seen | None, ...]


def reach(stack: Stack, low: Tensor, high: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """Which uses any query meets, and which of them every query sees whole.

    Args:
        stack: The segments.
        low: int64 (batch,), first position of each row's queries.
        high: int64 (batch,), last position; -1 for a row without queries, which meets everything whole.
        window: Keys are seen from less than so many positions away; None for no bound.

    Returns:
        Two bool (uses,).
    """
    low, high = low[stack.row], high[stack.row]
    last = stack.offset + stack.lengths[stack.segment] - 1
    meets, whole = high >= stack.offset, low >= last
    if window is not None:
        meets, whole = meets & (low - last < window), whole & (high - stack.offset < window)
    return meets | (high < 0), whole | (high < 0)


def lay(stacks: Sequence[Stack], active: Sequence[Tensor], batch: int, rope: Rope) -> Tables | None:
    """Tables for the uses that take part; None if none does.

    Args:
        stacks: The segments.
        active: bool (uses,) for each stack.
        batch: Rows of the batch.
        rope: Rotary embedding of the model.
    """
    seats: list[Seats] = []
    rows, found = [torch.arange(batch)], [torch.arange(batch)]
    for stack, mask in zip(stacks, active, strict=True):
        if bool(mask.any()):
            start = batch + sum(len(other.rows) for other in seats)
            own, place = _seat(stack, mask, rope)
            seats.append(own)
            rows.append(stack.row[mask])
            found.append(start + place)
    if not seats:
        return None
    row, order = torch.cat(rows).sort(stable=True)
    rank = _rank(row)
    back = torch.arange(batch)[:, None].repeat(1, int(rank.max()) + 1)
    absent = torch.ones_like(back, dtype=torch.bool)
    back[row, rank], absent[row, rank] = torch.cat(found)[order], False
    device = stacks[0].device
    return Tables(
        seats=tuple(seats),
        parts=back.shape[1],
        back=back.flatten().to(device),
        absent=absent[..., None, None].to(device) if bool(absent.any()) else None,
    )


def _seat(stack: Stack, active: Tensor, rope: Rope) -> tuple[Seats, Tensor]:
    """Seats of a stack's uses, and for each of them its place in the flattened table."""
    device, length = stack.device, stack.length
    segments, segment = stack.segment[active].unique(return_inverse=True)
    place = _rank(segment)
    rows = torch.zeros(len(segments), int(place.max()) + 1, dtype=torch.int64)
    offsets = torch.zeros_like(rows)
    rows[segment, place], offsets[segment, place] = stack.row[active], stack.offset[active]
    padding = (torch.arange(length) >= stack.lengths[segments][:, None])[:, None, None, None]
    seats = Seats(
        stack=stack,
        segments=None if len(segments) == len(stack.lengths) else segments.to(device),
        places=rows.shape[1],
        rows=rows.flatten().to(device),
        offsets=offsets.to(device),
        turn=_turn(rope, (stack.frames[segments][:, None] - offsets).flatten())[:, None].to(device),
        padding=padding.to(device) if bool(padding.any()) and isinstance(stack.kv, Tensor) else None,
    )
    return seats, segment * rows.shape[1] + place


def hidden_keys(seats: Seats, positions: Tensor, window: int | None) -> Tensor:
    """Keys of a table that queries must not see: those behind them, beyond their window or beyond a segment's end.

    Args:
        seats: The table.
        positions: int64 (batch, queries), -1 for none.
        window: As in `reach`.

    Returns:
        bool (segments, places, 1, queries, L).
    """
    local = (positions[seats.rows].view(*seats.offsets.shape, -1) - seats.offsets[..., None])[:, :, None, :, None]
    keys = torch.arange(seats.stack.length, device=positions.device)
    hidden = keys > local
    if window is not None:
        hidden |= keys <= local - window
    return hidden if seats.padding is None else hidden | seats.padding


def seen_tokens(seats: Seats, positions: Tensor, window: int | None) -> Seen:
    """Tokens of segments that queries see, (segments, places, queries); arguments as for `hidden_keys`."""
    local = positions[seats.rows].view(*seats.offsets.shape, -1) - seats.offsets[..., None]
    first = torch.zeros_like(local) if window is None else (local - window + 1).clamp(min=0)
    return first, (local + 1).clamp(min=0)


def _rank(ascending: Tensor) -> Tensor:
    """Of equal entries, which one each is: 0, 1, ..."""
    counts = torch.unique_consecutive(ascending, return_counts=True)[1]
    return torch.arange(len(ascending)) - (counts.cumsum(0) - counts).repeat_interleave(counts)


def _turn(rope: Rope, shifts: Tensor) -> Tensor:
    """Turns as complex64 (shifts, head_dim/2): what moving makes of the vector (1, 0) of every pair of channels."""
    half = len(rope.inv_freq)
    first = torch.cat((torch.ones(half), torch.zeros(half))).expand(len(shifts), -1)
    return torch.complex(*rope.rotate(first, shifts).chunk(2, dim=-1))
