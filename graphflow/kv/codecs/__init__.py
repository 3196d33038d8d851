"""Codecs for residuals: how an operation's deviation from its base is kept in few bytes."""

from __future__ import annotations

import difflib

import torch

from graphflow.kv.codecs.base import Codec, Encoded
from graphflow.kv.codecs.dense import DenseCodec
from graphflow.kv.codecs.sparse import SparseCodec

CODECS = ("sparse", "dense")

__all__ = ["CODECS", "Codec", "DenseCodec", "Encoded", "SparseCodec", "build_codec", "check_codec"]


def check_codec(name: str) -> None:
    """Refuse an unknown codec.

    Raises:
        ValueError: ``name`` is not one of `CODECS`.
    """
    if name not in CODECS:
        close = difflib.get_close_matches(name, CODECS, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"codec must be one of {', '.join(CODECS)}, got {name!r}{hint}")


def build_codec(name: str, density: float, value_bits: int, kept: torch.dtype) -> Codec:
    """The codec of that name.

    Args:
        name: One of `CODECS`.
        density: Share of entries to keep, in (0, 1]; dense keeps all whatever it says.
        value_bits: Bits a value: 8, 16 or 32 (dense: 16 or 32).
        kept: Dtype in which KV is kept; 16-bit values are bfloat16 where it is, else float16.

    Raises:
        ValueError: An unknown name, or a value that the codec refuses.
    """
    check_codec(name)
    half = torch.bfloat16 if kept == torch.bfloat16 else torch.float16
    match name:
        case "dense":
            return DenseCodec(value_bits, half)
        case _:
            return SparseCodec(density, value_bits, half)
