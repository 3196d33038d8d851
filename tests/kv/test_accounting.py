"""Bytes a token of the paper's three models, worked out by hand."""

import pytest
import torch

from graphflow.kv.accounting import KVShape, StoreBytes, tensor_bytes


@pytest.mark.parametrize(
    ("layers", "heads", "dim", "expected"),
    [
        (28, 4, 128, 57_344),  # Qwen2.5-7B: 28 * 2 * 4 * 128 * 2
        (32, 8, 128, 131_072),  # Llama-3.1-8B: 32 * 2 * 8 * 128 * 2
        (42, 8, 256, 344_064),  # Gemma-2-9B: 42 * 2 * 8 * 256 * 2
    ],
)
def test_bytes_per_token(layers, heads, dim, expected):
    shape = KVShape(layers, heads, dim, torch.bfloat16)
    assert shape.bytes_per_token == expected
    assert KVShape(layers, heads, dim, torch.float32).bytes_per_token == 2 * expected


def test_shape_and_tensor_agree():
    shape = KVShape(3, 2, 4, torch.float16)
    kv = torch.zeros(shape.of(5), dtype=torch.float16)
    assert tensor_bytes(kv) == 5 * shape.bytes_per_token == 480


def test_guards():
    with pytest.raises(ValueError, match=r"KVShape.kv_heads must be 1 or more, got 0"):
        KVShape(1, 0, 4, torch.float16)
    with pytest.raises(ValueError, match="floating dtype, got torch.int8"):
        KVShape(1, 1, 4, torch.int8)
    with pytest.raises(ValueError, match=r"thing must have shape .* = \(1, 2, 1, 3, 4\), got \(1, 2, 1, 2, 4\)"):
        KVShape(1, 1, 4, torch.float16).check(torch.zeros(1, 2, 1, 2, 4), 3, "thing")


def test_total():
    assert StoreBytes(base=1, residual=20, statistics=300, workspace=4000).total == 4321
