"""The main table: every method and state mode beside each other, and the bars by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from graphflow.experiment.baselines.bars import bars
from graphflow.experiment.experiments import experiment
from graphflow.experiment.serve import House
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    methods = "vanilla,autoflow,best_fixed,graphflow"
    return [
        *SMALL,
        f"experiment.grids=[{{methods:[{methods}],kv:[stateful,differential]}}]",
        "backbones=[qwen-mini]",
        "benchmarks=[mini-gsm8k,mini-math]",
        "fit.benchmarks=[mini-gsm8k,mini-math]",
        "fit.train_tasks=4",
        "benchmark.train_size=4",
        "generator.epochs=2",
        "trials.tasks=2",
        "warmup=1",
        "tasks=2",
        f"machine.results_dir={tmp_path / 'results'}",
        f"machine.runs_dir={tmp_path / 'runs'}",
    ]


def test_the_experiment(words: list[str], tmp_path: Path) -> None:
    text = Console(file=io.StringIO(), width=200)
    frame: Any = experiment("main_table", words, "graphflow experiment main_table", text)
    assert len(frame) == (4 * 2 + 1) * 3, "methods x states and the oracle, two benchmarks and their mean"
    cells, means = frame[frame["benchmark"] != "mean"], frame[frame["benchmark"] == "mean"]
    own = means[(means["method"] == "graphflow") & (means["kv_mode"] == "differential")].iloc[0]
    assert own["gain"] == 0 and own["n_tasks"] == 4
    scores = cells.groupby(["method", "state"])["metric"].mean()
    for _, row in means.iterrows():
        assert row["metric"] == pytest.approx(scores[row["method"], row["state"]], abs=1e-5)
        assert row["gain"] == pytest.approx(own["metric"] - row["metric"], abs=1e-5)
    ceiling = means[means["method"] == "oracle"].iloc[0]
    assert ceiling["metric"] >= means[means["method"] == "best_fixed"]["metric"].max()
    spent = means.set_index("method")["fit_llm_calls"]
    assert (spent["vanilla"] == 0).all() and (spent["autoflow"] > 0).all() and (spent["best_fixed"] > 0).all()
    assert set(means.loc[means["method"] == "autoflow", "scripted"]) == {"autoflow_flow"}
    folder = tmp_path / "results" / "methods"
    assert {file.name for file in (folder / "figures").glob("*.png")} == {"main_table.png", "p90.png"}
    held = pd.read_csv(folder / "main_table_bars.csv")
    assert list(held["bar"]) == ["points over the best baseline"], "AFlow was not run"
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*.jsonl")}
    again = experiment("main_table", words, "graphflow experiment main_table", text)
    assert before == {file: file.stat().st_mtime_ns for file in before}, "nothing runs twice"
    pd.testing.assert_frame_equal(frame, again)


def test_bars_by_hand() -> None:
    common = {"benchmark": "mean", "backbone": "qwen-mini", "gain_lo": 0.0, "gain_hi": 0.1}
    rows = [
        {"method": "graphflow", "kv_mode": "differential", "metric": 0.8, "gain": 0.0, "p90_s": 0.8}
        | {"op_bytes": 10, "text_bytes": 10},
        {"method": "graphflow", "kv_mode": "stateful", "metric": 0.9, "gain": 0.0, "p90_s": 0.1}
        | {"op_bytes": 1, "text_bytes": 1},
        {"method": "aflow", "kv_mode": "stateful", "metric": 0.7, "gain": 0.1, "p90_s": 1.0}
        | {"op_bytes": 90, "text_bytes": 10},
        {"method": "metagpt", "kv_mode": "stateful", "metric": 0.75, "gain": 0.04, "p90_s": 4.0}
        | {"op_bytes": 900, "text_bytes": 10},
        {"method": "best_fixed", "kv_mode": "stateful", "metric": 0.99, "gain": -0.1, "p90_s": 1.0}
        | {"op_bytes": 9, "text_bytes": 9},
    ]
    found = {row["bar"]: row for row in bars(pd.DataFrame([{**common, **row} for row in rows]))}
    assert len(found) == 5
    best = found["points over the best baseline"]
    assert (best["beside"], best["value"], best["met"]) == ("metagpt", 4.0, "no"), "controls are no baselines"
    assert found["points over AFlow"]["met"] == "yes"
    assert found["P90 below AFlow's, %"]["value"] == pytest.approx(20)
    assert found["retained KV, times smaller than AFlow's"]["value"] == 5
    assert found["retained operation state, times smaller than AFlow's"]["value"] == 9
