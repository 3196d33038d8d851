"""The experiment on choosing workflows, whole on a tiny random model, and its marks by hand."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from graphflow.engine.episode import Task
from graphflow.experiment.choosing import figures
from graphflow.experiment.choosing.exam import marks, measured, oracle
from graphflow.experiment.choosing.generator import single
from graphflow.experiment.choosing.linear import Linear, fit, left_out_score
from graphflow.experiment.choosing.structure import ENOUGH, Structure
from graphflow.experiment.experiments import experiment
from graphflow.experiment.serve import House
from graphflow.generator.features import BUNDLED, FeatureConfig, build_encoder
from graphflow.generator.outcomes import OutcomeTable
from graphflow.methods.best_fixed import BestFixed
from tests.experiment.small import SMALL
from tests.generator.small import COT, LIBRARY, RUN, row
from tests.tiny import tiny_backbone


def outcomes(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """Rows of task, workflow and score; the task's first letter is its benchmark."""
    return pd.DataFrame(
        {
            "task_id": task,
            "fingerprint": flow,
            "workflow": flow,
            "metric": score,
            "benchmark": task[0],
            "tokens": 100,
            "llm_calls": 2,
            "kv_bytes": 10,
            "latency_s": 0.5,
        }
        for task, flow, score in rows
    )


EVERY = outcomes(
    *[("a1", "x", 1.0), ("a1", "y", 0.0), ("a2", "x", 0.0), ("a2", "y", 1.0)],
    *[("a3", "x", 1.0), ("a3", "y", 0.0), ("b1", "z", 0.0), ("b1", "w", 0.0)],
)


def test_the_oracle_and_the_single_workflow_by_hand() -> None:
    assert oracle(EVERY) == {"a1": 1.0, "a2": 1.0, "a3": 1.0, "b1": 0.0}
    # x scores 2 of the 3 tasks of a, and nothing on b, which it was not made for.
    alone = single(EVERY).set_index("task_id")["metric"]
    assert alone.to_dict() == {"a1": 1.0, "a2": 0.0, "a3": 1.0, "b1": 0.0}


def test_marks_by_hand() -> None:
    fixed = outcomes(("a1", "x", 1.0), ("a2", "x", 0.0), ("a3", "x", 0.0), ("b1", "z", 0.0))
    better = outcomes(("a1", "x", 1.0), ("a2", "y", 1.0), ("a3", "y", 0.0), ("b1", "z", 0.0))
    found = marks(better, fixed, oracle(EVERY))
    assert (found["metric"], found["gain"], found["gap_closed"]) == (0.5, 0.25, 0.5)
    assert (found["tokens"], found["llm_calls"], found["p90_s"], found["n_tasks"]) == (100, 2, 0.5, 4)
    assert marks(fixed, fixed, None)["gap_closed"] is None


def test_seeds_are_averaged_task_by_task_and_new_workflows_told_apart() -> None:
    fixed = outcomes(("a1", "x", 0.0), ("b1", "z", 0.0))
    seeds = [outcomes(("a1", "x", 1.0), ("b1", "n", 1.0)), outcomes(("a1", "x", 0.0), ("b1", "z", 0.0))]
    mean, first, second = measured(seeds, fixed, None, {"x", "z"})
    assert (mean["benchmark"], first["benchmark"], second["benchmark"]) == ("mean", "a", "b")
    assert (mean["metric"], mean["n_tasks"], mean["seeds"]) == (0.5, 2, 2)
    assert mean["metric_sd"] == pytest.approx(2**-0.5)
    assert (mean["new_share"], mean["new_metric"], first["new_metric"]) == (0.25, 1.0, None)


def test_what_family_and_level_say_by_hand() -> None:
    """Of family f, level 1 takes COT and level 2 takes RUN; level 3 has too few tasks."""
    table, known = OutcomeTable(), {}
    for level, count, best in ((1, ENOUGH, COT), (2, ENOUGH + 1, RUN), (3, ENOUGH - 1, COT)):
        for index in range(count):
            task = Task(f"{level}-{index}", "b", "gsm8k", "x", level=level, family="f")
            known[task.id] = task
            for workflow in (COT, RUN):
                table.add(row(task, workflow, float(workflow is best)), workflow)
    fixed = BestFixed(LIBRARY, {flow.name: flow for flow in (COT, RUN)})
    fixed.fit(table)
    picks = Structure(table, known, fixed)
    tasks = [Task("new", "b", "gsm8k", "x", level=level, family="f") for level in (1, 2, 3)]
    tasks.append(Task("new", "b", "gsm8k", "x", level=2, family="another"))
    assert picks.groups == 2
    assert picks.build_many(tasks) == [COT, RUN, COT, COT], "COT is best on 15 of 24"


def test_a_linear_map_finds_what_a_word_says() -> None:
    """Tasks with the word "count" take RUN, others COT; half of what is known of each has no other word in common."""
    table = OutcomeTable()
    texts = [f"{'count' if index % 2 else 'guess'} item number {index} of the list" for index in range(40)]
    for index, text in enumerate(texts):
        task = Task(str(index), "b", "gsm8k", text)
        for workflow in (COT, RUN):
            table.add(row(task, workflow, float((workflow is RUN) == bool(index % 2))), workflow)
    fixed = BestFixed(LIBRARY, {flow.name: flow for flow in (COT, RUN)})
    fixed.fit(table)
    linear = Linear(table, build_encoder(FeatureConfig()), fixed)
    tasks = [Task("new", "b", "gsm8k", f"{word} what is there") for word in ("count", "guess")]
    assert linear.build_many(tasks) == [RUN, COT]
    elsewhere = Task("new", "c", "gsm8k", "count what is there")
    assert linear.build_many([elsewhere]) == [fixed.build(elsewhere)], "a benchmark that it knows nothing of"


def test_ridge_regression_by_hand() -> None:
    """One feature, two workflows: the second is 1 better where the feature is there, and not at all elsewhere."""
    features = torch.tensor([[1.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    metric = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    weights, mean = fit(features, metric, 2.0)
    assert mean.tolist() == [-0.25, 0.25]
    # x'(y - mean) / (x'x + ridge) = 2 * 0.25 / (2 + 2)
    torch.testing.assert_close(weights, torch.tensor([[-0.125, 0.125]], dtype=torch.float64))
    assert left_out_score(features.repeat(5, 1), metric.repeat(5, 1), 0.1) == 0.75


@pytest.mark.slow
def test_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    drawn: list[Figure] = []

    def save(figure: Figure, stem: Path) -> Path:
        drawn.append(figure)
        plt.close(figure)
        return stem.with_suffix(".png")

    monkeypatch.setattr(figures, "save", save)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == BUNDLED else real(name, *more))
    reward = "{artefact:reward,kv:[stateful],sweeps:['generator.reward.tokens=0,1']}"
    kinds = "{artefact:objective,kv:[stateful],sweeps:['generator.objective.kind=expected,best']}"
    features = "{artefact:features,kv:[stateful],sweeps:['generator.features.kind=hashing,backbone,minilm']}"
    words = (
        f"experiment.grids=[{kinds},{features},{reward}]",
        "experiment.sizes={seeds:2,update:1}",
        "benchmarks=[mini-gsm8k,mini-hotpotqa]",
        "fit.benchmarks=[mini-gsm8k,mini-hotpotqa]",
        "fit.train_tasks=6",
        "benchmark.train_size=6",
        "generator.epochs=2",
        "tasks=2",
        f"machine.results_dir={tmp_path / 'results'}",
        f"machine.runs_dir={tmp_path / 'runs'}",
    )
    text = Console(file=io.StringIO(), width=200)
    frame = experiment("generator", [*SMALL, *words], "graphflow experiment generator", text)
    said = "features minilm: left out, the extra minilm is not installed"
    assert said in str(text.file.getvalue())
    means = frame[frame["benchmark"] == "mean"].set_index(["factor", "setting", "split"]).sort_index()
    own = frame[frame["factor"] != "left out"]
    assert len(own) == 3 * (own["benchmark"] == "mean").sum(), "two benchmarks and their mean"
    assert set(means.index.get_level_values("setting")) == {
        *("best fixed", "best single workflow", "retrieve_top1", "best by family and level", "random", "oracle"),
        "linear on the text",
        *("gsm8k", "gsm8k, nearest", "hotpotqa", "hotpotqa, nearest"),
        *("before", "merged", "1 epochs more", "trained anew"),
        *("expected", "best", "hashing", "backbone", "tokens=0", "tokens=1"),
    }
    test = means.xs("test", level="split")["metric"]
    assert test["reference", "oracle"] >= test["reference", "best fixed"] >= test["reference", "best single workflow"]
    assert (means.loc["reference", "best fixed"]["gain"] == 0).all()
    assert len(drawn) == 2 and (tmp_path / "results" / "generator" / "generator.csv").exists()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs").rglob("*.parquet")}
    again = experiment("generator", [*SMALL, *words], "graphflow experiment generator", text)
    assert before == {file: file.stat().st_mtime_ns for file in before}, "nothing is executed twice"
    pd.testing.assert_frame_equal(frame.drop(columns="p90_s"), again.drop(columns="p90_s"))
