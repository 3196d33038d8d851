"""Prefill of a ragged group of rows, in chunks, so that others can decode between two of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphflow.backbone.cache import ResidualCache
from graphflow.backbone.load import Backbone

Fresh = tuple[Sequence[int], Sequence[int]]  # tokens that run, and their positions in ascending order


class Prefill:
    """Runs new tokens of several rows; rows are padded on the left, so that all end in the same slot.

    Attributes:
        cache: What came before, and what has run so far.
        hidden: Hidden states of every row's last token, (rows, hidden), once `done`.

    Args:
        backbone: The model.
        cache: What came before.
        fresh: For every row its tokens, at least one, and their positions.
        chunk: Tokens of one forward pass at most, padding included, but one of each row at least; 0 for no bound.
    """

    def __init__(self, backbone: Backbone, cache: ResidualCache, fresh: Sequence[Fresh], chunk: int = 0) -> None:
        self.backbone, self.cache = backbone, cache
        self.hidden: Tensor | None = None
        width = max(len(tokens) for tokens, _ in fresh)
        self._ids = torch.zeros(len(fresh), width, dtype=torch.long)
        self._positions = torch.full((len(fresh), width), -1)
        for row, (tokens, places) in enumerate(fresh):
            self._ids[row, width - len(tokens) :] = torch.tensor(tokens)
            self._positions[row, width - len(tokens) :] = torch.tensor(places)
        self._width = max(1, chunk // len(fresh)) if chunk else width
        self._next = 0
        self.end = cache.slots + width

    @property
    def done(self) -> bool:
        """True once every token has run."""
        return self.hidden is not None

    def advance(self) -> None:
        """Runs one chunk."""
        columns = slice(self._next, self._next + self._width)
        ids, positions = self._ids[:, columns], self._positions[:, columns]
        device = self.backbone.device
        hidden = self.backbone.forward(ids.to(device), positions.to(device), self.cache)
        self._next += self._width
        if self._next >= self._ids.shape[1]:
            self.hidden = hidden[:, -1]
