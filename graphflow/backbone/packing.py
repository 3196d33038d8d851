"""Packing of traces into training rows: branches of one trace share its root and do not see each other.

A row holds several documents. Token i attends to token j when j is not later, is of the same document, and is of the
root or of i's own branch; positions in a branch go on from the root's end. That is the engine's own forking, so each
root is paid for once (our choice). A blocked piece sees nothing before itself, but for its last token: that is how an
operation's prompt is read from its base (Block-Attention, KVLink).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """A segment of a context as training sees it.

    Attributes:
        ids: Token ids.
        weight: Weight of their prediction in the loss.
        blocked: All tokens but the last see this piece alone.
        gap: Positions that are left free before its last token: an abridged piece takes the room of the whole one.
    """

    ids: Sequence[int]
    weight: float = 0.0
    blocked: bool = False
    gap: int = 0


@dataclass
class Document:
    """Tokens of one trace, root first, then its branches.

    Attributes:
        ids: Token ids.
        positions: Position of each token in its own context.
        branches: 0 for the root, 1, 2, ... for the branches.
        blocks: 0 for a token that sees everything before it, else the number of the piece that it does not see past.
        weights: Weight of each token's prediction in the loss.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, pieces: Sequence[Piece], position: int) -> None:
        """Appends a branch (the root is branch 0) whose first token stands at ``position``."""
        number = self.branches[-1] + 1 if self.branches else 0
        for piece in pieces:
            block = 1 + max(self.blocks, default=0) if piece.blocked else 0
            size = len(piece.ids)
            self.ids += piece.ids
            end = position + size + piece.gap
            self.positions += [*range(position, position + size - 1), *([end - 1] if size else [])]
            self.branches += [number] * size
            self.blocks += [block] * (size - 1) + [0] * min(1, size)
            self.weights += [piece.weight] * size
            position = end


def size_of(pieces: Sequence[Piece]) -> int:
    """Tokens of some pieces."""
    return sum(len(piece.ids) for piece in pieces)


def documents(root: Sequence[Piece], branches: Sequence[Sequence[Piece]], length: int) -> Iterator[Document]:
    """Documents of at most ``length`` tokens that hold every branch once; the root is repeated in each.

    Branches that do not fit beside the root are left out.
    """
    size, document = size_of(root), None
    for branch in branches:
        if size + size_of(branch) > length:
            continue
        if document is None or len(document) + size_of(branch) > length:
            if document is not None:
                yield document
            document = Document()
            document.add(root, 0)
        document.add(branch, size + sum(piece.gap for piece in root))
    if document is not None:
        yield document


@dataclass
class Rows:
    """A batch of packed rows.

    Attributes:
        ids: (rows, length) int64; positions likewise.
        labels: (rows, length) int64, the next token where it is to be learnt, else -100.
        weights: (rows, length) float32, weight of that label.
        documents: (rows, length) int32, which document of the row; 0 is padding. branches and blocks likewise.
        filled: Share of tokens that are not padding.
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    documents: Tensor
    branches: Tensor
    blocks: Tensor
    filled: float

    def to(self, device: torch.device) -> Rows:
        """The same batch on a device."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if name != "filled"})

    def mask(self, window: int | None = None) -> Tensor:
        """Which token sees which: bool (rows, 1, length, length).

        Args:
            window: Tokens that a sliding layer sees, its own included; None for all.
        """
        length = self.ids.shape[1]
        same = self.documents[:, :, None] == self.documents[:, None, :]
        branch = (self.branches[:, None, :] == 0) | (self.branches[:, :, None] == self.branches[:, None, :])
        block = (self.blocks[:, :, None] == 0) | (self.blocks[:, :, None] == self.blocks[:, None, :])
        visible = same & branch & block & torch.ones(length, length, dtype=torch.bool, device=self.ids.device).tril()
        if window is not None:
            visible &= self.positions[:, :, None] - self.positions[:, None, :] < window
        return visible[:, None]


def pack(draw: Callable[[], Iterator[Document]], rows: int, length: int, misses: int = 16) -> Rows:
    """Fills rows first-fit with documents until several in a row find no place.

    Args:
        draw: Gives the documents of one more trace.
        rows: Rows of the batch.
        length: Tokens of a row.
        misses: Documents without a place before the batch is closed.

    Returns:
        The packed batch.
    """
    ids = torch.zeros(rows, length, dtype=torch.long)
    positions, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    weights = torch.zeros(rows, length)
    docs = torch.zeros(rows, length, dtype=torch.int32)
    branches, blocks, used, number = torch.zeros_like(docs), torch.zeros_like(docs), [0] * rows, 0
    while misses:
        for document in draw():
            size = len(document)
            row = next((r for r in range(rows) if used[r] + size <= length), None)
            if row is None:
                misses -= 1
                if not misses:
                    break
                continue
            number += 1
            place = slice(used[row], used[row] + size)
            ids[row, place] = torch.tensor(document.ids)
            positions[row, place] = torch.tensor(document.positions)
            docs[row, place] = number
            branches[row, place] = torch.tensor(document.branches, dtype=torch.int32)
            blocks[row, place] = torch.tensor(document.blocks, dtype=torch.int32)
            # a branch does not follow the token that stands before it in the row, but the root's end
            follows = [a == b for a, b in itertools.pairwise(document.branches)]
            keep = [w if ok else 0.0 for w, ok in zip(document.weights[1:], follows, strict=True)]
            target = [i if w else -100 for i, w in zip(document.ids[1:], keep, strict=True)]
            labels[row, used[row] : used[row] + size - 1] = torch.tensor(target)
            weights[row, used[row] : used[row] + size - 1] = torch.tensor(keep)
            used[row] += size
    return Rows(ids, positions, labels, weights, docs, branches, blocks, sum(used) / (rows * length))
