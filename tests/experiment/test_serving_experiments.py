"""The experiments on serving, each whole on a tiny random model."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from graphflow.experiment.compose import ConfigError
from graphflow.experiment.experiments import experiment
from graphflow.experiment.serve import House
from graphflow.experiment.serving import figures, timeline
from graphflow.experiment.serving.continuous import Continuous
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone

MIXED = (
    "benchmarks=[mini-gsm8k,mini-hotpotqa]",
    "benchmark.train_size=4",
    "benchmark.test_size=4",
    "warmup=2",
)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs an experiment on tiny backbones; what the terminal showed is the second value. Figures are not written."""
    tiny = {shared: tiny_backbone(shared=shared) for shared in (False, True)}
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny[config.backbone.attention == "shared"])

    def save(figure: Figure, stem: Path) -> Path:
        plt.close(figure)
        stem.with_suffix(".png").touch()
        return stem.with_suffix(".png")

    for module in (figures, timeline):
        monkeypatch.setattr(module, "save", save)
    monkeypatch.setattr(Figure, "tight_layout", lambda self: None)

    def run(name: str, *words: str) -> tuple[pd.DataFrame, str]:
        text = io.StringIO()
        places = (f"machine.results_dir={tmp_path / 'results'}", f"machine.runs_dir={tmp_path / 'runs'}")
        frame = experiment(
            name, [*SMALL, *MIXED, *places, *words], f"graphflow experiment {name}", Console(file=text, width=200)
        )
        return frame, text.getvalue()

    run.folder = tmp_path / "results" / "serving"
    run.runs = tmp_path / "runs"
    return run


def grid(artefact: str, kv: str, flights: str, *overrides: str) -> str:
    given = ",".join(f"'{word}'" for word in overrides)
    return f"{{artefact:{artefact},methods:[random],kv:[{kv}],concurrency:[{flights}],overrides:[{given}]}}"


def test_concurrency(start, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self, concurrency: int, longest: int) -> None:
        raise RuntimeError("no room for it")

    monkeypatch.setattr(Continuous, "start", refuse)
    grids = (
        grid("generate", "stateful", "1,3"),
        grid("continuous", "stateful", "3"),
        grid("engine", "stateful,prefix,differential", "3"),
        grid("engine", "differential", "3", "backbone.attention=shared"),
    )
    words = ("tasks=4", "experiment.sizes={repeats:2,alone:2,continuous:4}", f"experiment.grids=[{','.join(grids)}]")
    frame, shown = start("concurrency", *words)
    assert len(frame) == 2 * 7
    refused = frame[frame["system"] == "continuous"]
    assert refused["failure"].tolist() == ["RuntimeError: no room for it"] * 2 and (refused["n_tasks"] == 0).all()
    assert "no room for it" in shown
    ran = frame[frame["failure"].isna()].set_index(["label", "in_flight", "repeat"])
    assert ran["n_tasks"].tolist() == [2, 4, 4, 4, 4, 4] * 2, "fewer with one in flight, and the table says so"
    assert (ran["tasks_asked"] == 4).all()
    same = ran[ran["kv_mode"].isin(["stateful", "prefix"]) | (ran["system"] == "generate")]
    assert (same[["equal_answers", "equal_outputs"]] == 1).all().all() and len(same) == 8
    assert set(ran["equal_to"]) == {"HF generate, padded x1"}
    for name in ("tasks_s", "tokens_s", "p50_s", "p90_s", "p99_s", "ttft_s", "step_ttft_s", "resident_mb"):
        assert (ran[name] > 0).all(), name
    assert (ran["p50_s"] <= ran["p99_s"]).all() and (ran["ttft_s"] < ran["p99_s"]).all()
    operation = ran["operation_mb"].groupby("label").max()
    assert operation["HF generate, padded"] == 0 < operation["stateful, dense"]
    assert (ran["operation_mb"] <= ran["resident_mb"]).all()
    beside = pd.read_csv(start.folder / "concurrency_ratios.csv").set_index(["label", "beside", "measure"])
    tasks_s = [
        ran.loc[("stateful, dense", 3, r), "tasks_s"] / ran.loc[("HF generate, padded", 3, r), "tasks_s"]
        for r in (1, 2)
    ]
    found = beside.loc[("stateful, dense", "HF generate, padded", "tasks_s")]
    assert found["measured"] == pytest.approx(sum(tasks_s) / 2, rel=1e-4) and found["repeats"] == 2
    held = pd.read_csv(start.folder / "concurrency_bars.csv")
    assert set(held["label"]) == {f"differential (path), {kind}" for kind in ("dense", "shared")} | {
        "differential (path)"
    }
    assert (held["met"] == "not measured").all() and "Bars" in shown
    assert list((start.folder / "figures").glob("concurrency_*.png"))
    before = {file: file.stat().st_mtime_ns for file in start.runs.rglob("episodes.jsonl")}
    assert len(before) == 12
    with pytest.raises(ConfigError, match=r"artefact must be one of engine, generate, continuous, got 'a'"):
        start("concurrency", *words[:2], f"experiment.grids=[{grid('a', 'stateful', '1')}]")
    with pytest.raises(ConfigError, match="must be dense in grid generate"):
        start(
            "concurrency",
            *words[:2],
            f"experiment.grids=[{grid('generate', 'stateful', '1', 'backbone.attention=shared')}]",
        )
    start("concurrency", *words)
    assert {file: file.stat().st_mtime_ns for file in before} == before, "finished runs are not run again"


def test_scheduling(start) -> None:
    # Many times what is served: nobody waits long for an arrival here.
    sweeps = "'engine.arrivals=poisson,closed','engine.scheduler=critical_path,fifo'"
    grids = f"experiment.grids=[{{artefact:s,methods:[random],kv:[differential],sweeps:[{sweeps}]}}]"
    words = (
        "tasks=4",
        "experiment.sizes={repeats:2,load:2000,shown:3}",
        "engine.concurrency=2",
        "benchmarks=[mini-hotpotqa]",
        grids,
    )
    frame, _ = start("scheduling", *words)
    ways = frame[frame["repeat"] == 1][["arrivals", "scheduler"]].to_numpy().tolist()
    assert sorted(map(tuple, ways)) == sorted((a, s) for a in ("closed", "poisson") for s in ("fifo", "critical_path"))
    assert ways[0] == ["closed", "fifo"], "the yardstick comes first"
    open_loop = frame[frame["arrivals"] == "poisson"]
    assert set(open_loop["rate"]) == {float(f"{frame['tasks_s'].iloc[0] * 20:.3g}")}, "of the closed loop's"
    assert frame[frame["arrivals"] == "closed"]["rate"].isna().all()
    assert (frame[frame["arrivals"] == "closed"]["waited_s"] == 0).all()
    beside = pd.read_csv(start.folder / "scheduling_ratios.csv")
    assert set(beside["scheduler"]) == {"critical_path"} and (beside["repeats"] == 2).all()
    drawn = {file.stem for file in (start.folder / "figures").glob("*.png")}
    assert "timeline" in drawn and any(stem.startswith("scheduling_") for stem in drawn)
    with pytest.raises(ConfigError, match=r"engine.arrivals=closed with engine.scheduler=fifo"):
        start(
            "scheduling",
            *words[:3],
            "experiment.grids=[{artefact:s,methods:[random],kv:[stateful],overrides:['engine.scheduler=critical_path']}]",
        )
