"""Attention over shared segments, each read once for all contexts of a batch that hold it.

Rotary scores depend on the difference of positions only, so a query at position p meets a segment at offset o in the
segment's own frame once it is turned back by o. Every segment, and the dense part that is a row's own, gives a partial
softmax (values weighted by exponentials, the largest score, the sum of exponentials); the parts of a row merge by their
log-sum-exp, which is exact. Splitting a softmax so is FlashDecoding's; sharing the read among requests is Hydragen's
and cascade inference's, here for segments at any offset and not for common prefixes only.

Scores and sums are float32 whatever the model's dtype. For inference: gradients are not meant to pass.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from graphflow.backbone.lanes import hand_over_cache, in_lanes
from graphflow.backbone.residual_kernel import decode
from graphflow.backbone.residual_stack import ResidualStack, Seen
from graphflow.backbone.shared_batch import SharedBatch
from graphflow.backbone.shared_plan import Reading, Seats, Tables
from graphflow.backbone.shared_stacks import interleaved

NAME = "shared_segments"
LOWEST = torch.finfo(torch.float32).min  # of masked scores: finite, so that a query that sees nothing gives no NaN


def use_shared_attention(model: nn.Module) -> None:
    """Make a model attend through `shared_attention`; a second call changes nothing.

    Without a `SharedBatch` the model computes what its eager attention does. The cache that a forward pass is given
    reaches the attention function as the argument ``cached``.
    """
    config: Any = model.config
    if config._attn_implementation == NAME:
        return
    AttentionInterface.register(NAME, in_lanes(shared_attention))
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    hand_over_cache(model)


def shared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    cached: Any = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls.

    Args:
        module: The attention layer.
        query: (batch, heads, queries, head_dim).
        key: (batch, kv_heads, slots, head_dim), the rows' own tokens.
        value: (batch, kv_heads, slots, head_dim).
        attention_mask: Additive, (batch, 1, queries, slots); None if everything is seen.
        scaling: Factor on scores; None for 1 / sqrt(head_dim).
        softcap: Bound on scores (Gemma 2); None for none.
        cached: The cache; its segments are read if it is a `SharedBatch`.
        unused: What other implementations take.

    Returns:
        (batch, queries, heads, head_dim) in the dtype of the query, and None for the weights.
    """
    batch, heads, count, dim = query.shape
    kv_heads, layer = key.shape[1], cast(Any, module)
    reading = cached.reading(_window(layer)) if isinstance(cached, SharedBatch) else None
    if _fusible(query, softcap):
        return _fused_attention(query, key, value, attention_mask, scaling, layer.layer_idx, reading), None
    scaled = query.to(torch.float32) * (dim**-0.5 if scaling is None else scaling)
    # Heads of one group share their keys: they stand as more queries, so that nothing is repeated.
    queries = scaled.reshape(batch * kv_heads, -1, dim)
    scores = _scores(queries, key.flatten(0, 1), softcap)
    if attention_mask is not None:
        scores.view(batch, kv_heads, -1, count, scores.shape[2]).add_(attention_mask[:, :, None])
    if reading is None:
        mixed = _product(scores.softmax(dim=-1), value.flatten(0, 1)).view(batch, kv_heads, -1, count, dim)
        return mixed.permute(0, 3, 1, 2, 4).reshape(batch, count, heads, dim).to(query.dtype), None
    own = _part(scores, value.flatten(0, 1)).view(batch, kv_heads, -1, dim + 2).transpose(0, 1)
    apart = queries.view(batch, kv_heads, -1, 2, dim // 2).permute(1, 0, 2, 4, 3).contiguous()
    parts = [
        _meet(torch.view_as_complex(apart), seats, hidden, layer.layer_idx, count, softcap)
        for seats, hidden in zip(reading.tables.seats, reading.hidden, strict=True)
    ]
    mixed = _merge(torch.cat((own, *parts), dim=1), reading.tables).view(kv_heads, batch, -1, count, dim)
    return mixed.permute(1, 3, 0, 2, 4).reshape(batch, count, heads, dim).to(query.dtype), None


def _fusible(query: Tensor, softcap: float | None) -> bool:
    """True where PyTorch's fused attention gives the log of its sum of exponentials: on a CPU, without a soft-cap."""
    return query.device.type == "cpu" and softcap is None and not torch.is_grad_enabled()


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    layer: int,
    reading: Reading | None,
) -> Tensor:
    """As `shared_attention`, every part by the fused kernel: nothing is converted, and no scores are written out.

    Returns:
        (batch, queries, heads, head_dim) in the dtype of the query.
    """
    batch, heads, count, dim = query.shape
    kv_heads, slots = key.shape[1:3]
    scale = dim**-0.5 if scaling is None else scaling
    queries = query.reshape(batch, kv_heads, -1, dim)
    group = queries.shape[2] // count
    mask = None
    if attention_mask is not None:
        mask = attention_mask[:, :, None].expand(-1, -1, group, -1, -1).reshape(-1, 1, group * count, slots)
    own, lse = _fused(queries, key, value, mask, scale)
    if reading is not None:
        apart = interleaved(queries.to(torch.float32)).view(batch, kv_heads, -1, dim // 2, 2).transpose(0, 1)
        parts = [_weighed(own, lse).transpose(0, 1)]
        for seats, hidden in zip(reading.tables.seats, reading.hidden, strict=True):
            turned = torch.view_as_complex(apart).index_select(1, seats.rows) * seats.turn
            if isinstance(seats.stack.kv, ResidualStack):
                scaled = turned * scale
                parts.append(_meet_residuals(scaled, seats, seats.stack.kv, hidden, layer, count, None))
            else:
                parts.append(_meet_fused(turned, seats, hidden, layer, count, scale, query.dtype))
        own = _merge(torch.cat(parts, dim=1), reading.tables).transpose(0, 1)
    mixed = own.reshape(batch, kv_heads, group, count, dim).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch, count, heads, dim).to(query.dtype)


def _meet_fused(
    turned: Tensor, seats: Seats, hidden: Tensor | Seen | None, layer: int, count: int, scale: float, dtype: torch.dtype
) -> Tensor:
    """As `_meet`, by the fused kernel.

    Args:
        turned: complex64 (kv_heads, segments * places, queries, head_dim/2), in the segments' frames, not scaled.
        seats: Who uses which segment where.
        hidden: Keys that queries must not see.
        layer: The layer.
        count: Tokens that run in each row.
        scale: Factor on scores.
        dtype: Dtype of the model.
    """
    assert isinstance(seats.stack.kv, Tensor)
    keys, values = seats.stack.kv[layer]
    if seats.segments is not None:
        keys, values = keys[:, seats.segments], values[:, seats.segments]
    kv_heads, segments, length, dim = keys.shape
    queries = torch.view_as_real(turned).to(dtype).view(kv_heads, segments, -1, dim)
    mask = None
    if isinstance(hidden, Tensor):  # (segments, places, 1, count, length), or with 1 for places and count
        group = queries.shape[2] // (seats.places * count)
        mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
        mask = mask.expand(-1, seats.places, group, count, -1).reshape(segments, 1, -1, length)
    mixed, lse = _fused(queries.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), mask, scale)
    return _weighed(mixed, lse).transpose(0, 1).reshape(kv_heads, len(seats.rows), -1, dim + 2)


def _fused(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """A softmax over a part of the keys by PyTorch's kernel for CPUs.

    Returns:
        (batch, heads, queries, head_dim), and float32 (batch, heads, queries), the log of the sum of exponentials.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(queries, keys, values, 0.0, False, attn_mask=mask, scale=scale)


def _weighed(mixed: Tensor, lse: Tensor) -> Tensor:
    """A part in the form of `_part`, of a softmax that is divided by its sum already."""
    return torch.cat((mixed.to(torch.float32), lse[..., None], torch.ones_like(lse)[..., None]), dim=-1)


def _meet(
    queries: Tensor, seats: Seats, hidden: Tensor | Seen | None, layer: int, count: int, softcap: float | None
) -> Tensor:
    """Parts of the softmax over the segments of a stack.

    Args:
        queries: complex64 (kv_heads, batch, queries, head_dim/2), scaled.
        seats: The stack and who uses it where.
        hidden: Keys that queries must not see; what they see of base and residual.
        layer: The layer.
        count: Tokens that run in each row; a head of a group has so many queries.
        softcap: Bound on scores; None for none.

    Returns:
        float32 (kv_heads, segments * places, queries, head_dim + 2), see `_part`.
    """
    turned = queries.index_select(1, seats.rows) * seats.turn
    if isinstance(seats.stack.kv, ResidualStack):
        return _meet_residuals(turned, seats, seats.stack.kv, hidden, layer, count, softcap)
    keys, values = seats.stack.kv[layer]
    if seats.segments is not None:
        keys, values = keys[:, seats.segments], values[:, seats.segments]
    kv_heads, segments, length, dim = keys.shape
    scores = _scores(torch.view_as_real(turned).view(kv_heads * segments, -1, dim), keys.flatten(0, 1), softcap)
    if isinstance(hidden, Tensor):
        scores.view(kv_heads, segments, seats.places, -1, count, length).masked_fill_(hidden, LOWEST)
    return _part(scores, values.flatten(0, 1)).view(kv_heads, len(seats.rows), -1, dim + 2)


def _meet_residuals(
    turned: Tensor,
    seats: Seats,
    stack: ResidualStack,
    hidden: Tensor | Seen | None,
    layer: int,
    count: int,
    softcap: float | None,
) -> Tensor:
    """Parts of the softmax over segments that are kept as base and residual; as `_meet`.

    Args:
        turned: complex64 (kv_heads, segments * places, queries, head_dim/2), in the segments' frames.
        seats: Who uses which segment where.
        stack: The segments.
        hidden: What queries see of them.
        layer: The layer.
        count: Tokens that run in each row.
        softcap: Bound on scores; None for none.
    """
    segments = torch.arange(len(stack.lengths), device=turned.device) if seats.segments is None else seats.segments
    # (kv_heads, segments, places * count, group, head_dim): the heads of a token see the same of a segment.
    asked = torch.cat((turned.real, turned.imag), dim=-1).unflatten(1, (len(segments), -1)).unflatten(3, (-1, count))
    asked = asked.transpose(3, 4).flatten(2, 3)
    if isinstance(hidden, tuple):
        first, last = (bound.flatten(1) for bound in hidden)
    else:
        last = stack.lengths[segments][:, None].expand(-1, asked.shape[2])
        first = torch.zeros_like(last)
    mixed, lse = decode(asked, stack, layer, segments, (first, last), softcap)
    found = torch.cat((mixed, lse.clamp(min=LOWEST)[..., None], torch.ones_like(lse)[..., None]), dim=-1)
    found = found.unflatten(2, (-1, count)).transpose(3, 4)
    return found.reshape(len(turned), len(seats.rows), -1, found.shape[-1])


def _scores(queries: Tensor, keys: Tensor, softcap: float | None) -> Tensor:
    """Scores (groups, queries, keys) in float32, soft-capped as Gemma 2 does it."""
    scores = _product(queries, keys.mT)
    return scores if softcap is None else scores.div_(softcap).tanh_().mul_(softcap)


def _part(scores: Tensor, values: Tensor) -> Tensor:
    """A softmax over a part of the keys, not yet divided by its sum.

    Args:
        scores: float32 (groups, queries, keys); changed.
        values: (groups, keys, head_dim).

    Returns:
        float32 (groups, queries, head_dim + 2): values weighted by exp(score - peak), then the largest score (peak) and
        the sum of exp(score - peak).
    """
    peak = scores.amax(dim=-1, keepdim=True)
    scores.sub_(peak).exp_()
    return torch.cat((_product(scores, values), peak, scores.sum(dim=-1, keepdim=True)), dim=-1)


def _merge(parts: Tensor, tables: Tables) -> Tensor:
    """The whole softmax of every row, of its parts.

    Args:
        parts: float32 (kv_heads, results, queries, head_dim + 2), in the order of the tables.
        tables: Which of them are of which row.

    Returns:
        float32 (kv_heads, batch, queries, head_dim).
    """
    kv_heads, _, queries, width = parts.shape
    own = parts.index_select(1, tables.back).view(kv_heads, -1, tables.parts, queries, width)
    peak = own[..., -2:-1]
    if tables.absent is not None:
        peak.masked_fill_(tables.absent, LOWEST)
    weights = (peak - peak.amax(dim=2, keepdim=True)).exp_()
    whole = (own * weights).sum(dim=2)
    return whole[..., :-2] / whole[..., -1:]


def _window(layer: Any) -> int | None:
    """Window of a sliding layer in tokens; None elsewhere (the same layers as in `compat.masks_for`)."""
    return layer.sliding_window if getattr(layer, "layer_type", None) == "sliding_attention" else None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product in float32; ``left`` is float32, ``right`` of the model's dtype."""
    if right.dtype is torch.float32:
        return torch.bmm(left, right)
    if right.is_cuda:
        return torch.bmm(left.to(right.dtype), right, out_dtype=torch.float32)
    return torch.bmm(left, right.to(torch.float32))
