"""The session: local folders of every family, own operations, every mode, a store that goes on where it was saved."""

from __future__ import annotations

import pytest

from graphflow.backbone.load import Backbone, BackboneError
from graphflow.backbone.turns import FORMATS
from graphflow.engine.config import EngineConfig
from graphflow.engine.session import Session, load
from graphflow.errors import UnknownNameError
from graphflow.kv import KVConfig, StateMode, StoreMismatchError
from graphflow.paths import ASSETS
from tests.tiny import FAMILIES, tiny_backbone, tiny_model, tiny_tokenizer

OPERATIONS = {"write": "write the answer one two three four", "check": "check the answer five six seven"}
TEXTS = ["solve one", "solve one two three d e f g five six seven", "ten"]
PATH = ["write", "check"]
PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
PROMPTS = (7 + 2, 6 + 2)  # a token a word, <op> and <out>


def session(kv, operations=OPERATIONS, concurrency=1, **more):
    engine = EngineConfig(kv_dtype="float32", concurrency=concurrency)
    return Session(tiny_backbone(), operations, kv, max_tokens=3, engine=engine, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_local_folder_of_every_family_is_served_exactly(family, tmp_path):
    tiny_model(family).save_pretrained(tmp_path / family)
    tiny_tokenizer().save_pretrained(tmp_path / family)
    model = load(tmp_path / family)
    assert (model.name, model.fingerprint) == (family, tiny_backbone(family).fingerprint)
    run = Session(model, OPERATIONS, "stateful", max_tokens=3).run(TEXTS, PATH)
    assert run.kl is not None and run.kl < 1e-6 and run.agreement == 1
    assert len(run.episodes) == 3 and run.episodes[0].workflow == "write>check"


def test_bytes_and_tokens_by_hand():
    """Tasks of 2, 11 and 1 words with three marks each; nothing is shared, an output's last token has no KV.

    What follows an output in the context is its last token and, unless that is it, <end>.
    """
    run = session("stateful").run(TEXTS, PATH)
    assert run.operation_bytes == 3 * sum(PROMPTS) * PER_TOKEN
    behind = [0, 0, 0]
    outputs = 0
    for place, episode in enumerate(run.episodes):
        first, last = episode.steps[1:]
        stopped = first.output_tokens < 3 or first.prefill_tokens == PROMPTS[1]
        outputs += first.output_tokens - 1 + last.output_tokens - 1
        behind[place] = last.prefill_tokens - PROMPTS[1]
        assert behind[place] in ((1, 2) if stopped else (2,))
    tasks = (2 + 3) + (11 + 3) + (1 + 3)
    assert run.prefilled == tasks + 3 * sum(PROMPTS) + sum(behind)
    assert run.text_bytes == (tasks + sum(behind) + outputs) * PER_TOKEN
    assert run.shared.base == run.shared.residual == 0
    contexts = [episode.steps[2].reused_tokens for episode in run.episodes]  # task, first prompt and output
    assert contexts == [
        5 + 9 + e.steps[1].output_tokens - 1 + extra for e, extra in zip(run.episodes, (0, 9, -1), strict=True)
    ]
    assert run.reused == sum(contexts) + tasks


@pytest.mark.parametrize("mode", [mode.value for mode in StateMode])
def test_every_mode_serves_by_its_name(mode):
    run = session(mode).run(TEXTS, PATH)
    exact = mode in ("stateful", "prefix", "operation_first", "differential", "no_pruning", "blend")  # still learning
    assert run.kl is not None and (run.kl < 1e-6) == exact
    assert run.operation_bytes > 0 and run.text_bytes > 0 and run.prefilled > 0


def test_what_a_run_teaches_serves_the_next_one():
    own = session(KVConfig("differential", min_observations=3, exact_head=1, exact_rows=0.0))
    first, second = own.run(TEXTS, PATH), own.run(TEXTS, PATH)
    assert first.reused < second.reused
    assert [e.total("operation_reused") for e in first.episodes] == [0, 0, 0]
    assert [e.total("operation_reused") for e in second.episodes] == [sum(PROMPTS) - 2 * (1 + 1)] * 3
    assert second.operation_bytes < first.operation_bytes and second.kl > first.kl


def test_measuring_is_optional_and_changes_nothing():
    own = session("stateless")
    measured, plain = own.run(TEXTS, PATH), own.run(TEXTS, PATH, measure=False)
    assert measured.kl > 0 and (plain.kl, plain.agreement) == (None, None)
    assert [e.answer for e in measured.episodes] == [e.answer for e in plain.episodes]


def test_a_saved_store_serves_from_the_first_text_on(tmp_path):
    kv = {"min_observations": 2, "exact_head": 1}
    first = session(KVConfig("differential", **kv))
    first.run(TEXTS, PATH)
    warm = first.run(TEXTS, PATH)
    first.save(tmp_path / "store")
    again = session(KVConfig("differential", store=str(tmp_path / "store"), **kv)).run(TEXTS, PATH)
    assert [e.total("operation_reused") for e in again.episodes] == [sum(PROMPTS) - 2 * (1 + 1 + 1)] * 3, (
        "head, tail and a row"
    )
    assert [e.answer for e in again.episodes] == [e.answer for e in warm.episodes] and again.kl == warm.kl
    changed = {**OPERATIONS, "check": "fix the answer"}
    with pytest.raises(StoreMismatchError, match="check"):
        session(KVConfig("differential", store=str(tmp_path / "store"), **kv), operations=changed)


@pytest.mark.parametrize(("name", "turns"), FORMATS.items(), ids=FORMATS)
def test_the_turn_format_is_the_one_whose_marks_the_tokenizer_has(name, turns, tmp_path):
    tokenizer = tiny_tokenizer()
    if name != "mini":
        tokenizer = tiny_tokenizer_with(turns.stop)
    tiny_model("qwen2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path).turns is turns


def tiny_tokenizer_with(stop):
    """The tiny tokenizer, ending turns with another mark."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"[UNK]": 0, stop: 1}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(BackboneError, match="no model in"):
        load(tmp_path / "absent")
    tiny_model("qwen2").save_pretrained(tmp_path)
    tiny_tokenizer_with("<another mark>").save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match="turn format ''; allowed: gemma, llama, mini, qwen"):
        load(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'stateless'"):
        session("stateles")
    with pytest.raises(UnknownNameError, match="did you mean 'check'"):
        session("stateful").run(TEXTS, ["write", "chek"])
    with pytest.raises(ValueError, match="path must name at least one"):
        session("stateful").run(TEXTS, [])
    with pytest.raises(ValueError, match="mode must be one with bases to be saved, got prefix"):
        session("prefix").save(tmp_path / "store")


def test_a_single_string_is_no_list_of_texts():
    session = Session(tiny_backbone(), {"draft": "Write it."})
    with pytest.raises(ValueError, match="texts must be a list of strings, got 'What now'"):
        session.run("What now", ["draft"])
    with pytest.raises(ValueError, match="path must be a list of strings, got 'draft'"):
        session.run(["What now"], "draft")


def test_a_place_that_cannot_be_written_is_found_before_anything_is_served(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=r"kv.store must be a folder that can be written, got .*file"):
        Session(tiny_backbone(), {"draft": "Write it."}, KVConfig(store=tmp_path / "file"))
    Session(tiny_backbone(), {"draft": "Write it."}, KVConfig(store=tmp_path / "new" / "store"))
    assert list((tmp_path / "new" / "store").iterdir()) == [], "looking leaves nothing behind"


def test_a_store_of_another_window_is_refused(tmp_path):
    wide, narrow = tiny_backbone("gemma2"), tiny_model("gemma2")
    session = Session(wide, {"draft": "Write it."}, KVConfig("no_pruning", min_observations=1))
    session.run(["One.", "Two."], ["draft"])
    session.save(tmp_path)
    narrow.config.sliding_window += 1
    other = Backbone(wide.name, narrow, wide.tokenizer, wide.turns)
    with pytest.raises(StoreMismatchError, match="fingerprint"):
        Session(other, {"draft": "Write it."}, KVConfig("no_pruning", min_observations=1, store=tmp_path))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device must be a torch device such as cpu or cuda:0, got 'banana'"):
        load(ASSETS / "qwen-mini", device="banana")
