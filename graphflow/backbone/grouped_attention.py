"""PyTorch's fused attention without repeated keys: heads of one group stand as more queries of their shared head.

The `sdpa` of transformers writes every key and value head out once for each query head before a masked call. When a
batch decodes, those copies are most of the time of attention (our choice).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from graphflow.backbone.lanes import hand_over_cache, in_lanes

NAME = "grouped_sdpa"


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cached: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls.

    Args:
        module: The attention layer.
        query: (batch, heads, queries, head_dim).
        key: (batch, kv_heads, slots, head_dim).
        value: (batch, kv_heads, slots, head_dim).
        attention_mask: Additive or bool, (batch, 1, queries, slots); None leaves the call to transformers.
        scaling: Factor on scores; None for 1 / sqrt(head_dim).
        dropout: Share of weights that are dropped in training.
        cached: The cache, of no use here.
        others: What the `sdpa` of transformers takes.

    Returns:
        (batch, queries, heads, head_dim), and None for the weights.
    """
    if attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, None, dropout, scaling, **others)  # type: ignore[return-value]
    batch, heads, count, dim = query.shape
    kv_heads, slots = key.shape[1:3]
    group = heads // kv_heads
    seen = attention_mask[:, :, None].expand(-1, -1, group, -1, -1).reshape(-1, 1, group * count, slots)
    queries = query.reshape(batch, kv_heads, group * count, dim)
    mixed = scaled_dot_product_attention(queries, key, value, seen, dropout, scale=scaling)
    mixed = mixed.view(batch, kv_heads, group, count, dim).permute(0, 3, 1, 2, 4)
    return mixed.reshape(batch, count, heads, dim), None


def use_grouped_attention(model: nn.Module) -> None:
    """Make a model attend through `grouped_attention`, lane by lane where its cache has lanes."""
    AttentionInterface.register(NAME, in_lanes(grouped_attention))
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)  # type: ignore[operator]
    hand_over_cache(model)
