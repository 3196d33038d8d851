"""Decoding over bases and sparse residuals in one kernel: a reconstructed segment is never written to memory.

One program takes one segment, one key/value head and up to `QUERIES` of the queries that use the segment. It walks over
the tokens in tiles: reads the base, the residual's bits and the values they stand for, adds them in registers and
carries an online softmax (FlashAttention's). What it gives is a part of each row's softmax with its log-sum-exp. Needs
Triton, which the CUDA builds of PyTorch bring; its interpreter (TRITON_INTERPRET=1) runs it on a CPU, for tests. On
other devices `decode` reconstructs one layer at a time.
"""
# pyright: reportOptionalMemberAccess=false, reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphflow.backbone.residual_stack import ResidualStack, Seen

try:
    import triton  # pyright: ignore[reportMissingImports]
    import triton.language as tl  # pyright: ignore[reportMissingImports]
except ImportError:
    triton = tl = None

KERNEL_ON = ("cuda",)  # devices; "cpu" works in the interpreter, slowly
QUERIES, TOKENS = 16, 32  # tile of a program; a product of tiles wants at least 16 on every side

Part = tuple[Tensor, Tensor]  # values (..., head_dim) of a part of the keys, log-sum-exp of its scores (...)


def _jit(function: Callable) -> Callable:
    return triton.jit(function) if triton else function


@_jit
def _tile(
    base,  # pointer to the base's first token
    bits,  # pointer to the segment's first token's bits
    starts,  # pointer to the segment's first token's start
    values,
    scale,
    tokens,  # of the tile
    length,
    DIM: tl.constexpr,
):
    """Base plus residual of a tile of tokens, (TOKENS, DIM) in the base's dtype."""
    inside = (tokens < length)[:, None]
    channels = tl.arange(0, DIM)[None, :]
    dense = tl.load(base + tokens[:, None] * DIM + channels, mask=inside, other=0.0)
    byte = tl.load(bits + tokens[:, None] * (DIM // 8) + channels // 8, mask=inside, other=0)
    kept = (byte.to(tl.int32) >> (channels % 8)) & 1
    place = tl.load(starts + tokens, mask=tokens < length, other=0)[:, None] + tl.cumsum(kept, axis=1) - kept
    residual = tl.load(values + place, mask=kept != 0, other=0).to(tl.float32) * scale
    return (dense.to(tl.float32) + residual).to(dense.dtype)


@_jit
def _decode(
    queries,  # float32 (kv_heads, uses, WIDTH, DIM)
    chosen,  # int32 (uses,), the segment of each
    first,  # int32 (uses, WIDTH // GROUP)
    last,  # likewise
    base,  # (2, bases, kv_heads, LENGTH, DIM)
    which,
    lengths,
    bits,  # (2, segments, kv_heads, LENGTH, DIM // 8)
    starts,  # (2, segments, kv_heads, LENGTH)
    values,
    scales,  # (2, segments, kv_heads)
    mixed,  # float32 (kv_heads, uses, WIDTH, DIM)
    lse,  # float32 (kv_heads, uses, WIDTH)
    softcap,
    uses,
    bases,
    segments,
    heads,
    WIDTH,
    LENGTH,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    SCALED: tl.constexpr,
    CAPPED: tl.constexpr,
    QUERIES: tl.constexpr,
    TOKENS: tl.constexpr,
):
    use, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    segment = tl.load(chosen + use).to(tl.int64)
    query = tl.program_id(2) * QUERIES + tl.arange(0, QUERIES)
    real = query < WIDTH
    row = (head * uses + use) * WIDTH + query
    channels = tl.arange(0, DIM)[None, :]
    asked = tl.load(queries + row[:, None] * DIM + channels, mask=real[:, None], other=0.0)
    place = use * (WIDTH // GROUP) + query // GROUP
    low = tl.load(first + place, mask=real, other=LENGTH)
    high = tl.load(last + place, mask=real, other=0)
    length = tl.load(lengths + segment)

    held = tl.load(which + segment).to(tl.int64) * heads + head  # keys; values lie bases * heads further
    own = segment * heads + head  # likewise, segments * heads further
    other = segments * heads
    key_scale, value_scale = 1.0, 1.0
    if SCALED:
        key_scale, value_scale = tl.load(scales + own), tl.load(scales + own + other)

    peak = tl.full((QUERIES,), -3.0e38, tl.float32)
    mass = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, DIM), tl.float32)
    begin = tl.min(low, axis=0) // TOKENS * TOKENS
    for start in range(begin, tl.minimum(tl.max(high, axis=0), length), TOKENS):
        tokens = start + tl.arange(0, TOKENS)
        keys = _tile(
            base + held * LENGTH * DIM,
            bits + own * LENGTH * (DIM // 8),
            starts + own * LENGTH,
            values,
            key_scale,
            tokens,
            length,
            DIM,
        )
        scores = tl.dot(asked.to(keys.dtype), tl.trans(keys), input_precision="ieee")
        if CAPPED:
            # tanh(x) = (1 - exp(-2x)) / (1 + exp(-2x)) for positive x
            small = tl.exp(-2 * tl.abs(scores) / softcap)
            scores = tl.where(scores < 0, -softcap, softcap) * (1 - small) / (1 + small)
        seen = (tokens[None, :] >= low[:, None]) & (tokens[None, :] < high[:, None]) & (tokens < length)[None, :]
        scores = tl.where(seen, scores, -3.0e38)
        highest = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.where(seen, tl.exp(scores - highest[:, None]), 0.0)
        fade = tl.exp(peak - highest)
        peak = highest
        mass = mass * fade + tl.sum(weights, axis=1)
        found = _tile(
            base + (held + bases * heads) * LENGTH * DIM,
            bits + (own + other) * LENGTH * (DIM // 8),
            starts + (own + other) * LENGTH,
            values,
            value_scale,
            tokens,
            length,
            DIM,
        )
        total = total * fade[:, None] + tl.dot(weights.to(found.dtype), found, input_precision="ieee")

    some = mass > 0
    total = total / tl.where(some, mass, 1.0)[:, None]
    tl.store(mixed + row[:, None] * DIM + channels, total, mask=real[:, None])
    tl.store(lse + row, tl.where(some, peak + tl.log(tl.where(some, mass, 1.0)), float("-inf")), mask=real)


def decode(
    queries: Tensor, stack: ResidualStack, layer: int, segments: Tensor, seen: Seen, softcap: float | None = None
) -> Part:
    """Attention over segments that are kept as base and residual: one part of their softmax for every use.

    Args:
        queries: float32 (kv_heads, segments, places, group, head_dim): for every use of a segment the query heads that
            share a key/value head, scaled and turned to the segment's frame.
        stack: The segments.
        layer: Layer of the model.
        segments: int64 (segments,), which of the stack.
        seen: First token of the segment that is seen there (sliding windows) and token after the last, int64 (segments,
            places) each; nothing is seen where the second is not above the first.
        softcap: Bound on scores (Gemma 2); None for none.

    Returns:
        float32 values in the shape of ``queries``, and log-sum-exp of the scores without the last dimension; 0 and
        -inf where nothing is seen.
    """
    dim = queries.shape[-1]
    if triton is not None and queries.device.type in KERNEL_ON and not dim & (dim - 1):
        return _by_kernel(queries, stack, layer, segments, seen, softcap)
    return _by_layer(queries, stack, layer, segments, seen, softcap)


def _by_kernel(
    queries: Tensor, stack: ResidualStack, layer: int, segments: Tensor, seen: Seen, softcap: float | None
) -> Part:
    """As `decode`, by the kernel, whose tiles want a head_dim that is a power of 2."""
    heads, uses, places, group, dim = queries.shape
    asked = queries.contiguous()
    mixed, lse = torch.empty_like(asked), asked.new_empty((heads, uses, places, group))
    scales = stack.scales
    _decode[(uses, heads, triton.cdiv(places * group, QUERIES))](  # type: ignore[index]
        asked,
        segments.to(torch.int32),
        *(bound.to(torch.int32).contiguous() for bound in seen),
        stack.base[layer],
        stack.which,
        stack.lengths,
        stack.bits[layer],
        stack.starts[layer],
        stack.values,
        lse if scales is None else scales[layer],
        mixed,
        lse,
        0.0 if softcap is None else softcap,
        uses,
        stack.base.shape[2],
        len(stack.which),
        heads,
        places * group,
        stack.length,
        GROUP=group,
        DIM=dim,
        SCALED=scales is not None,
        CAPPED=softcap is not None,
        QUERIES=QUERIES,
        TOKENS=TOKENS,
    )
    return mixed, lse


def _by_layer(
    queries: Tensor, stack: ResidualStack, layer: int, segments: Tensor, seen: Seen, softcap: float | None
) -> Part:
    """As `decode`, over segments that are reconstructed for this layer alone."""
    keys, values = stack.decode(layer, segments).to(torch.float32)[:, :, :, None]
    scores = queries @ keys.mT
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    token, (first, last) = torch.arange(stack.length, device=queries.device), seen
    last = torch.minimum(last, stack.lengths[segments][:, None])
    visible = (token >= first[..., None]) & (token < last[..., None])
    scores = scores.masked_fill(~visible[:, :, None], -torch.inf)
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse[..., None]).exp().nan_to_num(0.0)  # of nothing: -inf - -inf
    return weights @ values, lse
