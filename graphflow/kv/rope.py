"""Moving keys along the sequence: one rotation per frequency pair (positions: our choice, the paper is silent).

A key at position p is the unrotated key turned by p * inv_freq, so moving it by s positions is one further turn by
s * inv_freq. That is exact where frequencies do not depend on the length of the sequence. A factor on the rotary
embedding (yarn's attention factor) is already in the keys and a rotation leaves it there, included once.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

import torch
from torch import Tensor

SUPPORTED_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})

_REFUSED = {
    "dynamic": "its frequencies change with the length of the sequence, so a stored key cannot be moved by a rotation",
    "longrope": "it switches to other frequencies beyond the trained length, so a stored key cannot be moved by a "
    "rotation",
}


class UnsupportedRopeError(ValueError):
    """Keys of this rotary embedding cannot be moved."""


def check_rope_type(name: str) -> None:
    """Refuse rotary embeddings whose keys cannot be moved.

    Args:
        name: ``rope_type`` of the model's configuration.

    Raises:
        UnsupportedRopeError: The type is not one of `SUPPORTED_ROPE_TYPES`; the message says why.
    """
    if name in SUPPORTED_ROPE_TYPES:
        return
    allowed = ", ".join(sorted(SUPPORTED_ROPE_TYPES))
    if name in _REFUSED:
        raise UnsupportedRopeError(f"rope type {name!r} is not supported: {_REFUSED[name]}; supported: {allowed}")
    close = difflib.get_close_matches(name, [*SUPPORTED_ROPE_TYPES, *_REFUSED], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnsupportedRopeError(f"rope type {name!r} is unknown; supported: {allowed}.{hint}")


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary embedding of a model, half-split convention (``rotate_half`` of Hugging Face).

    Channel i turns together with channel i + head_dim/2.

    Attributes:
        inv_freq: Turn per position in radians, (head_dim/2,), kept as float32.

    Raises:
        ValueError: ``inv_freq`` is not one-dimensional.
    """

    inv_freq: Tensor
    _turns: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.inv_freq.ndim != 1:
            raise ValueError(f"Rope.inv_freq must have shape (head_dim/2,), got {tuple(self.inv_freq.shape)}")
        object.__setattr__(self, "inv_freq", self.inv_freq.detach().to(torch.float32))
        # Angles are formed on the CPU in float64: at position 10,000 a float32 product is off by up to 5e-4 radians.
        object.__setattr__(self, "_turns", self.inv_freq.to("cpu", torch.float64))

    def rotate(self, keys: Tensor, shift: int | Tensor) -> Tensor:
        """Move keys by ``shift`` positions.

        Args:
            keys: (..., L, head_dim), any floating dtype.
            shift: Positions to move by, negative to move back; an int, or a tensor (L,) with one shift a token.

        Returns:
            The keys at their new positions, computed in float32, in the dtype given. ``keys`` itself where the shift
            is the int 0.

        Raises:
            ValueError: ``head_dim`` is not twice the number of frequencies (partial rotary is not supported), or a
                tensor of shifts does not hold one shift a token.
        """
        if keys.shape[-1] != 2 * len(self.inv_freq):
            raise ValueError(
                f"keys have head_dim {keys.shape[-1]}, but {len(self.inv_freq)} frequencies turn "
                f"{2 * len(self.inv_freq)} channels: partial rotary is not supported"
            )
        if isinstance(shift, Tensor):
            if shift.shape != keys.shape[-2:-1]:
                raise ValueError(
                    f"shift must be an int or have shape (L,) = {tuple(keys.shape[-2:-1])}, got {tuple(shift.shape)}"
                )
            angles = shift.to("cpu", torch.float64)[:, None] * self._turns
        elif shift == 0:
            return keys
        else:
            angles = shift * self._turns
        cos = angles.cos().to(keys.device, torch.float32)
        sin = angles.sin().to(keys.device, torch.float32)
        first, second = keys.to(torch.float32).chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(keys.dtype)
