"""A batch that reads bases and residuals as they are gives the logits of contexts that are reconstructed one by one."""

import pytest
import torch

from graphflow.backbone import residual_kernel
from graphflow.backbone.cache import ResidualCache
from graphflow.backbone.residual_stack import ResidualStack
from graphflow.backbone.shared_batch import ResidualBatch
from graphflow.kv import Context, Cut, EncodedSegment, Segment, SegmentKind
from graphflow.kv.codecs import SparseCodec
from tests.tiny import FAMILIES, WINDOW, tiny_backbone

TOLERANCE = 1e-5  # of the largest logit


def noise(backbone, length, seed):
    return torch.randn(backbone.shape(backbone.dtype).of(length), generator=torch.Generator().manual_seed(seed))


def prompt(backbone, base, seed, bits=8):
    """A path's state over a base of an operation."""
    codec = SparseCodec(0.3, bits)
    residual = codec.encode(0.5 * noise(backbone, base.shape[3], seed))
    return EncodedSegment((8,) * base.shape[3], base, None, residual, codec, shared=True)


def text(backbone, length, seed):
    return Segment((8,) * length, noise(backbone, length, seed), SegmentKind.DYNAMIC)


def contexts(backbone):
    """Five rows: two paths of one operation, another operation of another length, and one that a single row has.

    Offsets differ, the fourth row holds no prompt, and one prompt has values of 16 bits and not of 8. In the first row
    and the last one tokens of a prompt run again, so that it is there in parts, some of them the same in both.
    """
    first, second = noise(backbone, 11, 1), noise(backbone, 2 * WINDOW, 2)
    left, right, other = (prompt(backbone, base, seed) for base, seed in ((first, 3), (first, 4), (second, 5)))
    alone = prompt(backbone, first, 6, bits=16)

    def cut(start, stop):
        return Cut(left, start, stop, backbone.rope)

    rows = [
        [text(backbone, 3, 7), cut(0, 4), text(backbone, 1, 13), cut(5, 11), other, text(backbone, 1, 9)],
        [text(backbone, 6, 10), left, other],
        [right, text(backbone, 4, 11), alone],
        [text(backbone, 5, 12)],
        [text(backbone, 2, 14), cut(1, 4), text(backbone, 1, 15), cut(5, 11)],
    ]
    made = []
    for row in rows:
        context = Context()
        for piece in row:
            context = context.append(piece)
        made.append(context)
    return made


def logits(backbone, cache, positions):
    ids = torch.randint(8, 60, positions.shape, generator=torch.Generator().manual_seed(int(positions.sum())))
    return backbone.logits(backbone.forward(ids, positions, cache))[positions >= 0]


@pytest.fixture(params=["kernel", "layer"])
def way(request, monkeypatch):
    monkeypatch.setattr(residual_kernel, "KERNEL_ON", ("cuda", "cpu") if request.param == "kernel" else ())
    if request.param == "kernel" and residual_kernel.triton is None:
        pytest.skip("Triton is not installed; CUDA builds of PyTorch bring it, `pip install graphflow[triton]` does")


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decoding_of_a_ragged_batch(family, way):
    plain, own = tiny_backbone(family), tiny_backbone(family, attention="residual")
    made = contexts(plain)
    rows = [context.pieces for context in made]
    caches = [backbone.batch(rows, backbone.shape(backbone.dtype)) for backbone in (plain, own)]
    assert type(caches[0]) is ResidualCache and type(caches[1]) is ResidualBatch
    kinds = [len(stack.lengths) for stack in caches[1].stacks if isinstance(stack.kv, ResidualStack)]
    assert sum(kinds) == 7, "every prompt or part of one is read as it is stored, those that one row has too"
    ends = torch.tensor([context.length for context in made])
    ragged = ends[:, None] + torch.tensor([[0, 1, 2], [0, 1, -999], [0, -999, -999], [0, 1, 2], [0, 1, 2]])
    for positions in (ragged.clamp(min=-1), *(ends[:, None] + 3 + step for step in range(3))):
        expected, found = (
            logits(backbone, cache, positions) for backbone, cache in zip((plain, own), caches, strict=True)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_that_run_inside_and_before_a_prompt(family, way):
    """Queries in the middle of a context see the prompt up to themselves, or nothing of it."""
    plain, own = tiny_backbone(family), tiny_backbone(family, attention="residual")
    rows = [context.pieces for context in contexts(plain)]
    positions = torch.tensor([[2, 8], [7, 16], [9, -1], [4, -1], [4, 9]])
    expected, found = (
        logits(backbone, backbone.batch(rows, backbone.shape(backbone.dtype)), positions) for backbone in (plain, own)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def test_rows_leave_are_repeated_and_join(way):
    plain, own = tiny_backbone(), tiny_backbone(attention="residual")
    made = contexts(plain)
    rows = [context.pieces for context in made]
    caches = []
    for backbone in (plain, own):
        shape = backbone.shape(backbone.dtype)
        lanes = backbone.lanes(shape)
        lanes.join([], backbone.batch(rows[:2], shape))
        lanes.join([1], backbone.batch([rows[0], rows[2]], shape))
        (cache,) = lanes.lanes
        cache.select(torch.tensor([2, 0, 2]))
        caches.append(cache)
    positions = torch.tensor([[made[index].length] for index in (2, 1, 2)])
    expected, found = (logits(*both, positions) for both in zip((plain, own), caches, strict=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max()))


def test_less_is_held_than_when_segments_are_reconstructed():
    """By hand, for six paths over one base of 40 tokens, in each of 4 layers x 2 sides x 2 heads = 16 runs of tokens.

    The base: 16 x 40 x 8 entries of 4 bytes, and a byte for every kept entry, 3 of 10; a byte of bits and 4 of where
    values begin for every token; a scale of 4 for every run; 8 for base and length. Tables of uses come on top.
    """
    own, shared = tiny_backbone(attention="residual"), tiny_backbone(attention="shared")
    base = noise(own, 40, 1)
    rows = [[(held, 0)] for held in (prompt(own, base, seed) for seed in range(6)) for _ in range(2)]
    own, shared = (backbone.batch(rows, backbone.shape(backbone.dtype)) for backbone in (own, shared))
    entries = 16 * 40 * 8
    assert sum(stack.nbytes for stack in shared.stacks) == 6 * 4 * entries
    assert sum(stack.nbytes for stack in own.stacks) == 4 * entries + 6 * (0.3 * entries + 16 * 40 * 5 + 16 * 4 + 8)


def test_parts_of_a_prompt_hold_its_values_once():
    """Two parts of a prompt of 40 tokens: base and bits of all but the token between them, padded to the longer."""
    own = tiny_backbone(attention="residual")
    whole = prompt(own, noise(own, 40, 1), 2)
    parts = [Cut(whole, 0, 19, own.rope), Cut(whole, 20, 40, own.rope)]
    stack = ResidualStack.of(parts, torch.float32, torch.device("cpu"))
    assert len(stack.values) == len(whole.remainder.tensors["values"].flatten())
    assert stack.base.shape[2] == 2 and stack.base.shape[4] == 20
    for layer in range(4):
        found = stack.decode(layer, torch.arange(2))
        dense = whole.tensor()[layer]
        torch.testing.assert_close(found[:, :, 0, :19], dense[:, :, :19])
        torch.testing.assert_close(found[:, :, 1], dense[:, :, 20:])
