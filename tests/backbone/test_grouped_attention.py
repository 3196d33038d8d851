"""Heads that stand as more queries of their key head see what they see when keys are repeated."""

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from graphflow.backbone.grouped_attention import NAME, grouped_attention
from tests.tiny import tiny_backbone


def layer(groups):
    module = torch.nn.Module()
    module.num_key_value_groups, module.is_causal = groups, True
    return module.eval()


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (6, 1), (3, 3)])
def test_grouped_attention_is_the_fused_one(heads, kv_heads, count):
    torch.manual_seed(0)
    query = torch.randn(3, heads, count, 8)
    key, value = torch.randn(2, 3, kv_heads, 11, 8)
    mask = torch.zeros(3, 1, count, 11).masked_fill_(torch.rand(3, 1, count, 11) < 0.4, torch.finfo().min)
    expected, _ = sdpa_attention_forward(layer(heads // kv_heads), query, key, value, mask, scaling=0.3)
    got, _ = grouped_attention(layer(heads // kv_heads), query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_a_model_without_our_cache_computes_what_it_did(family):
    backbone = tiny_backbone(family)
    assert backbone.model.config._attn_implementation == NAME
    ids = torch.randint(8, 60, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = backbone.model(ids).logits
        padded = backbone.model(ids, attention_mask=torch.ones_like(ids).index_fill_(1, torch.tensor([0]), 0)).logits
        backbone.model.set_attn_implementation("eager")
        torch.testing.assert_close(ours, backbone.model(ids).logits, rtol=0, atol=1e-4)
        mask = torch.ones_like(ids).index_fill_(1, torch.tensor([0]), 0)
        exact = backbone.model(ids, attention_mask=mask).logits
    torch.testing.assert_close(padded[:, 1:], exact[:, 1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_weights_are_dropped_where_that_is_asked_for(masked):
    """All of them: nothing is mixed."""
    query, key = torch.ones(1, 4, 3, 8), torch.ones(1, 2, 3, 8)
    mask = torch.zeros(1, 1, 3, 3) if masked else None
    assert grouped_attention(layer(2), query, key, key, mask, dropout=1.0)[0].abs().max() == 0
    assert grouped_attention(layer(2), query, key, key, mask)[0].min() > 0.99
