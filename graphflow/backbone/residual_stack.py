"""Segments as a base and a sparse residual, laid out so that a kernel can read a run of tokens alone.

The stored format is `SparseCodec`'s: a bitmap of the entries that are kept, and their values in a row. Where a token's
values begin follows from all bits before it, so that is counted once and kept: 4 bytes for every token, head and side
(our choice; at head_dim 128 a quarter of what the bitmap takes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from graphflow.kv.accounting import tensor_bytes
from graphflow.kv.codecs import Encoded, SparseCodec
from graphflow.kv.segment import EncodedSegment, Piece

Seen = tuple[Tensor, Tensor]
"""First token of a segment that is seen, and token after the last: int64 each, in one shape."""


def readable(piece: Piece) -> TypeGuard[EncodedSegment]:
    """True if a piece is a base and one sparse residual, which attention can read as they are."""
    return (
        isinstance(piece, EncodedSegment)
        and piece.mean is None
        and type(piece.codec) is SparseCodec
        and piece.base.shape[4] % 8 == 0
    )


@dataclass(frozen=True, eq=False)
class ResidualStack:
    """Segments over bases that some of them have in common; short ones are padded to L tokens.

    Attributes:
        base: (layers, 2, bases, kv_heads, L, head_dim) in the model's dtype, keys at local positions.
        which: int32 (segments,), the base of each.
        lengths: int32 (segments,), tokens of each.
        bits: uint8 (layers, 2, segments, kv_heads, L, head_dim / 8), which entries have a residual; lowest bit first.
        starts: int32 (layers, 2, segments, kv_heads, L), where the values of a token begin.
        values: Kept values of all segments in a row: int8, float16, bfloat16 or float32.
        scales: float32 (layers, 2, segments, kv_heads), factor on the values; None if they are what they are.
    """

    base: Tensor
    which: Tensor
    lengths: Tensor
    bits: Tensor
    starts: Tensor
    values: Tensor
    scales: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of everything held."""
        return sum(tensor_bytes(tensor) for tensor in vars(self).values() if tensor is not None)

    @property
    def length(self) -> int:
        """Tokens that every segment is padded to."""
        return self.base.shape[4]

    def decode(self, layer: int, segments: Tensor) -> Tensor:
        """Some segments reconstructed, for one layer: (2, kv_heads, segments, L, head_dim) in the base's dtype.

        Args:
            layer: Layer of the model.
            segments: int64 (segments,), which of them.
        """
        packed, starts = (
            tensor[layer].index_select(1, segments).transpose(1, 2) for tensor in (self.bits, self.starts)
        )
        kept = ((packed[..., None] >> torch.arange(8, device=packed.device)) & 1).flatten(-2)
        place = starts[..., None] + kept.cumsum(-1) - kept
        values = self.values if len(self.values) else self.values.new_zeros(1)
        residual = values[place.clamp(max=len(values) - 1)].to(torch.float32) * kept
        if self.scales is not None:
            residual *= self.scales[layer].index_select(1, segments).transpose(1, 2)[..., None, None]
        base = self.base[layer].index_select(1, self.which[segments]).transpose(1, 2)
        return (base.to(torch.float32) + residual).to(base.dtype)

    @classmethod
    def of(cls, segments: Sequence[EncodedSegment], dtype: torch.dtype, device: torch.device) -> ResidualStack:
        """Stack segments that are `readable`, all with values of one dtype.

        Args:
            segments: The segments; one base is one object.
            dtype: Dtype that the model computes in.
            device: Device that the model computes on.

        Raises:
            ValueError: No segments, one that is not readable, or values of different dtypes.
        """
        _check(segments)
        bases = list({id(segment.base): segment.base for segment in segments}.values())
        length = max(base.shape[3] for base in bases)
        layers, _, heads, _, dim = bases[0].shape
        sizes = (layers, 2, len(segments), heads, length)
        stacked = torch.zeros((layers, 2, len(bases), heads, length, dim), dtype=dtype)
        for index, base in enumerate(bases):
            stacked[:, :, index, :, : base.shape[3]] = base
        bits, starts = torch.zeros((*sizes, dim // 8), dtype=torch.uint8), torch.zeros(sizes, dtype=torch.int32)
        before = 0
        for index, segment in enumerate(segments):
            own = _bitmap(segment.remainder).view(layers, 2, heads, segment.length, dim // 8)
            counts = _ones()[own.long()].sum(dim=-1)
            bits[:, :, index, :, : segment.length] = own
            ends = before + counts.flatten().cumsum(0)
            starts[:, :, index, :, : segment.length] = ends.view_as(counts) - counts
            before = int(ends[-1])
        scales = None
        if "scales" in segments[0].remainder.tensors:
            parts = [segment.remainder.tensors["scales"].cpu().float().view(layers, 2, heads) for segment in segments]
            scales = torch.stack(parts, dim=2).to(device)
        order = {id(base): index for index, base in enumerate(bases)}
        return cls(
            base=stacked.to(device),
            which=torch.tensor([order[id(segment.base)] for segment in segments], dtype=torch.int32, device=device),
            lengths=torch.tensor([segment.length for segment in segments], dtype=torch.int32, device=device),
            bits=bits.to(device),
            starts=starts.to(device),
            values=torch.cat([values_of(segment).flatten() for segment in segments]).to(device),
            scales=scales,
        )


def _check(segments: Sequence[EncodedSegment]) -> None:
    if not segments:
        raise ValueError("segments must hold at least one segment, got none")
    for segment in segments:
        if not readable(segment):
            raise ValueError(
                "segments must be a base of a head_dim that 8 divides and one residual of the sparse codec, got "
                f"head_dim {segment.base.shape[4]}, {type(segment.codec).__name__}"
                f"{'' if segment.mean is None else ' and the mean of a path'}"
            )
    dtypes = sorted({str(values_of(segment).dtype) for segment in segments})
    if len(dtypes) > 1:
        raise ValueError(f"values of all residuals must have one dtype, got {' and '.join(dtypes)}")


def values_of(segment: EncodedSegment) -> Tensor:
    """Kept values of a segment's residual, as they are stored."""
    return segment.remainder.tensors["values"]


def _bitmap(encoded: Encoded) -> Tensor:
    """Bits of every (layer, side) in full, uint8 (layers * 2, entries / 8), also of those that keep all or nothing."""
    layers, sides, heads, length, dim = encoded.shape
    tensors, entries = encoded.tensors, heads * length * dim
    if "counts" in tensors:
        counts = tensors["counts"].cpu()
        bits = torch.where(counts == entries, 255, 0).to(torch.uint8)[:, None].repeat(1, entries // 8)
        bits[(counts > 0) & (counts < entries)] = tensors["bitmap"].cpu()
        return bits
    if "bitmap" in tensors:
        return tensors["bitmap"].cpu()
    full = 255 if tensors["values"].numel() else 0
    return torch.full((layers * sides, entries // 8), full, dtype=torch.uint8)


def _ones() -> Tensor:
    """How many bits every byte has, (256,)."""
    return ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).sum(dim=1)
