"""Sparse residuals: the most salient entries of every (layer, K/V), a bitmap of where they are, and their values.

The paper stores a sparse ΔKV and does not say how indices are kept. A bitmap costs one bit an entry whatever the
density, where 16-bit indices cost 16 bits a kept entry; at a quarter of the entries that is a quarter of the indices'
bytes. Saliency is magnitude times a weight that the caller may give.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphflow.kv.codecs.base import Codec, Encoded, check_residual, check_value_bits, narrow

_BITS = 8


class SparseCodec(Codec):
    """Keeps round(density x entries) entries of every (layer, K/V), at least one.

    Stored: values (layers*2, kept); a bitmap (layers*2, ceil(entries/8)) uint8, left out at density 1; for 8-bit
    values one float16 scale per (layer, K/V, head).

    Args:
        density: Share of entries to keep, in (0, 1].
        value_bits: 8 (int8 with scales), 16, or 32 (lossless for float32 at density 1).
        half: Dtype of 16-bit values, float16 or bfloat16.

    Raises:
        ValueError: A density or a width out of range.
    """

    def __init__(self, density: float, value_bits: int = 16, half: torch.dtype = torch.float16) -> None:
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1], got {density}")
        check_value_bits(value_bits, (8, 16, 32))
        self.density = density
        self.value_bits = value_bits
        self.half = half

    def encode(self, residual: Tensor, weight: Tensor | None = None) -> Encoded:
        """Encode a residual, keeping the largest ``|residual| * weight`` (see `Codec.encode`)."""
        check_residual(residual)
        layers, sides, heads, length, dim = residual.shape
        flat = residual.to(torch.float32).reshape(layers * sides, heads * length * dim)
        entries = flat.shape[1]
        kept = min(entries, max(1, round(self.density * entries)))
        tensors: dict[str, Tensor] = {}
        index = None
        values = flat
        if self.density < 1:
            saliency = flat.abs()
            if weight is not None:
                saliency = saliency * weight.to(flat).expand(residual.shape).reshape(flat.shape)
            index = saliency.topk(kept, dim=1, sorted=False).indices.sort(dim=1).values
            values = flat.gather(1, index)
            tensors["bitmap"] = _pack(torch.zeros_like(flat, dtype=torch.bool).scatter_(1, index, True))
        if self.value_bits == 8:
            tensors["values"], tensors["scales"] = _quantise(values, index, heads, length * dim)
        else:
            dtype = torch.float32 if self.value_bits == 32 else self.half
            tensors["values"] = narrow(values, dtype).clone()
        return Encoded(tuple(residual.shape), tensors)

    def decode(self, encoded: Encoded) -> Tensor:
        """The residual again, float32; entries that were not kept are zero."""
        layers, sides, heads, length, dim = encoded.shape
        entries = heads * length * dim
        flat = encoded.tensors["values"].to(torch.float32)
        if "bitmap" in encoded.tensors:
            mask = _unpack(encoded.tensors["bitmap"], entries)
            flat = torch.zeros(mask.shape, device=flat.device).masked_scatter_(mask, flat)
        if "scales" in encoded.tensors:
            scales = encoded.tensors["scales"].to(torch.float32)
            flat = flat.reshape(layers * sides, heads, length * dim) * scales[:, :, None]
        return flat.reshape(encoded.shape)


def _pack(mask: Tensor) -> Tensor:
    """Booleans (groups, n) as bits (groups, ceil(n/8)) uint8; entry 0 is the lowest bit of byte 0."""
    groups, entries = mask.shape
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -entries % _BITS))
    places = 1 << torch.arange(_BITS, device=mask.device, dtype=torch.uint8)
    return (padded.reshape(groups, -1, _BITS) * places).sum(dim=-1, dtype=torch.uint8)


def _unpack(bitmap: Tensor, entries: int) -> Tensor:
    """The inverse of `_pack`: booleans (groups, entries)."""
    places = torch.arange(_BITS, device=bitmap.device, dtype=torch.uint8)
    bits = (bitmap[:, :, None] >> places) & 1
    return bits.reshape(bitmap.shape[0], -1)[:, :entries].to(torch.bool)


def _quantise(values: Tensor, index: Tensor | None, heads: int, per_head: int) -> tuple[Tensor, Tensor]:
    """Kept values (groups, kept) as int8 and one float16 scale per head, (groups, heads).

    Args:
        values: Kept values.
        index: Entry of every kept value in its group; None where all are kept.
        heads: Heads a group.
        per_head: Entries a head.
    """
    if index is None:
        index = torch.arange(heads * per_head, device=values.device).expand_as(values)
    head = index // per_head
    largest = torch.zeros(values.shape[0], heads, device=values.device)
    largest = largest.scatter_reduce(1, head, values.abs(), reduce="amax")
    scales = narrow(largest / 127, torch.float16)
    step = scales.to(torch.float32).gather(1, head)
    whole = torch.where(step > 0, values / step.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
    return whole.round().clamp(-127, 127).to(torch.int8), scales
