"""Attention over bases and residuals gives what attention over decoded segments gives.

By the kernel, which runs in Triton's interpreter where there is no CUDA device, and a layer at a time without Triton.
"""

import pytest
import torch

from graphflow.backbone import residual_kernel
from graphflow.backbone.residual_stack import ResidualStack, readable
from graphflow.kv import EncodedSegment, Segment, SegmentKind
from graphflow.kv.codecs import IntegerCodec, SparseCodec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYERS, HEADS, DIM = 2, 2, 16
BY_LAYER = torch.tensor([[0.0, 1.0], [0.3, 0.1]])  # keys of layer 0 keep nothing, its values everything
CODECS = {
    "int8": SparseCodec(0.25, 8),
    "16 bit": SparseCodec(0.4),
    "32 bit, all": SparseCodec(1.0, 32),
    "int8 by layer": SparseCodec(BY_LAYER, 8),
    "nothing": SparseCodec(torch.zeros(LAYERS, 2), 8),
}


@pytest.fixture(params=["kernel", "layer"])
def attend(request):
    """`decode` by the kernel and without it."""
    if request.param == "layer":
        return residual_kernel._by_layer
    if residual_kernel.triton is None:
        pytest.skip("Triton is not installed; CUDA builds of PyTorch bring it, `pip install graphflow[triton]` does")
    return residual_kernel._by_kernel


def noise(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoded(base, codec, seed=0):
    """A segment of base and residual."""
    residual = codec.encode(noise(*base.shape, seed=seed, scale=0.5))
    return EncodedSegment((8,) * base.shape[3], base, None, residual, codec, shared=True)


def made(codec, dtype=torch.float32, dim=DIM, lengths=(37, 37, 5)):
    """Three segments, the first two over one base, and their stack."""
    bases = {length: noise(LAYERS, 2, HEADS, length, dim, seed=length).to(dtype) for length in lengths}
    segments = [encoded(bases[length], codec, index) for index, length in enumerate(lengths)]
    return [segment.tensor() for segment in segments], ResidualStack.of(segments, dtype, DEVICE)


def expected(queries, kv, first, last, softcap):
    """Values and log-sum-exp of queries (group, head_dim) over tokens [first, last) of keys and values, float64."""
    keys, values = kv[:, first:last].double()
    scores = queries.double() @ keys.T
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    return scores.softmax(dim=-1) @ values, scores.logsumexp(dim=-1)


@pytest.mark.parametrize(("name", "softcap"), [*((name, None) for name in CODECS), ("int8", 3.0)])
def test_parts_are_those_of_decoded_segments(attend, name, softcap):
    """Two places and three query heads a segment; in the second a window hides 9 tokens, or a whole short segment."""
    dense, stack = made(CODECS[name])
    queries = noise(HEADS, 2, 2, 3, DIM, seed=9).to(DEVICE)
    bounds = torch.tensor([[[0, 9], [0, 5]], [[37, 30], [5, 5]]]).to(DEVICE)
    chosen = torch.tensor([1, 2])  # of three
    for layer in range(LAYERS) if "layer" in name else (1,):
        mixed, lse = attend(queries, stack, layer, chosen.to(DEVICE), tuple(bounds), softcap)
        for index, segment in enumerate(chosen.tolist()):
            for place, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
                at = (head, index, place)
                if (segment, place) == (2, 1):
                    assert torch.isneginf(lse[at]).all() and (mixed[at] == 0).all()
                    continue
                first, last = bounds[:, index, place].tolist()
                values, total = expected(queries[at].cpu(), dense[segment][layer, :, head], first, last, softcap)
                torch.testing.assert_close(mixed[at].cpu().double(), values, atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(lse[at].cpu().double(), total, atol=1e-5, rtol=1e-5)


def test_more_queries_than_a_tile_holds(attend):
    dense, stack = made(CODECS["int8"])
    queries = noise(HEADS, 3, residual_kernel.QUERIES + 3, 1, DIM, seed=9)
    last = stack.lengths[:, None].expand(3, queries.shape[2])
    everything = torch.arange(3).to(DEVICE)
    mixed, _ = attend(queries.to(DEVICE), stack, 1, everything, (torch.zeros_like(last), last), None)
    for segment in range(3):
        values, _ = expected(queries[1, segment, :, 0], dense[segment][1, :, 1], 0, last[segment, 0], None)
        torch.testing.assert_close(mixed[1, segment, :, 0].cpu().double(), values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CODECS)
def test_a_layer_is_decoded_as_the_codec_does(name):
    dense, stack = made(CODECS[name])
    for layer in range(LAYERS):
        found = stack.decode(layer, torch.tensor([2, 0]).to(DEVICE)).cpu()
        torch.testing.assert_close(found[:, :, 0, :5], dense[2][layer])
        torch.testing.assert_close(found[:, :, 1], dense[0][layer])


def test_bytes_by_hand():
    """Two layers, two sides, two heads. Base of 37 and of 5 tokens, float32, padded to 37: 2 x 8 x 37 x 16 x 4 bytes.

    Three segments: bits 8 x 37 x 2 bytes each, starts 8 x 37 x 4, scales 8 x 4; a quarter of the entries of each
    (layer, side) in one byte: 4 x 2 x 37 x 16 / 4 twice and 4 x 2 x 5 x 16 / 4; base and length of each 4 + 4.
    """
    _, stack = made(CODECS["int8"])
    values = 2 * (4 * 2 * 37 * 16 // 4) + 4 * 2 * 5 * 16 // 4
    assert stack.nbytes == 2 * 8 * 37 * 16 * 4 + 3 * (8 * 37 * 2 + 8 * 37 * 4 + 8 * 4 + 8) + values


def test_what_can_be_read_so():
    base, codec = noise(LAYERS, 2, HEADS, 4, 16), SparseCodec(0.5, 8)
    segment = encoded(base, codec)
    assert readable(segment)
    assert not readable(Segment(segment.tokens, base, SegmentKind.OPERATION))
    for other in (
        encoded(base, IntegerCodec(8)),
        encoded(noise(LAYERS, 2, HEADS, 4, 12), codec),
        EncodedSegment.encode(segment.tokens, base, segment.remainder, base, codec),
    ):
        assert not readable(other)
        with pytest.raises(ValueError, match="segments must be a base of a head_dim that 8 divides and one residual"):
            ResidualStack.of([segment, other], torch.float32, DEVICE)
    with pytest.raises(ValueError, match="segments must hold at least one segment, got none"):
        ResidualStack.of([], torch.float32, DEVICE)
    with pytest.raises(ValueError, match=r"must have one dtype, got torch.float16 and torch.int8"):
        ResidualStack.of([segment, encoded(base, SparseCodec(0.5))], torch.float32, DEVICE)


def test_without_triton_layers_are_decoded(monkeypatch):
    _, stack = made(CODECS["int8"])
    asked = noise(HEADS, 3, 1, 1, DIM).to(DEVICE), stack, 0, torch.arange(3).to(DEVICE)
    bounds = torch.zeros_like(stack.lengths)[:, None], stack.lengths[:, None]
    expected = residual_kernel._by_layer(*asked, bounds, None)
    monkeypatch.setattr(residual_kernel, "KERNEL_ON", ("cuda", "cpu"))
    monkeypatch.setattr(residual_kernel, "triton", None)
    for found, own in zip(residual_kernel.decode(*asked, bounds), expected, strict=True):
        assert torch.equal(found, own)


@pytest.mark.gpu
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_bfloat16_at_the_shape_of_a_real_model(softcap):
    """130 tokens, head_dim 128, 7 query heads a key/value head, 20 contexts; bfloat16 against float64."""
    dense, stack = made(CODECS["int8"], torch.bfloat16, 128, (130, 130, 97))
    queries = noise(HEADS, 3, 20, 7, 128, seed=9, scale=128**-0.5).to(DEVICE)
    last = stack.lengths[:, None].expand(3, 20)
    mixed, lse = residual_kernel.decode(
        queries, stack, 1, torch.arange(3, device=DEVICE), (torch.zeros_like(last), last), softcap
    )
    for segment in range(3):
        values, total = expected(queries[1, segment, 11].cpu(), dense[segment][1, :, 1], 0, 130, softcap)
        torch.testing.assert_close(mixed[1, segment, 11].cpu().double(), values, atol=0.02, rtol=0.02)
        torch.testing.assert_close(lse[1, segment, 11].cpu().double(), total, atol=0.02, rtol=0.02)
