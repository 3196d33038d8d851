"""Saliency against attention weights and queries taken from the model itself, one number at a time."""

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import apply_rotary_pos_emb

from graphflow.backbone.saliency import Saliency, gather
from graphflow.kv.codecs import SparseCodec
from tests.tiny import FAMILIES, WINDOW, tiny_backbone

LAYERS, HEADS, GROUP, DIM = 4, 2, 2, 8  # of the tiny models: two query heads a key/value head


def tokens(length, seed):
    return torch.randint(8, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def rotated_queries(backbone, ids):
    """Queries after rotation, (T, query heads, head_dim) a layer, by the model's own rotary embedding."""
    taken, handles = {}, []
    for index, layer in enumerate(backbone.model.model.layers):
        hook = lambda module, inputs, output, index=index: taken.update({index: output.detach()})  # noqa: E731
        handles.append(layer.self_attn.q_proj.register_forward_hook(hook))
    with torch.no_grad():
        ours = backbone.model.config._attn_implementation
        backbone.model.set_attn_implementation("eager")
        out = backbone.model(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False)
        backbone.model.set_attn_implementation(ours)
        cos, sin = backbone.model.model.rotary_emb(out.logits, torch.arange(len(ids))[None])
    for handle in handles:
        handle.remove()
    queries = []
    for index in range(LAYERS):
        q = taken[index].reshape(1, len(ids), HEADS * GROUP, DIM).transpose(1, 2)
        queries.append(apply_rotary_pos_emb(q, q, cos, sin)[0][0].transpose(0, 1))
    return queries, [attention[0].tolist() for attention in out.attentions]


def direct(backbone, ids, span, tail):
    """Both weights with loops over the model's own attention weights and rotated queries."""
    queries, attentions = rotated_queries(backbone, ids)
    queries = [layer.tolist() for layer in queries]
    keys = [[[0.0] * DIM for _ in range(HEADS)] for _ in range(LAYERS)]
    values = [[[0.0] * (span[1] - span[0]) for _ in range(HEADS)] for _ in range(LAYERS)]
    reading = range(span[1] - tail, len(ids))
    types = getattr(backbone.model.config, "layer_types", None) or ["full_attention"] * LAYERS
    for layer in range(LAYERS):
        scaling = backbone.model.model.layers[layer].self_attn.scaling
        for t in reading:
            seen = 0
            for place in range(*span):
                within = t - place < WINDOW or types[layer] == "full_attention"
                seen += int(place <= t and within)
                for head in range(HEADS * GROUP):
                    values[layer][head // GROUP][place - span[0]] += attentions[layer][head][t][place] / len(reading)
            share = seen / (span[1] - span[0]) / len(reading)
            for head in range(HEADS * GROUP):
                for c in range(DIM):
                    pair = [queries[layer][t][head][c % 4], queries[layer][t][head][c % 4 + 4]]
                    keys[layer][head // GROUP][c] += share * (pair[0] ** 2 + pair[1] ** 2) / 2 * scaling**2
    return torch.tensor(keys), torch.tensor(values)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tail", [1, 3])
def test_equals_the_models_own_attention(family, tail):
    backbone = tiny_backbone(family)
    ids, span = tokens(WINDOW + 12, 0), (4, 13)  # Gemma's windows leave late queries blind to early tokens
    keys, values = direct(backbone, ids, span, tail)
    saliency = gather(backbone, [(ids, span)], tail)
    assert saliency.count == len(ids) - span[1] + tail
    torch.testing.assert_close(saliency.keys, keys, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(saliency.values, values, rtol=1e-4, atol=1e-6)
    weights = saliency.weights()
    assert weights.shape == (LAYERS, 2, HEADS, 9, DIM) and weights.dtype == torch.float32
    for place in range(9):
        assert torch.equal(weights[:, 0, :, place], saliency.keys)
    for channel in range(DIM):
        assert torch.equal(weights[:, 1, :, :, channel], saliency.values)


def test_windows_and_soft_caps_matter():
    backbone = tiny_backbone("gemma2")
    ids, span = tokens(60, 1), (0, 8)
    capped = gather(backbone, [(ids, span)])
    backbone.model.config.attn_logit_softcapping = None
    free = gather(backbone, [(ids, span)])
    assert float((capped.values - free.values).abs().max()) > 1e-4
    # The last tokens of 60 see none of the first 8 through a window of 24; in full layers they do.
    late = Saliency()
    late.observe(backbone, ids, (0, 60 - WINDOW - 8), tail=1)
    sliding = [i for i, kind in enumerate(backbone.model.config.layer_types) if kind == "sliding_attention"]
    full = [i for i in range(LAYERS) if i not in sliding]
    assert float(late.values[sliding, :, 0].max()) < float(late.values[full, :, 0].min())


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_unchanged_and_hooks_are_gone(family):
    backbone, ids = tiny_backbone(family), tokens(20, 2)

    def logits():
        with torch.inference_mode():
            return backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits

    before = logits()
    gather(backbone, [(ids, (2, 9))])
    assert torch.equal(logits(), before)
    assert not any(module._forward_hooks for module in backbone.model.modules())
    with pytest.raises(IndexError):
        gather(backbone, [([10**6] * 5, (0, 2))])
    assert not any(module._forward_hooks for module in backbone.model.modules())


def test_running_average_is_the_average_over_queries():
    backbone = tiny_backbone()
    contexts = [(tokens(20, 1), (3, 10)), (tokens(33, 2), (12, 19)), (tokens(14, 3), (0, 7))]
    one_by_one = [gather(backbone, [context]) for context in contexts]
    together = gather(backbone, contexts)
    counts = [len(ids) - stop + 1 for ids, (_, stop) in contexts]
    assert together.count == sum(counts) == 11 + 15 + 8
    for name in ("keys", "values"):
        mean = sum(getattr(one, name) * n for one, n in zip(one_by_one, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(getattr(together, name), mean)
    assert together.nbytes == 4 * LAYERS * HEADS * (DIM + 7)
    part = together.cut(2, 6)
    assert torch.equal(part.weights(), together.weights()[:, :, :, 2:6])


def test_moving_the_prompt_moves_no_channel_weight():
    """Pairs are averaged, so that the weight of a channel is that of its frequency."""
    keys = gather(tiny_backbone(), [(tokens(20, 1), (3, 10))]).keys
    assert torch.equal(keys[..., :4], keys[..., 4:])


def test_weights_lower_the_error_of_logits():
    """Keys kept by saliency shift the logits of fresh queries less than keys kept by magnitude."""
    backbone, span = tiny_backbone(), (5, 21)
    for layer in backbone.model.model.layers:  # one frequency pair of every head carries most of its queries
        layer.self_attn.q_proj.weight.data.unflatten(0, (-1, DIM))[:, [1, 1 + DIM // 2]] *= 4
    saliency = gather(backbone, [(tokens(60, seed), span) for seed in range(4)])
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn((LAYERS, 2, HEADS, 16, DIM), generator=generator)
    codec = SparseCodec(0.3)
    queries, _ = rotated_queries(backbone, tokens(60, 99))

    def shift(weight):
        error = (codec.decode(codec.encode(residual, weight)) - residual)[:, 0]
        grouped = torch.stack(queries)[:, span[1] :].unflatten(2, (HEADS, GROUP))
        return float(torch.einsum("lqhgd,lhtd->lqhgt", grouped, error).square().mean())

    assert shift(saliency.weights()) < 0.9 * shift(None)


def test_half_precision_gives_float32_weights():
    saliency = gather(tiny_backbone(dtype=torch.bfloat16), [(tokens(20, 1), (3, 10))])
    exact = gather(tiny_backbone(), [(tokens(20, 1), (3, 10))])
    assert saliency.weights().dtype == torch.float32
    torch.testing.assert_close(saliency.keys, exact.keys, rtol=0.1, atol=0.05 * float(exact.keys.max()))


def test_guards():
    backbone, ids = tiny_backbone(), tokens(10, 0)
    with pytest.raises(ValueError, match="saliency needs at least one observation, got 0"):
        Saliency().weights()
    with pytest.raises(ValueError, match="span must satisfy 0 <= start < stop <= 10 tokens"):
        gather(backbone, [(ids, (4, 11))])
    with pytest.raises(ValueError, match="tail must be 1 to 2 tokens of the span, got 3"):
        gather(backbone, [(ids, (4, 6))], tail=3)
    with pytest.raises(ValueError, match="weights must have shapes"):
        gather(backbone, [(ids, (4, 6)), (ids, (4, 7))])
    with pytest.raises(ValueError, match="count must be 1 or more, got 0"):
        Saliency().update(torch.ones(1), torch.ones(1), 0)
