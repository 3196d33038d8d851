"""Adapters: only they are trained, they save, load and merge, and distillation keeps the model's own behaviour."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel

from graphflow.backbone.compat import UnsupportedModelError
from graphflow.backbone.load import Backbone, BackboneConfig, load_backbone
from graphflow.backbone.turns import MINI
from graphflow.training.loop import predictions
from graphflow.training.lora import PROJECTIONS, Lora, attach, distillation, merged, teacher_logits, trainable
from tests.test_repository import load
from tests.tiny import FAMILIES, tiny_backbone, tiny_model, tiny_tokenizer
from tests.training.small import adapted, copying
from tests.training.test_adapt import SCRIPT, interrupted


def outputs(model, rows):
    """Logits of the labelled tokens."""
    with torch.inference_mode():
        return predictions(model, model.model, rows)[0]


def stirred(adapter):
    """The adapter with second matrices that are not zero: it changes the model."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in trainable(adapter).items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return adapter


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_trained_saved_loaded_and_merged(family, tmp_path):
    backbone, rows = tiny_backbone(family), copying(0, True)
    before = copy.deepcopy(backbone.model.state_dict())
    adapted(backbone, tmp_path, 3, True, Lora(rank=4), adam_lr=0.01)
    learnt = outputs(backbone.model, rows)
    plain = tiny_model(family)
    assert (learnt - outputs(plain, rows)).abs().max() > 1e-3, "three steps must have changed something"
    after = {name.replace(".base_layer", ""): value for name, value in backbone.model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())

    loaded = PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
    gap = (outputs(loaded.get_base_model(), rows) - learnt).abs().max()
    assert gap < 5e-5, f"loaded: {gap:.2e}"
    gap = (outputs(merged(loaded), rows) - learnt).abs().max()
    assert gap < 1e-4, f"merged: {gap:.2e}"


def test_nothing_but_the_adapter_is_trained():
    """Rank 4, hidden 32, heads 4 and 2 of 8, inner 48: A and B of each projection, in four layers.

    q and o: 4 x (32 + 32); k and v: 4 x (32 + 16); gate, up and down: 4 x (32 + 48).
    """
    adapter = attach(tiny_backbone(), 4, seed=0)
    found = trainable(adapter)
    assert all(".lora_A." in name or ".lora_B." in name for name in found)
    assert {name.split(".lora_")[0].split(".")[-1] for name in found} == set(PROJECTIONS)
    assert sum(parameter.numel() for parameter in found.values()) == 4 * 4 * (2 * 64 + 2 * 48 + 3 * 80)


def test_the_teacher_is_the_unadapted_model_reading_unblocked_prompts():
    rows, exact = copying(0, True), copying(0, False)
    expected = outputs(tiny_model("qwen2"), exact)
    adapter = stirred(attach(tiny_backbone(), 4, seed=0))
    torch.testing.assert_close(teacher_logits(adapter, rows), expected, rtol=0, atol=1e-5)
    assert (outputs(adapter.get_base_model(), exact) - expected).abs().max() > 1e-3, "the adapter is on again"
    assert trainable(adapter), "and can be trained"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_divergence_is_that_of_the_definition_and_zero_where_nothing_differs(family):
    adapter = attach(tiny_backbone(family), 4, seed=0)
    model = adapter.get_base_model()
    with torch.no_grad():
        assert distillation(adapter, model.model, copying(0, False))[0] == 0
        blocked = copying(0, True)
        loss, logged, _ = distillation(adapter, model.model, blocked)
        p = outputs(model, copying(0, False)).softmax(-1)
        q = outputs(model, blocked).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert loss == logged and float(loss) == pytest.approx(float(expected), rel=1e-4) and loss > 1e-3


def test_text_of_tasks_is_not_distilled():
    adapter = attach(tiny_backbone(), 4, seed=0)
    rows = copying(0, True)
    text = rows.labels.clone()
    text[:, :4] = rows.ids[:, 1:5]  # the task's own tokens as labels of weight .3
    weights = rows.weights.clone()
    weights[:, :4] = 0.3
    body = adapter.get_base_model().model
    with torch.no_grad():
        expected = distillation(adapter, body, rows)[0]
        assert distillation(adapter, body, replace(rows, labels=text, weights=weights))[0] == expected


def test_distilling_teaches_blocked_reading(tmp_path):
    backbone = tiny_backbone()
    rows, exact = copying(10**6, True, rows=16), outputs(backbone.model, copying(10**6, False, rows=16))
    before = _divergence(exact, outputs(backbone.model, rows))
    adapted(backbone, tmp_path, 25, True, Lora(rank=8, distill=True), adam_lr=0.01)
    after = _divergence(exact, outputs(backbone.model, rows))
    assert after < 0.5 * before, (before, after)
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["objective"] == "distillation" and record["lora"]["rank"] == 8


def _divergence(exact, used):
    p, q = exact.log_softmax(-1), used.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def test_an_adapter_that_was_interrupted_ends_the_same(tmp_path, monkeypatch):
    whole, parts = interrupted(tiny_backbone, Lora(rank=2, distill=True), tmp_path, monkeypatch)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    saved = torch.load(tmp_path / "whole" / "state.pt")["model"]
    assert all(".lora_" in name for name in saved), "the frozen base is not in the checkpoint"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_script_writes_an_adapter_and_a_backbone(dtype, tmp_path):
    base, out = tmp_path / "base", tmp_path / "out"
    tiny_model("qwen2").save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    how = ["--lora", "2", "--distill", "--merge", "--dtype", dtype, "--device-map", "cpu", "--probes", "0"]
    sizes = ["--tokens", "2048", "--batch", "1024", "--length", "1024", "--long-length", "0", "--adam-lr", "0.01"]
    load(SCRIPT).main(["--backbone", "tiny", "--path", str(base), "--out", str(out), *how, *sizes])
    assert "model.safetensors" in (out / "SHA256SUMS").read_text(), "written after the merged model, not before"
    backbone = load_backbone(BackboneConfig("tiny-reuse", path=str(out), dtype=dtype))
    loaded = load_backbone(BackboneConfig("tiny", path=str(base), dtype=dtype))
    assert backbone.fingerprint != loaded.fingerprint
    adapter = PeftModel.from_pretrained(loaded.model, str(out / "adapter"))
    rows = copying(0, True)
    gap = (outputs(backbone.model, rows) - outputs(merged(adapter), rows)).abs().max()
    assert gap < (1e-4 if dtype == "float32" else 0.05), f"{gap:.2e}"
    record = json.loads((out / "training.json").read_text())
    assert record["continued_from"]["name"] == "tiny" and record["runs"][0]["recipe"]["name"] == "tiny-reuse"


def test_a_rank_below_one_and_a_family_that_is_not_known_are_refused():
    with pytest.raises(ValueError, match="lora.rank must be 1 or more, got 0"):
        Lora(rank=0)
    other = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=1, n_head=1))
    with pytest.raises(UnsupportedModelError, match="model_type must be one of qwen2.*, got 'gpt2'"):
        Backbone("other", other, tiny_tokenizer(), MINI)
