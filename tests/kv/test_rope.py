"""Moving keys: by hand, against a direct computation, and as a group."""

import math

import pytest
import torch

from graphflow.kv.rope import SUPPORTED_ROPE_TYPES, Rope, UnsupportedRopeError, check_rope_type


def test_quarter_and_half_turn_by_hand():
    # Two frequencies: a quarter turn and a half turn a position. Pairs are (0, 2) and (1, 3).
    # (1, 3) turned by 90 degrees is (-3, 1); (2, 4) turned by 180 degrees is (-2, -4).
    rope = Rope(torch.tensor([math.pi / 2, math.pi]))
    moved = rope.rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 1)
    torch.testing.assert_close(moved, torch.tensor([[-3.0, -2.0, 1.0, -4.0]]))


def test_agrees_with_cos_sin_of_absolute_positions():
    # The rotate_half form: k * cos(p f) + cat(-k[2:], k[:2]) * sin(p f), positions 0..4, then moved by 7.
    frequencies = torch.tensor([1.0, 0.01])
    keys = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))

    def rotary(positions: torch.Tensor) -> torch.Tensor:
        angles = torch.cat((positions[:, None] * frequencies, positions[:, None] * frequencies), dim=-1)
        half = torch.cat((-keys[..., 2:], keys[..., :2]), dim=-1)
        return keys * angles.cos() + half * angles.sin()

    positions = torch.arange(5.0)
    rope = Rope(frequencies)
    torch.testing.assert_close(rope.rotate(rotary(positions), 7), rotary(positions + 7))
    torch.testing.assert_close(rope.rotate(keys, torch.arange(5) + 7), rotary(positions + 7))


@pytest.mark.parametrize("there", [1, -3, 200, 9000])
def test_inverse_and_composition(there):
    rope = Rope(10000.0 ** -(torch.arange(0, 16, 2) / 16))
    keys = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(rope.rotate(rope.rotate(keys, there), -there), keys, atol=2e-6, rtol=0)
    twice = rope.rotate(rope.rotate(keys, there), 41)
    torch.testing.assert_close(twice, rope.rotate(keys, there + 41), atol=2e-6, rtol=0)


def test_dtype_is_kept_and_zero_shift_is_free():
    rope = Rope(torch.ones(2))
    keys = torch.ones(3, 4, dtype=torch.bfloat16)
    assert rope.rotate(keys, 5).dtype == torch.bfloat16
    assert rope.rotate(keys, 0) is keys


def test_partial_rotary_is_refused():
    with pytest.raises(ValueError, match="head_dim 8, but 2 frequencies turn 4 channels: partial rotary"):
        Rope(torch.ones(2)).rotate(torch.ones(3, 8), 1)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"inv_freq must have shape \(head_dim/2,\), got \(2, 2\)"):
        Rope(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"shape \(L,\) = \(3,\), got \(2,\)"):
        Rope(torch.ones(2)).rotate(torch.ones(3, 4), torch.tensor([1, 2]))


def test_rope_types():
    for name in SUPPORTED_ROPE_TYPES:
        check_rope_type(name)
    with pytest.raises(UnsupportedRopeError, match="'dynamic' is not supported: its frequencies change with"):
        check_rope_type("dynamic")
    with pytest.raises(UnsupportedRopeError, match="'longrope' is not supported: it switches"):
        check_rope_type("longrope")
    with pytest.raises(UnsupportedRopeError, match="Did you mean 'llama3'"):
        check_rope_type("lama3")
