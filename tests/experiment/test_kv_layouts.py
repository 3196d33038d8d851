"""The two layouts side by side: costs by hand, crossings by hand, and what the command writes."""

from __future__ import annotations

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from graphflow.experiment import compose as composing
from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.experiments import experiment
from graphflow.experiment.kv import figures
from graphflow.experiment.kv.layouts import EQUAL, NONE, OURS, RIVAL, doubled, equal_at, over_prefix
from graphflow.experiment.kv.study import backbone_of, side_by_side
from graphflow.experiment.kv.texts import CHAIN, Size, context_tokens, endless, examples, words_of
from graphflow.experiment.serve import House
from graphflow.paths import CONF
from tests.tiny import tiny_backbone

HEAD, TAIL, OUTPUTS, ROWS = 1, 1, 3, 0.02
PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
SMALL = ("tracking=none", "engine.kv_dtype=float32", "machine.threads=1", "engine.max_tokens_scale=1", "tasks=2")
SIZES = "experiment.sizes={shortest:20,longest:20,calls:2,outputs:3,prompts:1,requests:10}"


def grid(kv: str) -> str:
    return f"experiment.grids=[{{artefact:a,methods:[random],kv:[{kv}]}}]"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs an experiment on a tiny backbone; what the terminal showed is the second value. Figures are not drawn."""
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)

    def save(figure: Figure, stem: Path) -> Path:
        plt.close(figure)
        stem.with_suffix(".png").touch()
        return stem.with_suffix(".png")

    monkeypatch.setattr(figures, "save", save)
    monkeypatch.setattr(Figure, "tight_layout", lambda self: None)

    def run(name: str, *words: str) -> tuple[pd.DataFrame, str]:
        text = io.StringIO()
        places = (f"machine.results_dir={tmp_path / 'results'}", f"machine.runs_dir={tmp_path / 'runs'}")
        frame = experiment(name, [*SMALL, *places, *words], f"graphflow experiment {name}", Console(file=text))
        return frame, text.getvalue()

    run.folder = tmp_path / "results" / "kv"
    return run


def prompts(calls: int) -> list[int]:
    """Tokens of the prompts of a chain: a token a word, and the two marks."""
    library, backbone = House().library, tiny_backbone()
    return [len(backbone.encode(backbone.turns.write_operation(library[op].prompt))) for op in CHAIN[:calls]]


def test_costs_by_hand(start) -> None:
    """Texts of 100 and 200 tokens, two calls that write three tokens each; two tasks after two that were served before.

    Task first, what runs is <bos><task>text<end>, the prompts, and between the calls the first output's last token and
    <end>. Operation first, both prompts and the <task> behind each are there; the first call runs text<end><out>, the
    second one text<end>, then <out>, the first output and <end>, then <out>. An output's last token has no KV.
    """
    words = ("experiment.sizes={shortest:100,longest:200,calls:2,outputs:3,prompts:1,requests:10}", "warmup=2")
    words = (*words, grid("operation_first,stateful,differential"), "kv.min_observations=2", "engine.concurrency=2")
    frame, shown = start("layouts", "backbones=[random-qwen-mini]", *words)
    frame = frame.set_index(["state", "text_tokens"])
    first, second = prompts(2)
    written = 2 * (OUTPUTS - 1)
    for text in (100, 200):
        task, ran, own = text + 3, frame["prefill_tokens"], frame["request_op_bytes"] + frame["request_text_bytes"]
        assert ran["stateful", text] == task + first + 2 + second
        rows = sum(math.ceil(ROWS * (prompt - HEAD - TAIL)) for prompt in (first, second))
        assert ran["differential (path)", text] == task + HEAD + TAIL + 2 + HEAD + TAIL + rows
        assert ran["operation_first", text] == (text + 2) + (text + 1 + 1 + 3 + 1 + 1)
        assert own["stateful", text] == 2 * (task + first + 2 + second + written) * PER_TOKEN
        assert own["operation_first", text] == 2 * (2 * text + 9 + written) * PER_TOKEN
    opened = frame.loc["operation_first", "request_op_bytes"]  # the engine counts the <out> of a call as its prompt's
    assert opened.tolist() == [2 * 2 * PER_TOKEN] * 2
    assert frame.loc["operation_first", "store_bytes"].nunique() == 1
    assert (frame["p90_s"] > 0).all() and frame["skipped"].isna().all()
    assert set(frame["backbone"]) == {"random-qwen-mini"} and set(frame["kind"]) == {"plain"}

    found = pd.read_csv(start.folder / "layouts_crossings.csv").set_index(["state", "measure"])
    # 2 t + 9 = t + 5 + both prompts; the tokens that are kept are those that run, in both layouts.
    for measure in ("prefill_tokens", "bytes_a_task"):
        row = found.loc[("stateful", measure)]
        assert float(row["crossing"]) == pytest.approx(first + second - 4, abs=1 if measure == "prefill_tokens" else 30)
        assert (row["lower_before"], row["lower_after"]) == (RIVAL, OURS)
    path = found.loc[("differential (path)", "prefill_tokens")]
    assert (path["crossing"], path["lower_before"]) == (NONE, OURS), "2 t + 9 is above t + 9 + rows"
    assert list((start.folder / "figures").glob("layouts_random-qwen-mini.*"))
    assert "Text tokens at which both layouts are equal" in shown

    runs = start.folder.parent.parent / "runs"
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("*.json*")}
    start("layouts", "backbones=[random-qwen-mini]", *words)
    assert before == {file: file.stat().st_mtime_ns for file in runs.rglob("*.json*")}, "finished cells stay"


def test_over_prefix_by_hand() -> None:
    seconds = {"prefix": (1.0, 2.0, 4.0), "ours": (0.5, 2.0, 8.0)}
    rows = [
        {"backbone": "b", "calls": 2, "state": state, "text_tokens": text, "p90_s": value}
        for state, values in seconds.items()
        for text, value in zip((50, 100, 200), values, strict=True)
    ]
    (row,) = over_prefix(pd.DataFrame(rows))
    assert row["state"] == "ours" and row["sizes"] == 3
    assert (row["lowest"], row["median"], row["highest"]) == (0.5, 1.0, 2.0)
    assert not list(over_prefix(pd.DataFrame(rows[3:])))


def test_what_does_not_fit_is_marked_and_not_run(start) -> None:
    """The tiny model has contexts of 512 tokens: two prompts and 400 tokens of text do not fit, one prompt does."""
    sizes = "experiment.sizes={shortest:200,longest:400,calls:2,outputs:1,prompts:1,requests:10}"
    frame, shown = start("layouts", sizes, grid("operation_first,stateful"), "warmup=0", "backbones=[qwen-mini]")
    left = frame[frame["skipped"].notna()]
    first, second = prompts(2)
    longest = 400 + 3 + first + 1 + 1 + second + 1
    assert 400 + 3 + max(first, second) + 6 < 512 < longest, "otherwise this test says nothing"
    assert left["state"].tolist() == ["stateful"] and left["context_tokens"].tolist() == [longest]
    assert left["prefill_tokens"].isna().all() and (left["n_tasks"] == 0).all()
    assert "at most 512 tokens" in left["skipped"].iloc[0] and "skipped 1 cells" in shown
    assert frame[frame["skipped"].isna()]["prefill_tokens"].notna().all()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("experiment.sizes.calls=9", "between 2 and 8, got 9"),
        ("experiment.sizes.longest=0", "sizes.longest must be 1 or more"),
        (grid("stateful"), "must have operation_first"),
    ],
)
def test_settings_out_of_range_are_refused(start, word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start("layouts", SIZES, word)


def test_contexts_by_hand() -> None:
    """Three prompts of a, b, c words and two marks; text of 10 tokens; each call writes 5 tokens and <end>."""
    backbone, library = tiny_backbone(), House().library
    lengths, size = prompts(3), Size(text=10, calls=3, outputs=5)
    assert context_tokens(backbone, library, size, False) == 10 + 3 + sum(lengths) + 3 * 5 + 2
    longest = max(lengths) + 1  # <bos><op>prompt<end> has one mark more than <op>prompt<out>
    assert context_tokens(backbone, library, size, True) == longest + 10 + 2 + 3 * (1 + 5) + 2


def test_texts_have_their_length_and_begin_differently() -> None:
    backbone = endless(tiny_backbone())
    words = words_of(backbone, ["write the answer", "solve the code d e f"])
    assert "the" in words and len({tuple(backbone.encode(word)) for word in words}) == len(words)
    made = examples(backbone, words, 30, len(words), seed=1)
    texts = [example.task.text for example in made]
    assert {len(backbone.encode(text)) for text in texts} == {30}
    assert len({backbone.encode(text)[0] for text in texts}) == len(words)
    assert texts == [example.task.text for example in examples(backbone, words, 30, len(words), seed=1)]
    assert len({example.task.id for example in made}) == len(words)
    with pytest.raises(ValueError, match="text of 0 tokens"):
        examples(backbone, words, 0, 1, seed=1)


def test_chains_are_made_of_operations_of_the_library() -> None:
    size, library = Size(5, len(CHAIN), 7), House().library
    assert len(set(CHAIN)) == len(CHAIN) == 8
    assert [step.op for step in size.workflow.steps] == list(CHAIN)
    assert {(op.max_tokens, op.temperature) for op in size.library(library).values()} == {(7, 0.0)}
    assert size.library(library)[CHAIN[0]].prompt == library[CHAIN[0]].prompt
    twice = replace(size, prompts=2).library(library)[CHAIN[0]].prompt
    assert twice == f"{library[CHAIN[0]].prompt}\n{library[CHAIN[0]].prompt}"


def test_doubling_ends_at_the_last_number() -> None:
    assert doubled(50, 1500) == [50, 100, 200, 400, 800, 1500]
    assert doubled(2, 8) == [2, 4, 8] and doubled(2, 2) == [2] and doubled(50, 60) == [50, 60]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([-10, 10, 30], [("150.0", RIVAL, OURS)]),  # half way between 100 and 200
        ([-30, -10, 10], [("300.0", RIVAL, OURS)]),  # half way between 200 and 400
        ([-10, 0, 5], [("200.0", RIVAL, OURS)]),
        ([-10, 30, -30], [("125.0", RIVAL, OURS), ("300.0", OURS, RIVAL)]),
        ([0, 1, 2], [("100.0", "", OURS)]),
        ([3, 2, 1], [(NONE, OURS, OURS)]),
        ([-3, -2, -1], [(NONE, RIVAL, RIVAL)]),
        ([0, 0, 0], [(EQUAL, "", "")]),
    ],
)
def test_crossings_by_hand(gaps: list[float], expected: list[tuple[str, str, str]]) -> None:
    assert equal_at([100, 200, 400], gaps) == expected


def test_kinds_stand_side_by_side_by_hand() -> None:
    rows = [("a", 1), ("a", 2), ("b", 1), ("a-reuse", 1), ("a-reuse", 2)]
    table = side_by_side(pd.DataFrame(rows, columns=pd.Index(["backbone", "row"])))
    kept = list(table.itertuples(index=False, name=None))
    assert kept == [
        ("a", "plain", 1),
        ("a-reuse", "reuse", 1),
        ("a", "plain", 2),
        ("a-reuse", "reuse", 2),
        ("b", "plain", 1),
    ]
    assert side_by_side(pd.DataFrame()).empty


def test_random_weights_are_not_called_by_the_trained_ones_name() -> None:
    names = [backbone_of(compose([f"backbone={name}"])) for name in ("qwen-mini", "random-qwen-mini")]
    assert names == ["qwen-mini", "random-qwen-mini"]


KINDS = {
    "kv_modes": ("kv_modes", grid("stateful,stateless"), "engine.fidelity=1"),
    "kv_codecs": ("kv_codecs kv_codecs_equal_kl", grid("stateful_int8,differential_request"), "engine.fidelity=1"),
    "similarity": ("similarity similarity_positions", grid("stateful")),
    "pruning": ("pruning pruning_stream", grid("no_pruning"), "experiment.sizes.window=1", "tasks=2"),
    "steady_state": ("steady_state", grid("no_pruning"), "experiment.sizes.window=1", "tasks=2"),
    "long_horizon": ("long_horizon", grid("stateful"), "experiment.sizes.longest=4", "engine.fidelity=1"),
    "layouts": ("layouts layouts_crossings", grid("operation_first,stateful"), SIZES),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_table_has_both_kinds_side_by_side(name: str, start, tmp_path: Path, monkeypatch) -> None:
    """Two configs of one folder, one of them called reuse: same numbers, two names, in tables and in figures."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    (conf / "backbone" / "qwen-mini-reuse.yaml").write_text("name: qwen-mini-reuse\nturns: mini\n")
    monkeypatch.setattr(composing, "CONF", conf)
    tables, *words = KINDS[name]
    benchmarks = "[mini-math,mini-hotpotqa]" if name == "pruning" else "[mini-math]"
    benchmarks = "[mini-gsm8k]" if name == "layouts" else benchmarks
    common = ("engine.sandbox.allow_unisolated=true", "engine.max_tokens_scale=0.1", f"benchmarks={benchmarks}")
    common = (*common, "tasks=1", "warmup=0", "benchmark.train_size=4", "benchmark.test_size=4")
    start(name, *common, "backbones=[qwen-mini,qwen-mini-reuse]", *words)
    for table in tables.split():
        frame = pd.read_csv(start.folder / f"{table}.csv")
        assert frame["backbone"].tolist() == ["qwen-mini", "qwen-mini-reuse"] * (len(frame) // 2), table
        assert frame["kind"].tolist() == ["plain", "reuse"] * (len(frame) // 2) and len(frame), table
    drawn = {file.stem for file in (start.folder / "figures").glob("*.png")}
    for stem in [stem for stem in drawn if stem.endswith("_qwen-mini")]:
        assert f"{stem}-reuse" in drawn
    assert any(stem.endswith("_qwen-mini") for stem in drawn)
