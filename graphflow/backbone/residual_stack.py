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
from graphflow.kv.segment import Cut, EncodedSegment, Piece

Seen = tuple[Tensor, Tensor]
"""First token of a segment that is seen, and token after the last: int64 each, in one shape."""


Readable = EncodedSegment | Cut


def readable(piece: Piece) -> TypeGuard[Readable]:
    """True if a piece is a base and one sparse residual, or cut from them: attention can read it as it is kept."""
    whole = piece.of if isinstance(piece, Cut) else piece
    return (
        isinstance(whole, EncodedSegment)
        and whole.mean is None
        and type(whole.codec) is SparseCodec
        and whole.base.shape[4] % 8 == 0
    )


def frame_of(piece: Piece) -> int:
    """Position of a piece's first token in the frame in which its base is kept: that of what it is cut from."""
    return piece.start if isinstance(piece, Cut) else 0


def _whole(piece: Readable) -> EncodedSegment:
    """The segment that a readable piece is, or is cut from."""
    whole = piece.of if isinstance(piece, Cut) else piece
    assert isinstance(whole, EncodedSegment), "a readable piece is a base and a residual, or cut from them"
    return whole


def _part(piece: Readable) -> slice:
    """The tokens of that segment."""
    start = frame_of(piece)
    return slice(start, start + piece.length)


@dataclass(frozen=True, eq=False)
class ResidualStack:
    """Segments over bases that some of them have in common; short ones are padded to L tokens.

    Attributes:
        base: (layers, 2, bases, kv_heads, L, head_dim) in the model's dtype, keys at the positions of the segment that
            they are cut from (`frame_of`).
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
    def of(cls, segments: Sequence[Readable], dtype: torch.dtype, device: torch.device) -> ResidualStack:
        """Stack segments that are `readable`, all with values of one dtype.

        Args:
            segments: The segments; one base is one object. Of several cuts of one segment the values are held once.
            dtype: Dtype that the model computes in.
            device: Device that the model computes on.

        Raises:
            ValueError: No segments, one that is not readable, or values of different dtypes.
        """
        _check(segments)
        keys = [(id(_whole(segment).base), _part(segment).start, segment.length) for segment in segments]
        parts = (_whole(segment).base[:, :, :, _part(segment)] for segment in segments)
        bases = dict(zip(keys, parts, strict=True))
        length = max(segment.length for segment in segments)
        layers, _, heads, _, dim = _whole(segments[0]).base.shape
        sizes = (layers, 2, len(segments), heads, length)
        stacked = torch.zeros((layers, 2, len(bases), heads, length, dim), dtype=dtype)
        for index, base in enumerate(bases.values()):
            stacked[:, :, index, :, : base.shape[3]] = base
        bits, starts = torch.zeros((*sizes, dim // 8), dtype=torch.uint8), torch.zeros(sizes, dtype=torch.int32)
        kept = _Kept()
        for index, segment in enumerate(segments):
            own, begin = kept.of(_whole(segment))
            bits[:, :, index, :, : segment.length] = own[:, :, :, _part(segment)]
            starts[:, :, index, :, : segment.length] = begin[:, :, :, _part(segment)]
        scales = None
        if "scales" in _whole(segments[0]).remainder.tensors:
            factors = [_whole(segment).remainder.tensors["scales"].cpu().float() for segment in segments]
            scales = torch.stack([factor.view(layers, 2, heads) for factor in factors], dim=2).to(device)
        order = {key: index for index, key in enumerate(bases)}
        return cls(
            base=stacked.to(device),
            which=torch.tensor([order[key] for key in keys], dtype=torch.int32, device=device),
            lengths=torch.tensor([segment.length for segment in segments], dtype=torch.int32, device=device),
            bits=bits.to(device),
            starts=starts.to(device),
            values=torch.cat(kept.values).to(device),
            scales=scales,
        )


class _Kept:
    """Residuals that go into a stack, each once.

    Attributes:
        values: Their values in a row.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self._found: dict[int, tuple[Tensor, Tensor]] = {}
        self._before = 0

    def of(self, segment: EncodedSegment) -> tuple[Tensor, Tensor]:
        """Bits (layers, 2, kv_heads, L, head_dim / 8) of a whole segment, and where each token's values begin."""
        key = id(segment.remainder)
        if key not in self._found:
            layers, _, heads, length, dim = segment.base.shape
            bits = _bitmap(segment.remainder).view(layers, 2, heads, length, dim // 8)
            counts = _ones()[bits.long()].sum(dim=-1)
            ends = self._before + counts.flatten().cumsum(0)
            self._found[key] = bits, ends.view_as(counts) - counts
            self._before = int(ends[-1])
            self.values.append(values_of(segment).flatten())
        return self._found[key]


def _check(segments: Sequence[Readable]) -> None:
    if not segments:
        raise ValueError("segments must hold at least one segment, got none")
    for segment in segments:
        if not readable(segment):
            whole = _whole(segment)
            raise ValueError(
                "segments must be a base of a head_dim that 8 divides and one residual of the sparse codec, got "
                f"head_dim {whole.base.shape[4]}, {type(whole.codec).__name__}"
                f"{'' if whole.mean is None else ' and the mean of a path'}"
            )
    dtypes = sorted({str(values_of(segment).dtype) for segment in segments})
    if len(dtypes) > 1:
        raise ValueError(f"values of all residuals must have one dtype, got {' and '.join(dtypes)}")


def values_of(segment: Readable) -> Tensor:
    """Kept values of the residual of a segment, or of what it is cut from, as they are stored."""
    return _whole(segment).remainder.tensors["values"]


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
