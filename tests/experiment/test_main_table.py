"""The main table: every method and state mode beside each other, and the bars by hand."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from graphflow.cli import WRONG, main
from graphflow.experiment.baselines.bars import bars
from graphflow.experiment.baselines.figures import draw_main_table
from graphflow.experiment.baselines.main_table import main_table
from graphflow.experiment.baselines.tables import asked, read_methods, shown
from graphflow.experiment.compose import compose
from graphflow.experiment.experiments import EXPERIMENTS, experiment, settings
from graphflow.experiment.kv.study import Study
from graphflow.experiment.plan import GridConfig, cells
from graphflow.experiment.reproduce import reproduce, write_pictures
from graphflow.experiment.serve import House
from graphflow.experiment.single import run_single
from graphflow.methods import NAMES
from graphflow.methods.llmcompiler import PLAN
from graphflow.paths import ROOT
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone

ENCODED = "{methods:[graphflow],kv:[differential_int4]}"
OWN = ("experiment.", "backbones=", "benchmarks=", "tasks=")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    methods = "vanilla,autoflow,best_fixed,graphflow"
    return [
        *SMALL,
        f"experiment.grids=[{{methods:[{methods}],kv:[stateful,differential]}},{ENCODED}]",
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
    alone = ["backbone=qwen-mini", "method=autoflow", "benchmark=mini-math", "kv=differential", "benchmark.limit=2"]
    text = Console(file=io.StringIO(), width=200)
    cell = run_single(compose([*alone, *(word for word in words if not word.startswith(OWN))]), text)
    finished = (tmp_path / "runs" / cell["run_id"] / "done.json").stat().st_mtime_ns
    frame: Any = experiment("main_table", words, "graphflow experiment main_table", text)
    assert len(frame) == (4 * 2 + 2) * 3, "methods x states, encoded text and the oracle; two benchmarks, their mean"
    assert (tmp_path / "runs" / cell["run_id"] / "done.json").stat().st_mtime_ns == finished, "the run is shared"
    again = frame[(frame["run_id"] == cell["run_id"])].iloc[0]
    assert (again["method"], again["benchmark"], again["kv_mode"]) == ("autoflow", "mini-math", "differential")
    cells, means = frame[frame["benchmark"] != "mean"], frame[frame["benchmark"] == "mean"]
    own = means[(means["method"] == "graphflow") & (means["state"] == "differential (path)")].iloc[0]
    encoded = means[means["state"] == "differential (path, text int4)"].iloc[0]
    assert encoded["method"] == "graphflow" and encoded["text_bytes"] < own["text_bytes"] / 2
    assert encoded["op_bytes"] <= own["op_bytes"]
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
    experiment("leaders", words, "graphflow experiment leaders", text)
    assert before == {file: file.stat().st_mtime_ns for file in before}, "a run has no name of an experiment"
    assert {file.name for file in folder.rglob("leaders*.*") if file.suffix != ".svg"} == {
        *("leaders.csv", "leaders_bars.csv", "leaders.png", "leaders_p90.png")
    }, "none is written over"


@pytest.mark.slow
def test_a_profile_runs_it_after_its_own_cells(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[set[Path]] = []

    def smaller(study: Study) -> pd.DataFrame:
        begun.append(set((tmp_path / "runs").rglob("episodes.jsonl")))
        grid = GridConfig(methods=["vanilla", "graphflow", "llmcompiler"], kv=["stateful", "differential"])
        own = replace(study.config, experiment=replace(study.config.experiment, grids=[grid]))
        return main_table(replace(study, config=own))

    monkeypatch.setitem(EXPERIMENTS, "main_table", smaller)
    given = [f"experiment.{word}" if word.startswith(OWN[1:]) else word for word in words]
    given = [word for word in given if not word.startswith("experiment.grids")]
    given.append("experiment.grids=[{methods:[vanilla],kv:[stateful]}]")
    folder = reproduce(compose(given), given, "graphflow reproduce", Console(file=io.StringIO(), width=200))
    frame = pd.read_csv(folder / "methods" / "main_table.csv", dtype={"run_id": "str"})
    assert {file.parent.name for file in begun[0]} == {
        *frame.loc[(frame["method"] == "vanilla") & (frame["kv_mode"] == "stateful"), "run_id"].dropna()
    }, "cells of the profile are there before, and are shared"
    assert set(frame["command"]) == {"graphflow reproduce"}
    html = (folder / "report.html").read_text()
    for said in ("All methods", "what methods score", "what that costs", "every cell", "llmcompiler *", PLAN):
        assert said in html
    draw = write_pictures(folder, "graphflow report")
    assert draw and "llmcompiler *" in (folder / "report.html").read_text(), "from the tables alone"


def test_the_profiles_that_run_it() -> None:
    also = {name: compose([f"experiment={name}"]).experiment.also for name in ("default", "smoke", "bench", "paper")}
    assert also == {"default": ["main_table"], "smoke": [], "bench": [], "paper": []}
    held = settings("main_table", []).experiment
    made = Counter((cell.overrides[0], cell.overrides[1]) for cell in cells(held))
    assert len(made) == 3 * 5 and set(made.values()) == {2 * len(NAMES) + 1}, "backbones x benchmarks, methods x states"
    encoded = [cell for cell in cells(held) if "kv=differential_int4" in cell.overrides]
    assert len(encoded) == 15 and all("method=graphflow" in cell.overrides for cell in encoded)
    assert main(["reproduce", "experiment.also=[main_tabel]"]) == WRONG


def test_cells_of_a_profile_teach_as_those_of_the_table() -> None:
    own, table = (compose([f"experiment={name}"]).experiment for name in ("default", "main_table"))
    assert own.overrides == table.overrides, "one outcome table and one generator serve both"
    assert set(own.benchmarks) == set(table.benchmarks)


def test_the_leaders_are_cells_of_the_table_with_more_tasks() -> None:
    few, table = (settings(name, []).experiment for name in ("leaders", "main_table"))
    assert few.tasks > table.tasks and few.overrides == table.overrides
    assert (few.backbones, few.benchmarks) == (table.backbones, table.benchmarks)
    assert {cell.overrides[1:4] for cell in cells(few)} < {cell.overrides[1:4] for cell in cells(table)}


def published() -> pd.DataFrame:
    """Rows of two backbones: means and one benchmark, numbers by hand."""
    rows = []
    for backbone in ("qwen-mini", "llama-mini"):
        for place, (method, scripted) in enumerate((("aflow", "aflow_edit"), ("graphflow", None))):
            for benchmark in ("mini-gsm8k", "mini-math", "mean"):
                for mode in ("stateful", "differential"):
                    rows.append(
                        {"backbone": backbone, "benchmark": benchmark, "method": method, "scripted": scripted}
                        | {"kv_mode": mode, "state": "differential (path)" if mode == "differential" else mode}
                        | {"metric": 0.5 + 0.1 * place, "metric_lo": 0.4, "metric_hi": 0.7, "n_tasks": 80}
                        | {"gain": 0.1 - 0.1 * place, "gain_lo": -0.1, "gain_hi": 0.2, "paper_value": None}
                        | {"p50_s": 0.5, "p90_s": 2.0 - place, "p99_s": 3.0, "llm_calls": 2.0}
                        | {"p50_all_s": 0.4, "p90_all_s": 2.5 - place, "p99_all_s": 3.5}
                        | {"prefill_tokens": 1234.0, "reused_tokens": 10.0, "output_tokens": 5.0}
                        | {"op_bytes": 4e6, "text_bytes": 2e6, "run_id": "abc", "commit": "def"}
                        | {"fit_tasks": 64 * (1 - place), "fit_llm_calls": 777, "fit_tokens": 8888}
                    )
    return pd.DataFrame(rows)


def test_encoded_text_has_a_bar_of_its_own() -> None:
    frame = published()
    ours = frame[(frame["method"] == "graphflow") & (frame["kv_mode"] == "differential")]
    encoded = ours.assign(state="differential (path, text int4)", op_bytes=1e6, text_bytes=4e5, metric=0.55)
    plain = {bar["bar"]: bar for bar in bars(frame) if bar["backbone"] == "qwen-mini"}
    held = {bar["bar"]: bar for bar in bars(pd.concat([encoded, frame])) if bar["backbone"] == "qwen-mini"}
    (more,) = held.keys() - plain.keys()
    assert "4-bit text" in more and held[more]["value"] == pytest.approx(6 / 1.4) and held[more]["met"] == "yes"
    assert {name: held[name] for name in plain} == plain, "the others are those of plain differential state"
    worse = {bar["bar"]: bar for bar in bars(pd.concat([encoded.assign(metric=0.45), frame]))}
    assert worse[more]["met"] == "no", "smaller at a lower score does not count"


def test_what_readers_are_shown() -> None:
    scores, costs, others, _ = shown(published())
    assert scores.columns[2:4] == ("gsm8k", "math")
    assert scores.rows[0] == ["aflow *", "stateful", "50", "50", "50.0", "40.0 to 70.0", "+10.0", "-10.0 to +20.0"]
    assert scores.rows[-2][:5] == ["aflow", "the paper, qwen2.5-7b", "89.2", "72.1", "80.7"], (
        "(89.2 + 72.1) / 2 = 80.65"
    )
    assert others.rows[-1][:5] == ["graphflow", "the paper, llama3.1-8b", "", "52.6", ""], "no mean of a part"
    assert "aflow: aflow_edit" in scores.note and "graphflow *" not in {row[0] for row in scores.rows}
    first = dict(zip(costs.columns, costs.rows[0], strict=True))
    assert (first["P50 s"], first["P90 s"], first["P99 s"], first["mean P90"]) == ("0.40", "2.50", "3.50", "2.00")
    assert (first["prefilled"], first["op MB"], first["fit tasks"], first["fit tokens"]) == (
        "1,234",
        "4.0",
        "64",
        "8,888",
    )
    assert [row[3] for row in costs.rows[-2:]] == ["14.06", "12.25"]
    (bars_shown,) = asked(published())
    assert Counter(row[0] for row in bars_shown.rows) == {"qwen-mini": 6, "llama-mini": 6}
    assert all(len(row) == len(sheet.columns) for sheet in (scores, costs, others, bars_shown) for row in sheet.rows)
    console = Console(file=io.StringIO(), width=140)
    console.print(costs.printed())
    assert "14.06" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_page_says_what_is_scripted() -> None:
    house, page = House(), (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    lines = page[page.index("## What the other mini backbones write") :].splitlines()
    rows = {cells[1].strip().strip("`"): cells for line in lines if len(cells := line.split("|")) == 5}
    for name in NAMES[:7]:
        scripted = house.unfitted(compose([f"method={name}", "backbone=qwen-mini"])).scripted
        assert bool(scripted) == (not rows[name][3].strip().startswith("nothing")), name
        assert all(f"`{operation}`" in rows[name][3] for operation in scripted), name
        written = {word for word in rows[name][2].split("`") if word in house.library.operations}
        assert "all of the" in rows[name][2] or written, name


def test_figures_of_percentiles(tmp_path: Path) -> None:
    files = draw_main_table(published(), tmp_path)
    drawn = files[1].with_suffix(".svg").read_text()
    for said in ("qwen-mini", "llama-mini", "AFlow", "P50 to P99", "aflow *", "stateful", "differential (path)"):
        assert said in drawn
    alone = read_methods(tmp_path / "nothing")
    assert not alone.sheets and not alone.figures


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
    rows = [{**row, "state": row["kv_mode"]} for row in rows]
    rows = [{**row, "p90_all_s": 2 * row["p90_s"] if row["method"] == "aflow" else row["p90_s"]} for row in rows]
    found = {row["bar"]: row for row in bars(pd.DataFrame([{**common, **row} for row in rows]))}
    assert len(found) == 6
    best = found["points over the best baseline"]
    assert (best["beside"], best["value"], best["met"]) == ("metagpt", 4.0, "no"), "controls are no baselines"
    assert found["points over AFlow"]["met"] == "yes"
    whole, each = (
        found[f"{name}, % below AFlow's at no lower score"]
        for name in ("P90 of all tasks", "mean of the benchmarks' P90s")
    )
    assert (whole["value"], each["value"]) == (pytest.approx(60), pytest.approx(20)) and each["met"] == "yes"
    assert found["retained KV, times smaller than AFlow's"]["value"] == 5
    assert found["retained operation state, times smaller than AFlow's"]["value"] == 9


def test_faster_and_worse_is_not_met() -> None:
    frame = published()
    frame.loc[frame["method"] == "aflow", ["gain", "gain_lo", "gain_hi"]] = -0.01
    found = {row["bar"]: row for row in bars(frame) if row["backbone"] == "llama-mini"}
    assert found["P90 of all tasks, % below AFlow's at no lower score"]["value"] == pytest.approx(40)
    assert found["P90 of all tasks, % below AFlow's at no lower score"]["met"] == "no"
    assert found["points over the best baseline"]["met"] == "no"
    frame.loc[frame["method"] == "aflow", "gain"] = 0.0
    found = {row["bar"]: row for row in bars(frame) if row["backbone"] == "llama-mini"}
    assert found["P90 of all tasks, % below AFlow's at no lower score"]["met"] == "yes"
    assert found["points over the best baseline"]["met"] == "no", "level is not first"
