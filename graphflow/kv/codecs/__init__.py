"""Codecs for residuals: how an operation's deviation from its base is kept in few bytes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch

from graphflow.kv.codecs.base import Codec, Density, Encoded
from graphflow.kv.codecs.dense import DenseCodec
from graphflow.kv.codecs.integer import IntegerCodec
from graphflow.kv.codecs.low_rank import LowRankCodec, Rank, singular_energies
from graphflow.kv.codecs.mean_shift import MeanShiftCodec
from graphflow.kv.codecs.rows import RowsCodec, Share
from graphflow.kv.codecs.sparse import SparseCodec

CODECS = ("sparse", "dense", "int8", "int4", "rows", "mean_shift", "low_rank")

__all__ = [
    "CODECS",
    "Codec",
    "DenseCodec",
    "Density",
    "Encoded",
    "IntegerCodec",
    "LowRankCodec",
    "MeanShiftCodec",
    "Rank",
    "RowsCodec",
    "Share",
    "SparseCodec",
    "build_codec",
    "check_codec",
    "singular_energies",
]


def check_codec(name: str, field: str = "codec", allowed: Sequence[str] = CODECS) -> None:
    """Refuse an unknown codec.

    Raises:
        ValueError: ``name`` is not one of ``allowed``; the message names the field.
    """
    if name not in allowed:
        close = difflib.get_close_matches(str(name), allowed, n=1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {name!r}{hint}")


def build_codec(
    name: str,
    density: Density,
    value_bits: int,
    kept: torch.dtype,
    group: int = 32,
    share: Share | str = Share.SIDE,
    rank: Rank | None = None,
) -> Codec:
    """The codec of that name.

    Args:
        name: One of `CODECS`.
        density: Share of entries (sparse, mean_shift), of tokens (rows) or of the dense 16-bit bytes (low_rank) to
            keep, in (0, 1], or one a layer, or one a layer and side; dense, int8 and int4 keep all whatever it says.
        value_bits: Bits a value: 8, 16 or 32 (dense and low_rank: 16 or 32); int8 and int4 have their own.
        kept: Dtype in which KV is kept; 16-bit values are bfloat16 where it is, else float16.
        group: Entries that share a step; int8 and int4 only.
        share: What one choice of tokens serves; rows only.
        rank: The rank instead of a density; low_rank only.

    Raises:
        ValueError: An unknown name, or a value that the codec refuses.
    """
    check_codec(name)
    half = torch.bfloat16 if kept == torch.bfloat16 else torch.float16
    match name:
        case "dense":
            return DenseCodec(value_bits, half)
        case "int8" | "int4":
            return IntegerCodec(int(name.removeprefix("int")), group)
        case "rows":
            return RowsCodec(density, value_bits, half, share)
        case "mean_shift":
            return MeanShiftCodec(density, value_bits, half)
        case "low_rank":
            return LowRankCodec(density, value_bits, half, rank)
        case _:
            return SparseCodec(density, value_bits, half)
