"""Reuse-aware adaptation: what is trained is what is served, and blocking is what teaches it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from graphflow.backbone.load import BackboneConfig, BackboneError, load_backbone
from graphflow.backbone.packing import Document, Piece, pack
from graphflow.backbone.turns import FORMATS
from graphflow.benchmarks.mini.traces import Role, Trace, Turn, call
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.engine.decode import Decoder, Request
from graphflow.kv import Context, KVConfig, OperationStore, StateMode
from graphflow.paths import ASSETS, CONF
from graphflow.training import loop, probe
from graphflow.training.adapt import adapt, adaptation_recipe, reuse_probe
from graphflow.training.attention import NAME as PACKED
from graphflow.training.data import Batches
from graphflow.training.loop import loss_of, masks_of, predictions
from graphflow.wgraph.library import load_operations, load_workflows
from tests.test_repository import load
from tests.tiny import FAMILIES, WINDOW, tiny_backbone
from tests.training.small import LENGTH, Copying, adapted, copying, short_recipe, tokens

SCRIPT = CONF.parent / "scripts" / "adapt_backbone.py"
OPERATIONS = {"first": tuple(tokens(13, 1)), "second": tuple(tokens(11, 2))}
TASK, TOOL = tokens(WINDOW + 9, 3), tokens(7, 4)  # longer than Gemma's window, so that it slides over prompts too


def served(backbone, mode, operations):
    """Runs operations one after another as the engine does, a tool result after each.

    Returns:
        Outputs, the text that the engine puts behind each, and the logits that each output was chosen from.
    """
    kv = KVConfig(mode, exact_head=0, exact_tail=1)
    store = OperationStore(kv, backbone.rope, backbone.shape(torch.float32))
    decoder = Decoder(backbone, store)
    for name, prompt in OPERATIONS.items():
        store.add_base(name, prompt, decoder.bare(prompt))
    (context,) = decoder.prefill([TASK])
    outputs, behind, logits, pending = [], [], [], ()
    for name in operations:
        plan = store.plan(name, context.path)
        request = Request(context, pending, name, OPERATIONS[name], plan, max_tokens=6, temperature=0, seeds=(0,))
        (reply,) = decoder.generate([request], keep_logits=True)
        outputs.append(reply.outputs[0])
        behind.append([*(() if outputs[-1][-1] == backbone.stop else (backbone.stop,)), *TOOL])
        logits.append(reply.logits[0])
        context, pending = reply.contexts[0], (outputs[-1][-1], *behind[-1])
    assert isinstance(context, Context)
    return outputs, behind, torch.cat(logits)


def packed(backbone, blocked, branches):
    """One row: a document that is in the way, then the task with these branches of operations and outputs."""
    document = Document()
    document.add([Piece(TASK)], 0)
    for operations, (outputs, behind, _) in branches:
        pieces = []
        for name, output, text in zip(operations, outputs, behind, strict=True):
            pieces += [Piece(OPERATIONS[name], blocked=blocked), Piece(output, 1.0), Piece(text)]
        document.add(pieces, len(TASK))
    other = Document()
    other.add([Piece(tokens(5, 5))], 0)
    rows = pack(lambda: iter([other, document]), rows=1, length=5 + len(document) + 3, misses=1)
    with torch.inference_mode():
        return predictions(backbone.model.train(), backbone.model.model, rows)[0]


@pytest.mark.parametrize(
    ("family", "attention"),
    [*((name, kind) for name in FAMILIES for kind in ("eager", PACKED)), ("qwen2", "sdpa"), ("llama", "sdpa")],
)
def test_what_is_trained_is_what_is_served(family, attention):
    """Output logits of a packed, blocked row against the decoder over bases, and unblocked against exact state."""
    backbone, paths = tiny_backbone(family), (["first", "second"], ["second", "second"])
    shared = [(path, served(backbone, StateMode.STATELESS, path)) for path in paths]
    exact = [(path, served(backbone, StateMode.STATEFUL, path)) for path in paths]
    backbone.model.set_attn_implementation(attention)
    for branches, blocked in ((shared, True), (exact, False)):
        expected = torch.cat([run[2] for _, run in branches])
        gap = (packed(backbone, blocked, branches) - expected).abs()
        assert gap.max() < 1e-4, f"blocked {blocked}: max {gap.max():.2e}, mean {gap.mean():.2e}"
        other = (packed(backbone, not blocked, branches) - expected).abs()
        assert other.max() > 0.05, f"blocking must matter for this to be a test, max {other.max():.2e}"


@pytest.mark.parametrize("turns", sorted(FORMATS))
def test_prompts_are_blocked_in_the_tokens_that_the_engine_serves(turns):
    style, library = FORMATS[turns], load_operations(CONF / "operations")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(ASSETS / "qwen-mini")
    marks = {mark for text in (style.bos, style.opening, style.stop, *style.task) for mark in _special(text)}
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(marks - set(tokenizer.all_special_tokens))})
    prompts = {op.name: op.prompt for op in library.operations.values() if op.prompt}
    writer = TraceWriter(tokenizer, style, prompts)
    (document,) = writer.write(Trace("one", [[*call("review", "ok"), Turn(Role.TOOL, "two")]]), 400, blocked=True)
    prompt = tokenizer(style.write_operation(prompts["review"]), add_special_tokens=False)["input_ids"]
    start = document.blocks.index(1)
    assert document.ids[start : start + len(prompt)] == prompt
    expected = [0] * start + [1] * (len(prompt) - 1) + [0] * (len(document) - start - len(prompt) + 1)
    assert document.blocks == expected
    batches = Batches(replace(adaptation_recipe(tiny_backbone()), blocked=1.0), tokenizer, library, style)
    rows = batches[1]
    assert rows.blocks.max() > 0 and rows.ids.shape == (4, 1024)


def _special(text):
    return [part + ">" for part in text.replace("\n", "").split(">") if part.startswith("<")]


def blocked_loss(backbone):
    with torch.inference_mode():
        return float(loss_of(backbone.model, backbone.model.model, copying(10**6, True, rows=16))[1])


def test_blocking_teaches_what_longer_training_does_not(tmp_path):
    """A model that copies from its task all but forgets it over bases; a few blocked steps bring it back."""
    plain = adapted(tiny_backbone(), tmp_path / "plain", 80, False, muon_lr=0.02, adam_lr=0.01)
    rates = {"muon_lr": 0.005, "adam_lr": 0.002}
    longer = adapted(copy.deepcopy(plain), tmp_path / "longer", 20, False, **rates)
    reuse = adapted(copy.deepcopy(plain), tmp_path / "reuse", 20, True, **rates)
    losses = [blocked_loss(backbone) for backbone in (plain, longer, reuse)]
    assert losses[2] < 0.7 * min(losses[:2]), losses


def test_the_result_loads_and_says_what_it_continued_from(tmp_path):
    backbone = tiny_backbone("llama")
    origin = backbone.fingerprint
    adapted(backbone, tmp_path, 2, True)
    again = load_backbone(BackboneConfig("tiny-llama-reuse", path=str(tmp_path)))
    assert torch.equal(again.model.lm_head.weight, backbone.model.lm_head.weight.bfloat16().float())
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["continued_from"] == {"name": "tiny-llama", "fingerprint": origin} != again.fingerprint
    recipe = record["runs"][0]["recipe"]
    assert (recipe["name"], recipe["architecture"], recipe["layers"]) == ("tiny-llama-reuse", "llama", 4)
    assert record["steps"] == 2 and record["objective"] == "cross-entropy"
    assert adaptation_recipe(backbone, blocked=0.0).name == "tiny-llama-longer"


def interrupted(build, lora, out, monkeypatch):
    """Weights after 5 steps, and after 5 steps with a stop after the third (the checkpoint is of the second)."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)

    def stop(model, step):
        if step == 2:
            raise KeyboardInterrupt
        return {}

    states = []
    for folder, measure in (("whole", None), ("parts", stop)):
        options = {"probe": measure, "probes": 5, "compiled": False}
        for run in (options, options | {"probe": None})[: 2 if measure else 1]:
            backbone = build()
            recipe = short_recipe(backbone, 5, lora)
            try:
                adapt(backbone, recipe, out / folder, Copying(5, True), lora, **run)
            except KeyboardInterrupt:
                assert torch.load(out / folder / "state.pt")["step"] == 2
        states.append(backbone.model.state_dict())
    return states


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path, monkeypatch):
    whole, parts = interrupted(tiny_backbone, None, tmp_path, monkeypatch)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    record = json.loads((tmp_path / "parts" / "training.json").read_text())
    assert [run["first_step"] for run in record["runs"]] == [0, 2]


def test_masks_and_batches_follow_the_models_device():
    """No second device is needed: the meta device refuses to mix as any other does."""
    rows = copying(0, True).to(torch.device("meta"))
    for family in ("qwen2", "gemma2"):
        masks = masks_of(tiny_backbone(family).model.config, rows, torch.float32)
        assert {mask.device.type for mask in masks.values()} == {"meta"}
    assert rows.labels.device.type == "meta" and rows.filled == copying(0, True).filled


def test_the_probe_measures_exact_state_and_bases(monkeypatch):
    monkeypatch.setattr(probe, "WORKFLOWS", {"hotpotqa": "lookup2_answer"})
    backbone, library = tiny_backbone(), load_operations(CONF / "operations")
    backbone.model.set_attn_implementation(PACKED)
    scores = reuse_probe(backbone, library, load_workflows(CONF / "workflows", library), tasks=1)(backbone.model, 0)
    assert set(scores) == {"stateful/hotpotqa", "stateless/hotpotqa"}
    assert backbone.model.config._attn_implementation == PACKED, "training goes on with the attention it began with"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_gradients_pass_the_attention_of_training(family, device, tmp_path):
    """Serving's own attention does not let them pass; only the device's name matters for which one trains."""
    backbone = tiny_backbone(family)
    backbone.device = torch.device(device)
    before = copy.deepcopy(backbone.model.state_dict())
    adapt(backbone, short_recipe(backbone, 1), tmp_path, Copying(1, True), compiled=False)
    assert any(not torch.equal(before[name], own) for name, own in backbone.model.state_dict().items())


def test_errors_say_what_is_wrong(tmp_path, capsys):
    main = load(SCRIPT).main
    with pytest.raises(BackboneError, match="shipped backbones are .*qwen-mini"):
        main(["--backbone", "qwen-mino"])
    for share in ("-0.1", "1.5"):
        with pytest.raises(ValueError, match=r"recipe.blocked must lie in \[0, 1\], got " + share):
            main(["--backbone", "qwen-mini", "--blocked", share])
    with pytest.raises(ValueError, match="lora.rank must be 1 or more, got 0"):
        main(["--lora", "0"])
    with pytest.raises(SystemExit):
        main(["--distill"])
    assert "need --lora RANK" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--out must not be the folder"):
        main(["--path", str(ASSETS / "qwen-mini"), "--out", str(ASSETS / "qwen-mini")])
    half = tiny_backbone(dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="dtype must be float32 where all weights are trained, got torch.bfloat16"):
        adapt(half, short_recipe(half, 1), tmp_path, Copying(1, True))


def test_the_fixed_batches_are_what_they_seem():
    """Task of five tokens, two branches of a prompt of six and an answer of two: 5 + 2 x 8 = 21, three in a row."""
    rows = copying(0, True)
    assert rows.ids.shape == (8, LENGTH) and rows.filled == pytest.approx(63 / 64)
    assert rows.blocks[0, :21].tolist() == [0] * 5 + [1] * 5 + [0] * 3 + [2] * 5 + [0] * 3
