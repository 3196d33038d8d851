"""The capacity planner as a command: tables from files, from a run, and words that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from graphflow.backbone.load import BackboneConfig
from graphflow.backbone.turns import MINI
from graphflow.cli import main
from graphflow.engine.episode import Episode, StepRecord
from graphflow.experiment.capacity.check import CATEGORIES, check, report_check
from graphflow.experiment.capacity.config import load
from graphflow.experiment.capacity.dry import Assumptions, DryWalk
from graphflow.experiment.capacity.replay import evenly
from graphflow.experiment.capacity.report import report
from graphflow.experiment.capacity.table import COLUMNS
from graphflow.experiment.capacity.tokenizers import counter
from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.record import RunDir
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "gsm8k"
    folder.mkdir(parents=True)
    rows = [
        {"question": f"Ann has {i} eggs and eats {i % 3}. How many are left?", "answer": "#### 1"} for i in range(10)
    ]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "data"


WORDS_OF = ("benchmarks=[gsm8k]", "backbones=[llama3.1-8b]", "concurrency=[2]", "tasks={gsm8k: 25}", "warmup=4")


def test_the_command_writes_a_table_and_a_figure(data: Path, tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    words = ["capacity", f"data_dir={data}", f"results_dir={results}", *WORDS_OF]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "about 50" in shown and "131,072 bytes a token" in shown and "stand-in (llama)" in shown
    frame = pd.read_csv(results / "capacity.csv")
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["command"].str.split().str[:2].map(tuple)) == {("graphflow", "capacity")}
    rows = frame[(frame["backbone"] == "llama3.1-8b") & (frame["table"] == "retained")].set_index("kv")
    assert list(rows.index) == ["stateful", "stateless", "differential", "differential_request", "no_pruning"]
    assert set(rows["n_tasks"]) == {25} and set(rows["rows_counted"]) == {10}
    stateful = rows.loc["stateful"]
    assert stateful["operation_bytes"] == round(25 * stateful["prompt_tokens"]) * 131_072
    assert stateful["text_bytes"] == round(25 * stateful["text_tokens"]) * 131_072
    assert (rows["retained_bytes"] == rows["store_bytes"] + rows["operation_bytes"] + rows["text_bytes"]).all()
    assert rows.loc["stateless", "retained_bytes"] < rows.loc["differential_request", "retained_bytes"]
    assert (results / "figures" / "capacity_llama3_1-8b.svg").exists()


def test_a_run_is_planned_from(tmp_path: Path) -> None:
    """Measured traffic on the shipped backbone's operations, for another backbone's bytes a token."""
    library = load_operations(CONF / "operations")
    prompt = DryWalk(library, MINI, counter("own", BackboneConfig()), Assumptions()).prompts["generate_cot"]
    steps = [
        StepRecord("task", "task", prefill_tokens=40),
        StepRecord("cot", "generate_cot", (), 1.0, 2.0, prompt, 40, 31, texts=("x",)),
    ]
    run = RunDir(tmp_path, "abc")
    run.path.mkdir(exist_ok=True)
    config = {"backbone": {"name": "qwen-mini", "path": "", "turns": "mini"}, "benchmark": {"name": "mini-gsm8k"}}
    run.begin({"config": config})
    run.append(Episode("t", "mini-gsm8k", "cot", "f", steps=steps), 0, 0)
    with pytest.raises(ConfigError, match="must be the folder of a finished run"):
        report(load([f"run={run.path}", f"results_dir={tmp_path / 'results'}", *WORDS_OF]), "x", Console(quiet=True))
    run.finish({"scores": {}})
    frame = report(
        load([f"run={run.path}", f"results_dir={tmp_path / 'results'}", *WORDS_OF]), "x", Console(quiet=True)
    )
    row = frame[(frame["backbone"] == "llama3.1-8b") & (frame["kv"] == "stateful")].iloc[0]
    assert (row["source"], row["tokenizer"], row["workflows"], row["n_tasks"]) == ("abc", "qwen-mini", "cot", 25)
    assert row["text_bytes"] == 25 * (40 + 30) * 131_072
    assert row["operation_bytes"] == 25 * prompt * 131_072


def test_the_check_agrees_with_the_engine() -> None:
    """On a random backbone, whose outputs reach their limits: what is kept depends on tokens and order alone."""
    words = ["backbone=random-qwen-mini", "benchmark=mini-gsm8k", "benchmark.limit=12", "engine.concurrency=5"]
    states = [evenly(compose([f"kv={name}"]).kv) for name in ("stateful", "differential", "differential_request")]
    rows = check(compose([*words, "engine.max_tokens_scale=0.1"]), "cot_review_revise", states)
    assert [row.state for row in rows] == ["stateful", "differential (path)", "differential (request)"]
    for row in rows:
        for category in CATEGORIES:
            assert abs(row.deviation(category)) < 0.02, (row.state, category, row.planned, row.measured)


def test_the_check_refuses_another_order() -> None:
    with pytest.raises(ConfigError, match="engine.scheduler must be 'fifo' to check capacity, got 'critical_path'"):
        report_check("cot", ["engine.scheduler=critical_path"], Console(quiet=True))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("backbones=[llama]", r"unknown backbone 'llama'"),
        ("assumed.guards=2", r"assumed.guards must be in \[0, 1\], got 2"),
        ("concurrency=[0]", "concurrency must hold numbers of 1 or more"),
        ("nothing", "'nothing' is not of the form key=value"),
        ("tokeniser=own", "tokeniser"),
    ],
)
def test_wrong_words_are_named(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load([word])
