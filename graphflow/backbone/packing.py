"""Packing of traces into training rows: branches of one trace share its root and do not see each other.

A row holds several documents. Token i attends to token j when j is not later, is of the same document, and is of the
root or of i's own branch; positions in a branch go on from the root's end. That is the engine's own forking, so each
root is paid for once (our choice).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Document:
    """Tokens of one trace, root first, then its branches.

    Attributes:
        ids: Token ids.
        positions: Position of each token in its own context.
        branches: 0 for the root, 1, 2, ... for the branches.
        weights: Weight of each token's prediction in the loss.
    """

    ids: list[int]
    positions: list[int]
    branches: list[int]
    weights: list[float]

    def __len__(self) -> int:
        return len(self.ids)


Piece = tuple[list[int], float]  # token ids, and the weight of their prediction in the loss


def documents(root: Piece, branches: list[list[Piece]], length: int) -> Iterator[Document]:
    """Documents of at most ``length`` tokens that hold every branch once; the root is repeated in each.

    Branches that do not fit beside the root are left out.
    """
    document = _start(root)
    for branch in branches:
        size = sum(len(ids) for ids, _ in branch)
        if len(root[0]) + size > length:
            continue
        if len(document) + size > length:
            yield document
            document = _start(root)
        number, position = document.branches[-1] + 1, len(root[0])
        for ids, weight in branch:
            document.ids += ids
            document.positions += range(position, position + len(ids))
            document.branches += [number] * len(ids)
            document.weights += [weight] * len(ids)
            position += len(ids)
    if document.branches[-1]:
        yield document


def _start(root: Piece) -> Document:
    ids, weight = root
    return Document(list(ids), list(range(len(ids))), [0] * len(ids), [weight] * len(ids))


@dataclass
class Rows:
    """A batch of packed rows.

    Attributes:
        ids: (rows, length) int64; positions likewise.
        labels: (rows, length) int64, the next token where it is to be learnt, else -100.
        weights: (rows, length) float32, weight of that label.
        documents: (rows, length) int32, which document of the row; 0 is padding. branches likewise.
        filled: Share of tokens that are not padding.
    """

    ids: Tensor
    positions: Tensor
    labels: Tensor
    weights: Tensor
    documents: Tensor
    branches: Tensor
    filled: float

    def mask(self) -> Tensor:
        """Which token sees which: bool (rows, 1, length, length)."""
        length = self.ids.shape[1]
        same = self.documents[:, :, None] == self.documents[:, None, :]
        visible = (self.branches[:, None, :] == 0) | (self.branches[:, :, None] == self.branches[:, None, :])
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return (same & visible & causal)[:, None]


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
    branches, used, number = torch.zeros_like(docs), [0] * rows, 0
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
            # a branch does not follow the token that stands before it in the row, but the root's end
            follows = [a == b for a, b in itertools.pairwise(document.branches)]
            keep = [w if ok else 0.0 for w, ok in zip(document.weights[1:], follows, strict=True)]
            target = [i if w else -100 for i, w in zip(document.ids[1:], keep, strict=True)]
            labels[row, used[row] : used[row] + size - 1] = torch.tensor(target)
            weights[row, used[row] : used[row] + size - 1] = torch.tensor(keep)
            used[row] += size
    return Rows(ids, positions, labels, weights, docs, branches, sum(used) / (rows * length))
