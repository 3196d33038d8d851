"""A codec whose layers and sides share its entries by water-filling, anew for every residual (our choice)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphflow.kv.allocation import energies, fill, fill_until
from graphflow.kv.codecs.base import Codec, Density, Encoded


class Waterfill(Codec):
    """Keeps as many entries as an even density would, where they save most error.

    Errors of keys and of values have different units; each side as a whole counts one half.

    Args:
        build: The codec of a density by layer and side.
        density: The even density, in (0, 1].
        shifted: True if the codec keeps an offset a channel and only the rest is shared out.
        max_error: Share of the weighted energy that may be left out, in [0, 1): no more entries are kept than that
            takes. 0 keeps what ``density`` says.
    """

    def __init__(
        self, build: Callable[[Density], Codec], density: float, shifted: bool = False, max_error: float = 0.0
    ) -> None:
        self._build, self._density, self._shifted, self._max_error = build, density, shifted, max_error
        self._decoder = build(density)

    def encode(self, residual: Tensor, weight: Tensor | None = None) -> Encoded:
        """Encode a residual (see `Codec.encode`)."""
        layers, sides = residual.shape[:2]
        values = residual.to(torch.float32)
        if self._shifted:
            values = values - values.mean(dim=3, keepdim=True)
        gains = energies(values, weight).reshape(layers, sides, -1)
        whole = gains.sum(dim=(0, 2), keepdim=True)
        gains = gains / torch.where(whole > 0, whole, 1.0)
        entries = gains.shape[2]
        parts, most = list(gains.flatten(0, 1)), layers * sides * max(1, round(self._density * entries))
        counts = fill_until(parts, self._max_error * float(gains.sum())) if self._max_error else [most]
        if sum(counts) >= most:
            counts = fill(parts, most)
        shares = torch.tensor(counts, dtype=torch.float64).reshape(layers, sides) / entries
        return self._build(shares).encode(residual, weight)

    def decode(self, encoded: Encoded) -> Tensor:
        """The residual again, float32: what is stored says how much each layer keeps."""
        return self._decoder.decode(encoded)
