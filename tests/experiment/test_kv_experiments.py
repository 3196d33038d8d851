"""Experiments on operation state: each one whole on a tiny random model, and what must hold whatever the model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console

from graphflow.backbone.load import Backbone
from graphflow.cli import WRONG, main
from graphflow.engine.episode import Episode, StepRecord
from graphflow.experiment.compose import compose
from graphflow.experiment.experiments import EXPERIMENTS, experiment
from graphflow.experiment.kv import figures
from graphflow.experiment.kv.bars import BARS, bars
from graphflow.experiment.kv.codecs import equal_divergence
from graphflow.experiment.kv.horizon import chain, lengths
from graphflow.experiment.kv.measures import fidelity, retained, tokens
from graphflow.experiment.kv.similarity import Similarity
from graphflow.experiment.kv.stream import KINDS, Stream, phases_of
from graphflow.experiment.kv.study import names_of
from graphflow.experiment.plan import GridConfig
from graphflow.experiment.plots import look
from graphflow.experiment.serve import House
from graphflow.paths import CONF
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs an experiment on a tiny backbone; the terminal's text is in ``run.shown``."""
    tiny: Backbone = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    places = (f"machine.results_dir={tmp_path / 'results'}", f"machine.runs_dir={tmp_path / 'runs'}")

    def start(name: str, *words: str) -> pd.DataFrame:
        text = io.StringIO()
        frame = experiment(
            name, [*SMALL, *places, *words], f"graphflow experiment {name}", Console(file=text, width=200)
        )
        start.shown = text.getvalue()
        folder = tmp_path / "results" / "kv"
        assert {"command", "commit", "machine", "n_tasks"} <= set(frame.columns)
        assert set(frame["command"]) == {f"graphflow experiment {name}"}
        assert list((folder / "figures").glob("*.svg")) and list((folder / "figures").glob("*.png"))
        return frame

    start.folder = tmp_path / "results" / "kv"
    start.runs = tmp_path / "runs"
    return start


def grid(kv: str, *overrides: str, sweep: str = "") -> str:
    given = ",".join(f"'{word}'" for word in overrides)
    swept = f"'{sweep}'" if sweep else ""
    return f"{{artefact:a,methods:[random],kv:[{kv}],overrides:[{given}],sweeps:[{swept}]}}"


def test_kv_modes(run) -> None:
    grids = f"experiment.grids=[{grid('stateful,stateless,prefix')}]"
    sizes = "experiment.sizes.requests=2"
    words = ("tasks=2", "benchmarks=[mini-hotpotqa]", "engine.fidelity=2", "warmup=0", sizes, grids)
    frame = run("kv_modes", *words)
    own = frame[frame["benchmark"] == "mini-hotpotqa"].set_index("state")
    assert own.loc["stateful", ["difference", "difference_lo", "difference_hi"]].tolist() == [0, 0, 0]
    assert (
        own.loc["stateful", "kl_mean"] < 1e-6 and own.loc["prefix", "kl_mean"] < 1e-6 < own.loc["stateless", "kl_mean"]
    )
    assert (own["bytes_a_task"] * 2 == own["store_bytes"] + own["request_op_bytes"] + own["request_text_bytes"]).all()
    assert own.loc["stateless", "operation_reuse_share"] > 0.5 > own.loc["stateful", "operation_reuse_share"]
    assert set(frame[frame["benchmark"] == "mean"]["state"]) == {"stateful", "stateless", "prefix"}
    before = sorted(run.runs.rglob("episodes.jsonl"))
    times = [file.stat().st_mtime_ns for file in before]
    run("kv_modes", *words)
    assert [file.stat().st_mtime_ns for file in before] == times, "finished runs are not run again"


def test_every_state_has_a_look_of_its_own() -> None:
    states = {names_of(compose([f"kv={file.stem}"]))["state"] for file in (CONF / "kv").glob("*.yaml")}
    assert len({look(state) for state in states}) == len(states) and look("something new") not in map(look, states)


def test_kv_codecs(run) -> None:
    codecs = [
        grid("stateful,stateful_int8"),
        grid(
            "differential_request", "kv.codec=sparse", "kv.allocate=even", "kv.value_bits=32", sweep="kv.density=0.1,1"
        ),
    ]
    words = ("tasks=3", "benchmarks=[mini-hotpotqa]", "engine.fidelity=3", "warmup=0")
    frame = run("kv_codecs", *words, f"experiment.grids=[{','.join(codecs)}]")
    sparse, all_kept = (frame[frame["density"] == density].iloc[0] for density in (0.1, 1.0))
    exact = frame[frame["state"] == "stateful"].iloc[0]
    assert exact["kl_mean"] < 1e-6 and all_kept["kl_mean"] < 1e-6, "keeping all of a residual is exact"
    assert all_kept["greedy_agreement"] == 1
    assert sparse["request_op_bytes"] < all_kept["request_op_bytes"]
    assert sparse["kl_mean"] > all_kept["kl_mean"]
    assert frame["prefill_tokens"].nunique() == 1, "all on the same contexts, and request scope saves no prefill"
    assert (run.folder / "kv_codecs_equal_kl.csv").exists()


def test_a_control_that_served_nothing_is_no_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "save", lambda figure, file: drawn.append(figure) or file)
    common = {"backbone": "b", "kind": "plain", "benchmark": "m", "op_bytes_a_task": 10.0, "kl_mean": 0.1}
    common |= {"greedy_agreement": 1.0, "requests": 1}
    rows = [
        {"label": "own", "control": "none", "fallback_rate": 0.5},
        {"label": "exact", "control": "none", "fallback_rate": 1.0},
        {"label": "zero", "control": "zero", "fallback_rate": 0.5},
        {"label": "other path", "control": "other_path", "fallback_rate": 1.0},
    ]
    figures.draw_codecs(pd.DataFrame([{**common, **row} for row in rows]), tmp_path)
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["own", "exact", "zero"]


def test_similarity(run) -> None:
    frame = run("similarity", "tasks=3", "benchmarks=[mini-hotpotqa]")
    first = frame[frame["layer"] == "0"].set_index(["frame", "side"])["relative_norm"]
    assert first["moved", "K"] < 1e-5 < first["in place", "K"], "the first layer sees no context"
    assert first["moved", "V"] < 1e-5
    shares = frame[[name for name in frame.columns if name.startswith("below_")]]
    assert (shares.diff(axis=1).iloc[:, 1:] >= 0).all().all(), "a higher threshold lets more through"
    positions = pd.read_csv(run.folder / "similarity_positions.csv")
    for side in ("K", "V"):
        assert 0.5 < positions[positions["side"] == side]["energy_share"].to_numpy().sum() < 1 + 1e-5


def test_steady_state(run) -> None:
    budget = 2_000_000
    words = ("tasks=12", "benchmarks=[mini-hotpotqa]", "experiment.sizes.window=4", "kv.min_observations=1")
    frame = run("steady_state", *words, f"experiment.grids=[{grid('no_pruning', f'kv.store_bytes={budget}')}]")
    assert frame["last_episode"].tolist() == [4, 8, 12] and frame["n_tasks"].sum() == 12
    assert (frame["store_bytes_max"] <= budget).all() and set(frame["budget_bytes"]) == {budget}
    assert frame["operation_reuse_share"].iloc[-1] > frame["operation_reuse_share"].iloc[0]
    assert "within the budget" in run.shown
    done = next(iter(run.runs.rglob("done.json")))
    lines = (done.parent / "episodes.jsonl").read_text().splitlines()
    assert len({json.loads(line)["episode"]["task_id"] for line in lines}) == 12
    done.unlink()
    (done.parent / "episodes.jsonl").write_text("\n".join(lines[:8]) + "\n")
    again = run("steady_state", *words, f"experiment.grids=[{grid('no_pruning', f'kv.store_bytes={budget}')}]")
    assert again["n_tasks"].sum() == 12
    assert again["operation_reuse_share"].iloc[-1] >= frame["operation_reuse_share"].iloc[-1], "the store was kept"


def test_pruning(run) -> None:
    words = ("tasks=16", "benchmarks=[mini-hotpotqa,mini-math]", "experiment.sizes.window=4", "kv.min_observations=1")
    grids = f"experiment.grids=[{grid('differential', 'kv.coverage=0.5')},{grid('no_pruning')}]"
    frame = run("pruning", *words, grids)
    assert frame["phase"].tolist() == [1, 2, 1, 2]
    windows = pd.read_csv(run.folder / "pruning_stream.csv")
    assert not windows.duplicated(["label", "last_episode"]).any() and windows["n_tasks"].sum() == 2 * 16
    assert frame["benchmark"].tolist() == ["mini-hotpotqa", "mini-math"] * 2
    assert frame["episodes_to_reuse"].between(1, 8).all()
    assert (frame["residual_bytes"] >= 0).all() and (frame["base_bytes"] > 0).all()
    by_state = frame[frame["phase"] == 2].set_index("kv_mode")
    assert by_state.loc["differential", "fallback_rate"] >= by_state.loc["no_pruning", "fallback_rate"]


def test_long_horizon(run) -> None:
    words = ("tasks=2", "engine.fidelity=2", "experiment.sizes.longest=8", "warmup=0", "kv.min_observations=1")
    frame = run("long_horizon", *words, f"experiment.grids=[{grid('stateful,stateful_int4,stateless')}]")
    assert frame.groupby("state")["length"].apply(list).tolist() == [[4, 8]] * 3
    for state, rows in frame.groupby("state"):
        text = rows["request_text_bytes"].tolist()
        assert text[0] < text[1], f"{state}: a longer chain writes more"
    ends = frame.set_index(["state", "length"])["kl_at_end"]
    assert ends["stateful", 8] < 1e-6 < ends["stateless", 8]


def test_chains() -> None:
    assert lengths(64) == [4, 8, 16, 32, 64] and lengths(20) == [4, 8, 16]
    assert [step.op for step in chain(4).steps] == ["generate_cot", "review", "revise", "review"]
    assert chain(4).steps == chain(8).steps[:4]


def test_measures_by_hand() -> None:
    """Two tasks; KL .1 and .3 in one, .4 in the other: mean of means .3. Tool steps do not count."""
    steps = [
        StepRecord("a", "cot", prefill_tokens=30, reused_tokens=10, operation_tokens=20, operation_reused=10, kl=0.1),
        StepRecord("b", "judge", prefill_tokens=10, reused_tokens=30, operation_tokens=20, operation_reused=20, kl=0.3),
    ]
    steps[0].agrees, steps[1].agrees = True, False
    other = StepRecord("a", "judge", kl=0.4, agrees=True)
    episodes = [
        Episode("t1", "b", "w", "f", steps=[*steps, StepRecord("c", "vote")], op_bytes=10, dynamic_bytes=6),
        Episode("t2", "b", "w", "f", steps=[other], op_bytes=30, dynamic_bytes=2),
    ]
    found = fidelity(episodes, {"judge"})
    assert found["kl_mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert found["greedy_agreement"] == pytest.approx((0.5 + 1) / 2) and found["judge_agreement"] == 0.5
    assert fidelity([Episode("t", "b", "w", "f")], ())["kl_mean"] is None
    shares = tokens(episodes)
    assert (shares["reuse_share"], shares["operation_reuse_share"]) == (0.5, 0.75)
    assert shares["never_prefilled_share"] == shares["operation_reused"] / (
        shares["prefill_tokens"] + shares["operation_reused"]
    )
    kept = retained(episodes, 100, requests=50)
    assert (kept["op_bytes_a_task"], kept["bytes_a_task"]) == (100 / 50 + 20, 100 / 50 + 24)


def test_similarity_by_hand() -> None:
    """A base of ones; two requests add .5 and 1.5 to it: the mean 1 explains 1 - .5/1.25 (over n - 1)."""
    base, found = torch.ones(1, 2, 1, 4, 2), Similarity(1)
    for shift in (0.5, 1.5):
        found.add("task", ("op", ()), base, base + shift, base + 3)
    assert found.energies()[2] == 2
    assert [found.explained(slice(None), side) for side in (0, 1)] == pytest.approx([1 - 0.5 / 1.25] * 2)
    row = next(row for row in found.rows() if row["frame"] == "moved" and row["layer"] == "all")
    assert row["relative_norm"] == pytest.approx(1.0) and row["below_1"] == 0.5 and row["below_0.5"] == 0.0
    assert (found.positions[:, :4] / 2).flatten().tolist() == pytest.approx([0.25] * 8)


def test_equal_divergence_by_hand() -> None:
    common = {"backbone": "b", "benchmark": "m", "n_tasks": 3, "control": "none", "exact_rows": None}
    rival = {"kv_mode": "stateful_int8", "state": "stateful_int8", "label": "stateful_int8", "density": None}
    ours = {"kv_mode": "differential", "state": "d", "label": "d sparse"}
    frame = pd.DataFrame(
        [
            {**common, **rival, "kl_mean": 0.08, "kl_hi": 0.1, "op_bytes_a_task": 100.0},
            {**common, **ours, "density": 0.1, "kl_mean": 0.2, "op_bytes_a_task": 10.0},  # smaller, not as close
            {**common, **ours, "density": 0.25, "kl_mean": 0.1, "op_bytes_a_task": 25.0},
            {**common, **ours, "density": 0.5, "kl_mean": 0.0, "op_bytes_a_task": 50.0},
        ]
    )
    (row,) = equal_divergence(frame)
    assert (row["ours"], row["times_smaller"]) == ("d sparse, density 0.25", 4.0)
    (row,) = equal_divergence(frame.assign(exact_rows=[None, None, 0.02, None]))
    assert row["ours"] == "d sparse, density 0.25, rows 0.02"


def test_phases_by_hand() -> None:
    """Reuse 0, .5, 1, 1 settles at 1; 90 % of it is reached with the third window of 10."""
    names = {"backbone": "b", "label": "l", "state": "s", "kv_mode": "m", "kv_scope": "path", "coverage": 0.9}
    names |= {"phase": 1, "benchmark": "x", "run_id": "r", "n_tasks": 10, "store_bytes": 5}
    names |= {f"{kind}_bytes": 1 for kind in KINDS}
    values = dict.fromkeys(("own_op_bytes_a_task", "fallback_rate", "reuse_share", "p90_s", "metric"), 1.0)
    windows = [
        {**names, **values, "last_episode": 10 * (i + 1), "operation_reuse_share": reuse}
        for i, reuse in enumerate((0.0, 0.5, 1.0, 1.0))
    ]
    (row,) = phases_of(pd.DataFrame(windows))
    assert (row["episodes_to_reuse"], row["n_tasks"], row["operation_reuse_share"]) == (30, 20, 1.0)
    stream = Stream((("a",), ("b",)), tasks=10, window=2)
    assert [stream.phase_of(i) for i in (0, 4, 5, 9)] == [1, 1, 2, 2]


def test_sweeps_multiply() -> None:
    assert GridConfig().swept() == [()]
    assert GridConfig(sweeps=["kv.codec=sparse,rows", "kv.density=0.1"]).swept() == [
        ("kv.codec=sparse", "kv.density=0.1"),
        ("kv.codec=rows", "kv.density=0.1"),
    ]


def test_every_experiment_has_its_settings() -> None:
    for name in EXPERIMENTS:
        assert compose([f"experiment={name}"]).experiment.name == name


def test_paths_that_no_workflow_takes_are_not_stored() -> None:
    house = House()
    allowed = house.allowed
    assert callable(allowed)
    for workflow in house.workflows.values():  # a workflow's own ops, in order of its ancestors, are always allowed
        for step in workflow.steps:
            for before in workflow.ancestors(step.id):
                if before != "task":
                    assert allowed(step.op, (workflow.step(before).op,)), (workflow.name, before, step.id)
    assert allowed("generate_cot", ())
    assert not allowed("decompose", ("ensemble_select",))
    assert allowed("an_operation_of_a_vendor", ("generate_cot",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["experiment"], "unknown experiment"),
        (["experiment", "kv_mode"], "kv_modes"),
        (["experiment", "pruning", "benchmarks=[mini-math]", "tracking=none"], "2 or more"),
        (["reproduce", "profile=pruning"], "unknown profile"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, capsys) -> None:
    assert main(words) == WRONG
    assert said in capsys.readouterr().err


def test_bars_by_hand() -> None:
    common = {"backbone": "b-reuse", "kind": "reuse", "method": "best_fixed"}
    means = pd.DataFrame(
        [
            {**common, "state": "stateful", "op_bytes_a_task": 100.0, "bytes_a_task": 100.0},
            {
                **common,
                "state": "differential (path)",
                "difference": -0.004,
                "difference_lo": -0.02,
                "difference_hi": 0.01,
                "greedy_agreement": 0.89,
                "op_bytes_a_task": 5.0,
                "bytes_a_task": 80.0,
                "never_prefilled_share": 0.6,
            },
            {**common, "method": "random", "state": "differential (path)", "greedy_agreement": 1.0},
            {**common, "method": "random", "state": "differential (request)", "judge_agreement": 0.98},
        ]
    )
    found = {row["bar"]: row for row in bars(means)}
    points = found["path: points against stateful"]
    assert (points["value"], points["lo"], points["hi"]) == pytest.approx((-0.4, -2.0, 1.0))
    assert (points["least"], points["met"]) == (-0.5, "yes"), "what is asked of the reuse kind"
    assert found["path: greedy agreement, %"]["met"] == "no"
    smaller = found["path: operation state, times smaller"]
    assert (smaller["value"], smaller["met"]) == (20, "yes")
    assert found["request: greedy agreement, %"]["met"] == "not measured"
    assert found["request: judge agreement, %"]["met"] == "yes", "operations that judge stand in any workflow"
    assert len(found) == len({bar.text for bar in BARS})
    assert {row["least"] for row in bars(means.assign(kind="plain")) if "points" in row["bar"]} == {-1.0, -3.0}
