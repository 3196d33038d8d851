"""One interface for every codec: encode a residual, decode it, and say exactly how many bytes it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from graphflow.kv.accounting import tensor_bytes


@dataclass(frozen=True, eq=False)
class Encoded:
    """A residual as it is stored.

    Attributes:
        shape: Shape of the residual, (layers, 2, kv_heads, L, head_dim).
        tensors: Everything that is stored, by name.
    """

    shape: tuple[int, ...]
    tensors: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors: values, bitmap, scales. The shape itself (five integers) is left out."""
        return sum(tensor_bytes(tensor) for tensor in self.tensors.values())


class Codec(ABC):
    """Turns residuals into few bytes and back; subclasses override both methods."""

    @abstractmethod
    def encode(self, residual: Tensor, weight: Tensor | None = None) -> Encoded:
        """Encode a residual.

        Args:
            residual: (layers, 2, kv_heads, L, head_dim), any floating dtype.
            weight: How much an error in each entry hurts, non-negative and broadcastable to ``residual``; None for
                all alike. A codec that keeps everything ignores it.

        Raises:
            ValueError: ``residual`` is not five-dimensional.
        """

    @abstractmethod
    def decode(self, encoded: Encoded) -> Tensor:
        """The residual again, float32, in its own shape."""


def check_residual(residual: Tensor) -> None:
    """Refuse what is not the KV of a segment.

    Raises:
        ValueError: Not (layers, 2, kv_heads, L, head_dim).
    """
    if residual.ndim != 5 or residual.shape[1] != 2:
        raise ValueError(f"residual must have shape (layers, 2, kv_heads, L, head_dim), got {tuple(residual.shape)}")


def check_value_bits(value_bits: int, allowed: tuple[int, ...]) -> None:
    """Refuse a width that a codec has no format for.

    Raises:
        ValueError: ``value_bits`` is not one of ``allowed``.
    """
    if value_bits not in allowed:
        raise ValueError(f"value_bits must be one of {', '.join(map(str, allowed))}, got {value_bits}")


def narrow(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Values in a narrower floating dtype; what is too large becomes its largest finite value, not infinity."""
    limit = torch.finfo(dtype).max
    return values.clamp(-limit, limit).to(dtype)
