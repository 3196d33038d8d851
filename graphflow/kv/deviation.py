"""Which tokens of a prompt deviate most from its base: those that blend mode and ``exact_rows`` run again.

CacheBlend finds them anew for every request, by the keys and values of an early layer that is run for all tokens. Here
they are learned once an operation, from all layers of the exact runs that come before anything is reused (our choice):
a prompt is the same in every request, so its tokens that read the prefix are too, and no layer has to be run twice.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Deviations:
    """Mean squared deviation by operation and token, over exact runs."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the sums, float32."""
        return sum(4 * len(sums) for sums in self._sums.values())

    def count(self, op: str) -> int:
        """Exact runs of an operation that were seen."""
        return self._counts.get(op, 0)

    def update(self, op: str, base: Tensor, kv: Tensor) -> None:
        """Add an exact run.

        A layer's keys count by their energy in the base, and so do its values: neither drowns the other.

        Args:
            op: Name of the operation.
            base: Its base, (layers, 2, kv_heads, L, head_dim).
            kv: What the run gave, in the same shape and frame.
        """
        exact, bare = kv.to(torch.float32), base.to(torch.float32)
        energy = bare.square().sum(dim=(2, 3, 4)).clamp_min(torch.finfo(torch.float32).tiny)
        tokens = ((exact - bare).square().sum(dim=(2, 4)) / energy[..., None]).sum(dim=(0, 1))
        self._sums[op] = self._sums.get(op, torch.zeros_like(tokens)) + tokens
        self._counts[op] = self.count(op) + 1

    def dump(self) -> dict[str, tuple[int, Tensor]]:
        """Exact runs and sums, (stored tokens,) float32, of every operation that has any."""
        return {op: (self._counts[op], sums) for op, sums in self._sums.items()}

    def restore(self, op: str, count: int, sums: Tensor) -> None:
        """Take over what `dump` gave."""
        self._counts[op], self._sums[op] = count, sums

    def largest(self, op: str, count: int) -> list[int]:
        """The ``count`` tokens that deviate most, in order of position."""
        return sorted(self._sums[op].topk(count).indices.tolist())
