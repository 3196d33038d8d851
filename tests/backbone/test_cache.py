"""Contexts that are moved, batched and decoded give the logits of a plain forward pass."""

import pytest
import torch

from graphflow.backbone.cache import ROOM, ResidualCache
from graphflow.kv import Context, Segment, SegmentKind
from tests.tiny import FAMILIES, WINDOW, tiny_backbone

TOLERANCE = 1e-4


def plain(backbone, ids):
    """Logits of the untouched Hugging Face forward pass."""
    with torch.inference_mode():
        return backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def tokens(length, seed):
    return torch.randint(8, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def prefill(backbone, ids):
    """A cache with one row that holds these tokens."""
    cache = ResidualCache([()], backbone.rope, backbone.shape(torch.float32), backbone.dtype, backbone.device)
    hidden = backbone.forward(torch.tensor([ids]), torch.arange(len(ids))[None], cache)
    return cache, backbone.logits(hidden)[0]


def segment(backbone, ids, cache, start, stop):
    kv = cache.take(0, start, stop, start, backbone.rope, torch.float32)
    return Segment(tuple(ids[start:stop]), kv, SegmentKind.DYNAMIC)


def gap(a, b):
    return f"max {float((a - b).abs().max()):.2e}, mean {float((a - b).abs().mean()):.2e}"


@pytest.mark.parametrize("family", FAMILIES)
def test_own_masks_equal_the_models_own(family):
    backbone, ids = tiny_backbone(family), tokens(2 * WINDOW + 5, 0)
    _, logits = prefill(backbone, ids)
    expected = plain(backbone, ids)
    assert torch.allclose(logits, expected, atol=TOLERANCE), gap(logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_cut_moved_and_put_back_are_exact_in_a_ragged_batch(family):
    backbone = tiny_backbone(family)
    rows, fresh = [tokens(40, 1), tokens(61, 2), tokens(9, 3)], [tokens(3, 4), tokens(7, 5), tokens(12, 6)]
    placed = []
    for index, ids in enumerate(rows):
        cache, _ = prefill(backbone, ids)
        context = Context()
        for start, stop in ((0, 4), (4, len(ids) - 2), (len(ids) - 2, len(ids)))[: 3 if index else 2]:
            context = context.append(segment(backbone, ids, cache, start, stop))
        rows[index] = list(context.tokens)
        placed.append(context.pieces)
    cache = ResidualCache(placed, backbone.rope, backbone.shape(torch.float32), backbone.dtype, backbone.device)
    width = max(map(len, fresh))
    ids, positions = torch.zeros(3, width, dtype=torch.long), torch.full((3, width), -1)
    for row, (old, new) in enumerate(zip(rows, fresh, strict=True)):
        ids[row, width - len(new) :] = torch.tensor(new)
        positions[row, width - len(new) :] = torch.arange(len(old), len(old) + len(new))
    logits = backbone.logits(backbone.forward(ids, positions, cache))
    for row, (old, new) in enumerate(zip(rows, fresh, strict=True)):
        expected = plain(backbone, old + new)[-len(new) :]
        assert torch.allclose(logits[row, -len(new) :], expected, atol=TOLERANCE), gap(
            logits[row, -len(new) :], expected
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layer_zero_is_free_of_context_once_moved(family, dtype):
    """Keys and values of layer 0 see no other token: alone and moved they equal those computed in place."""
    backbone, prefix, chunk = tiny_backbone(family, dtype), tokens(50, 1), tokens(12, 2)
    whole, _ = prefill(backbone, prefix + chunk)
    alone, _ = prefill(backbone, chunk)
    inside = whole.take(0, 50, 62, 50, backbone.rope, torch.float32)[0]
    moved = alone.take(0, 0, 12, 0, backbone.rope, torch.float32)[0]
    assert torch.allclose(inside, moved, atol=1e-5 if dtype is torch.float32 else 0.08), gap(inside, moved)
    deeper = (
        whole.take(0, 50, 62, 50, backbone.rope, torch.float32)[3]
        - alone.take(0, 0, 12, 0, backbone.rope, torch.float32)[3]
    )
    assert deeper.abs().max() > 0.1, "deeper layers must differ, or the test says nothing"


def test_a_position_off_by_one_is_seen():
    """The comparison above can fail: a segment put one place too far changes the logits."""
    backbone, ids = tiny_backbone(), tokens(30, 1)
    cache, _ = prefill(backbone, ids)
    pieces = [(segment(backbone, ids, cache, 0, 10), 0), (segment(backbone, ids, cache, 10, 30), 11)]
    moved = ResidualCache([pieces], backbone.rope, backbone.shape(torch.float32), backbone.dtype, backbone.device)
    hidden = backbone.forward(torch.tensor([[9]]), torch.tensor([[31]]), moved)
    assert not torch.allclose(backbone.logits(hidden)[0, -1], plain(backbone, [*ids, 9])[-1], atol=1e-2)


def test_bytes_are_those_of_the_tensors():
    backbone = tiny_backbone()
    cache, _ = prefill(backbone, tokens(10, 0))
    assert cache.nbytes == 4 * 2 * 2 * (10 + ROOM) * 8 * 4  # layers x (K, V) x heads x slots x head_dim x float32
