"""Codecs against a slow plain reference, and their bytes by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow.kv.codecs import DenseCodec, SparseCodec, build_codec

HALF = torch.finfo(torch.float16)


def residual(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_sparse(x: torch.Tensor, weight: torch.Tensor, density: float) -> torch.Tensor:
    """The same choice with loops and sorting: the kept entries, others zero."""
    out = torch.zeros_like(x)
    for layer in range(x.shape[0]):
        for side in range(2):
            values, weights = x[layer, side].flatten().tolist(), weight[layer, side].flatten().tolist()
            order = sorted(range(len(values)), key=lambda i: -abs(values[i]) * weights[i])
            for i in order[: max(1, round(density * len(values)))]:
                out[layer, side].view(-1)[i] = values[i]
    return out


def test_bytes_by_hand():
    # 2 layers x K/V = 4 groups of 2 heads x 5 tokens x 10 channels = 100 entries.
    x = residual((2, 2, 2, 5, 10))
    # A quarter is 25 values of 2 bytes and ceil(100/8) = 13 bytes of bitmap: 63 a group.
    assert SparseCodec(0.25, 16).encode(x).nbytes == 4 * (25 * 2 + 13)
    # 8 bit: 25 values of 1 byte, 13 of bitmap, 2 heads x 2 bytes of scale: 42 a group.
    assert SparseCodec(0.25, 8).encode(x).nbytes == 4 * (25 + 13 + 4)
    # Everything: no bitmap.
    assert SparseCodec(1.0, 16).encode(x).nbytes == 4 * 200 == DenseCodec(16).encode(x).nbytes
    assert SparseCodec(1.0, 32).encode(x).nbytes == 4 * 400 == DenseCodec(32).encode(x).nbytes
    # At least one entry, whatever the density.
    assert SparseCodec(0.001, 16).encode(x).nbytes == 4 * (2 + 13)


def test_chosen_entries_by_hand():
    # One layer, one head, two tokens, two channels. Half of 4 entries is 2: keys keep -3 and 2, values keep 8 and -5.
    x = torch.tensor([[[[[1.0, -3.0], [2.0, 0.5]]], [[[0.0, 8.0], [-5.0, 4.0]]]]])
    encoded = SparseCodec(0.5, 16).encode(x)
    expected = torch.tensor([[[[[0.0, -3.0], [2.0, 0.0]]], [[[0.0, 8.0], [-5.0, 0.0]]]]])
    assert torch.equal(SparseCodec(0.5, 16).decode(encoded), expected)
    # Entries 1 and 2 of each group: bits 2 + 4.
    assert encoded.tensors["bitmap"].tolist() == [[6], [6]]
    # A weight of 10 on the first channel of every token changes the choice: keys keep 1 and 2, values -5 (50) and 8.
    weighted = SparseCodec(0.5, 16).encode(x, torch.tensor([10.0, 1.0]))
    expected = torch.tensor([[[[[1.0, 0.0], [2.0, 0.0]]], [[[0.0, 8.0], [-5.0, 0.0]]]]])
    assert torch.equal(SparseCodec(0.5, 16).decode(weighted), expected)


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 7),
    dim=st.sampled_from([2, 4, 6]),
    density=st.floats(0.01, 1.0),
    value_bits=st.sampled_from([8, 16, 32]),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_sparse_round_trip(layers, heads, length, dim, density, value_bits, weighted, seed):
    x = residual((layers, 2, heads, length, dim), seed)
    weight = residual(tuple(x.shape), seed + 1).abs() + 0.1 if weighted else torch.ones_like(x)
    codec = SparseCodec(density, value_bits)
    encoded = codec.encode(x, weight if weighted else None)
    expected = plain_sparse(x, weight, density)
    decoded = codec.decode(encoded)
    if value_bits == 32:
        assert torch.equal(decoded, expected)
    elif value_bits == 16:
        assert torch.equal(decoded, expected.to(torch.float16).to(torch.float32))
    else:
        # Half a step of the head's scale, which is its largest kept entry / 127, and float16 rounding of that scale.
        step = expected.abs().amax(dim=(3, 4), keepdim=True) / 127
        worst = float(((decoded - expected).abs() - step * (0.5 + 127 * HALF.eps)).max())
        assert worst <= 1e-7, f"off by {worst} more than half a step"
        assert torch.equal(decoded[expected == 0], expected[expected == 0])
    entries = heads * length * dim
    kept = max(1, round(density * entries))
    group = kept * value_bits // 8 + (0 if density == 1 else -(-entries // 8)) + (2 * heads if value_bits == 8 else 0)
    assert encoded.nbytes == layers * 2 * group


def test_keep_all_is_dense():
    x = residual((2, 2, 3, 4, 8))
    for bits in (16, 32):
        sparse, dense = SparseCodec(1.0, bits), DenseCodec(bits)
        assert torch.equal(sparse.decode(sparse.encode(x)), dense.decode(dense.encode(x)))
    lossless = SparseCodec(1.0, 32)
    assert torch.equal(lossless.decode(lossless.encode(x)), x)


def test_encoded_does_not_follow_the_source():
    for codec in (SparseCodec(1.0, 32), DenseCodec(32)):
        x = residual((1, 2, 1, 2, 2))
        encoded, before = codec.encode(x), x.clone()
        x.zero_()
        assert torch.equal(codec.decode(encoded), before)


def test_large_values_stay_finite():
    x = torch.full((1, 2, 1, 2, 2), 1e6)
    for codec in (SparseCodec(1.0, 16), DenseCodec(16)):
        assert float(codec.decode(codec.encode(x)).max()) == HALF.max
    assert (
        float(SparseCodec(1.0, 16, torch.bfloat16).decode(SparseCodec(1.0, 16, torch.bfloat16).encode(x)).max()) > 9e5
    )


def test_zero_residual():
    x = torch.zeros(1, 2, 2, 3, 4)
    for bits in (8, 16, 32):
        codec = SparseCodec(0.5, bits)
        assert torch.equal(codec.decode(codec.encode(x)), x)


def test_build_and_guards():
    assert isinstance(build_codec("dense", 0.5, 16, torch.float32), DenseCodec)
    sparse = build_codec("sparse", 0.5, 16, torch.bfloat16)
    assert isinstance(sparse, SparseCodec)
    assert sparse.half == torch.bfloat16
    with pytest.raises(ValueError, match="codec must be one of sparse, dense, got 'spars'. Did you mean 'sparse'?"):
        build_codec("spars", 0.5, 16, torch.float32)
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\], got 0"):
        SparseCodec(0)
    with pytest.raises(ValueError, match="value_bits must be one of 8, 16, 32, got 4"):
        SparseCodec(0.5, 4)
    with pytest.raises(ValueError, match="value_bits must be one of 16, 32, got 8"):
        DenseCodec(8)
    with pytest.raises(ValueError, match=r"residual must have shape .* got \(2, 3\)"):
        SparseCodec(0.5).encode(torch.zeros(2, 3))
