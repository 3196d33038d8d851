"""int8 and int4 against loops over single numbers, and their error and bytes by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow.kv.codecs import IntegerCodec
from tests.kv.inputs import ADVERSARIAL, residual

F = np.float32


def plain_group(values: list[np.float32], levels: int) -> list[np.float32]:
    """One group through codes and back, one number at a time in float32."""
    lowest, highest = min(values), max(values)
    middle = F(np.float16(lowest / F(2) + highest / F(2)))
    step = F(np.float16(max(highest - middle, middle - lowest) * F(2 / levels)))
    first = middle - step * F(levels / 2)
    codes = [min(max(np.round((v - first) / step), F(0)), F(levels)) if step else F(0) for v in values]
    return [code * step + first for code in codes]


def plain(x: torch.Tensor, bits: int, group: int, run: int | None = None, short: int = 0) -> torch.Tensor:
    source, out = x.float().numpy(), np.zeros(x.shape, dtype=F)
    layers, _, heads, length, dim = x.shape
    run = run or group
    for layer in range(layers):
        for h in range(heads):
            for c in range(dim if length >= short else 0):
                for start in range(0, length, run):
                    tokens = slice(start, start + run)
                    out[layer, 0, h, tokens, c] = plain_group(list(source[layer, 0, h, tokens, c]), 2**bits - 1)
            for side in (1,) if length >= short else (0, 1):
                for t in range(length):
                    for start in range(0, dim, group):
                        own = (layer, side, h, t, slice(start, start + group))
                        out[own] = plain_group(list(source[own]), 2**bits - 1)
    return torch.from_numpy(out)


def test_bytes_by_hand():
    # 2 layers x K/V x 2 heads x 5 tokens x 6 channels = 240 entries.
    x = residual((2, 2, 2, 5, 6))
    # Group 4. Keys: 2 x 2 heads x ceil(5/4) = 2 groups x 6 channels; values: 2 x 2 x 5 tokens x ceil(6/4) = 2 groups.
    scales = 4 * (2 * 2 * 2 * 6 + 2 * 2 * 5 * 2)
    assert IntegerCodec(8, 4).encode(x).nbytes == 240 + scales
    assert IntegerCodec(4, 4).encode(x).nbytes == 120 + scales
    assert IntegerCodec(4, 32).encode(residual((1, 2, 1, 3, 1))).nbytes == 3 + 4 * (1 + 3)
    # A (layer, K/V) without a step has no codes: here those of layer 0, then all.
    x[0] *= 1e-9
    assert IntegerCodec(8, 4).encode(x).nbytes == 120 + scales
    assert IntegerCodec(8, 4).encode(torch.zeros_like(x)).nbytes == scales


def test_levels_by_hand():
    # A key channel of two tokens, -7.5 and 7.5: middle 0, step 15 * 2/15 / 2 = 1, codes 0 and 15. Values: one group of
    # one channel a token, its middle exactly.
    x = torch.tensor([-7.5, 7.5, 3.0, 4.0]).reshape(1, 2, 1, 2, 1)
    encoded = IntegerCodec(4).encode(x)
    assert encoded.tensors["key_steps"].item() == 1 and encoded.tensors["key_middles"].item() == 0
    assert torch.equal(IntegerCodec(4).decode(encoded), x)
    # Keys -7.5, 7.5 have codes 0, 15, the first below; values have no step and no codes.
    assert encoded.tensors["codes"].tolist() == [0 + 15 * 16]


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    group=st.integers(1, 9),
    run=st.integers(1, 9),
    short=st.integers(0, 9),
    layers=st.integers(1, 2),
    heads=st.integers(1, 2),
    length=st.integers(1, 9),
    dim=st.integers(1, 7),
    shift=st.sampled_from([0.0, 50.0]),
    seed=st.integers(0, 1000),
)
def test_round_trip(bits, group, run, short, layers, heads, length, dim, shift, seed):
    x = residual((layers, 2, heads, length, dim), seed) + shift
    codec = IntegerCodec(bits, group, run, short)
    encoded = codec.encode(x)
    decoded = codec.decode(encoded)
    assert torch.equal(decoded, plain(x, bits, group, run, short))
    # Half a step; float16 moves a step by 2^-11 of itself and a middle by 2^-11 of its magnitude (widening the step).
    levels = 2**bits - 1
    keys = (0, 3, length, run) if length >= short else (0, 4, dim, group)
    for side, axis, size, width in (keys, (1, 4, dim, group)):
        for start in range(0, size, width):
            part = x[:, side : side + 1].narrow(axis, start, min(width, size - start))
            error = (decoded - x)[:, side : side + 1].narrow(axis, start, min(width, size - start)).abs()
            middle = part.abs().amax(dim=axis, keepdim=True)
            reach = part.amax(dim=axis, keepdim=True) - part.amin(dim=axis, keepdim=True) + middle * 2**-10
            allowed = reach / levels * (0.5 + levels / 2 * 2**-11) * 1.001 + levels * 2**-25 + middle * 1e-6
            assert bool((error <= allowed).all()), f"off by {float((error - allowed).max())} more"
    # Every side has codes, unless each of its groups is one number that float16 holds.
    stepped = sum(
        bool((encoded.tensors[f"{name}_steps"][i] > 0).any()) for name in ("key", "value") for i in range(layers)
    )
    groups = heads * sum(
        (-(-size // width)) * (dim if axis == 3 else length) for _, axis, size, width in (keys, (1, 4, dim, group))
    )
    assert encoded.nbytes == -(-stepped * heads * length * dim * bits // 8) + 4 * layers * groups


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_adversarial_inputs(kind, bits):
    x = ADVERSARIAL[kind]((2, 2, 2, 5, 3))
    codec = IntegerCodec(bits, 2)
    assert torch.equal(codec.decode(codec.encode(x)), plain(x, bits, 2))


def test_one_large_channel_costs_the_other_keys_nothing():
    x = residual((1, 2, 1, 16, 8))
    spoilt = x.clone()
    spoilt[:, 0, :, :, 3] *= 1000
    codec = IntegerCodec(8)
    others = [c for c in range(8) if c != 3]
    assert torch.equal(
        codec.decode(codec.encode(spoilt))[:, 0][..., others], codec.decode(codec.encode(x))[:, 0][..., others]
    )


def test_guards():
    with pytest.raises(ValueError, match="bits must be 4 or 8, got 3"):
        IntegerCodec(3)
    with pytest.raises(ValueError, match="group must be 1 or more, got 0"):
        IntegerCodec(8, 0)
    with pytest.raises(ValueError, match="run must be 1 or more, got 0"):
        IntegerCodec(8, 32, 0)
    with pytest.raises(ValueError, match="short must be 0 or more, got -1"):
        IntegerCodec(8, short=-1)
