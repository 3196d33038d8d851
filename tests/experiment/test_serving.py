"""Serving many workflows at once: rivals answer as exact state does, and ratios, bars and pictures by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, StepRecord
from graphflow.engine.tools import ToolBox
from graphflow.experiment.serve import House
from graphflow.experiment.serving.bars import BARS, bars, paired, ratios
from graphflow.experiment.serving.concurrency import equal
from graphflow.experiment.serving.continuous import Continuous
from graphflow.experiment.serving.rival import Generate, Rival
from graphflow.experiment.serving.timeline import draw_timeline, lanes, palette
from graphflow.experiment.serving.workload import FLOWS
from graphflow.kv import KVConfig
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Step, Workflow
from tests.engine.serving import LIBRARY, TASKS, outputs, serve
from tests.tiny import tiny_backbone

LIMITS = {"write": 9, "check": 3, "fix": 6, "ensemble_select": 2}
LIMITED = Library(
    op if op.name not in LIMITS else type(op)(**{**vars(op), "max_tokens": LIMITS[op.name]}) for op in LIBRARY.values()
)
FORKED = Workflow(
    "forked",
    ("gsm8k",),
    (
        Step("plan", "check", ("task",)),
        Step("left", "write", ("plan",)),
        Step("right", "fix", ("plan",)),
        Step("run", "run_python", ("right",)),
        Step("best", "ensemble_select", ("left", "run")),
        Step("end", "check", ("best",)),
    ),
    "end",
)


def rival(server, backbone, flight, tasks=TASKS, library=LIMITED):
    executor = Rival(server, backbone, library, EngineConfig(concurrency=flight, kv_dtype="float32"), ToolBox())
    episodes = executor.run(tasks, lambda arriving: [FORKED] * len(arriving))
    return sorted(episodes, key=lambda episode: episode.task_id), executor


@pytest.fixture
def limited(monkeypatch):
    monkeypatch.setattr("tests.engine.serving.LIBRARY", LIMITED)


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2"])
def test_rivals_write_what_exact_state_writes(family, limited):
    """Tools, a fork, a join and a selection; two steps with other limits in one batch; ragged prompts."""
    backbone = tiny_backbone(family)
    exact, _ = serve(backbone, FORKED, KVConfig("stateful"), fidelity=0)
    assert {len(e.steps) for e in exact} == {7}
    lengths = {step.op: step.output_tokens for e in exact for step in e.steps if step.output_tokens}
    assert lengths["write"] > lengths["fix"] > lengths["check"], "limits are reached, each its own"
    for flight in (1, 3):
        episodes, executor = rival(Generate, backbone, flight)
        assert outputs(episodes) == outputs(exact), (family, flight)
        assert [e.answer for e in episodes] == [e.answer for e in exact]
        assert executor.peak_bytes and not executor.peak_operation_bytes
    for own, other in zip(episodes, exact, strict=True):
        steps = {step.step: step for step in other.steps}
        for step in own.steps[1:]:
            asked = steps[step.step]
            assert step.prefill_tokens == asked.prefill_tokens + asked.reused_tokens, "the whole text, every time"
            assert step.reused_tokens == 0 and step.path == asked.path
            assert not step.output_tokens or 0 < step.first_token_s < step.end_s - step.start_s


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_continuous_batching_writes_what_exact_state_writes(family, limited):
    backbone = tiny_backbone(family)
    exact, _ = serve(backbone, FORKED, KVConfig("stateful"), fidelity=0)
    before = backbone.model.config._attn_implementation
    episodes, executor = rival(Continuous, backbone, 3)
    assert outputs(episodes) == outputs(exact)
    assert executor.setup_s > 0 and executor.peak_bytes > 0
    assert all(step.first_token_s > 0 for e in episodes for step in e.steps if step.output_tokens)
    assert backbone.model.config._attn_implementation == before, "the model is as it was"


def test_one_by_one_holds_one_request(limited):
    backbone = tiny_backbone()
    _, alone = rival(Generate, backbone, 1)
    _, three = rival(Generate, backbone, 3)
    per_token = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
    longest = max(s.prefill_tokens + s.output_tokens - 1 for e in rival(Generate, backbone, 1)[0] for s in e.steps)
    assert alone.peak_bytes == longest * per_token
    assert three.peak_bytes > alone.peak_bytes


def test_a_rival_that_fails_says_why(limited, monkeypatch):
    monkeypatch.setattr(Continuous, "join", lambda self, requests, keep=False: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rival(Continuous, tiny_backbone(), 2)


def test_fixed_workflows_are_greedy_and_have_one_request_a_task():
    house = House()
    for kind, name in FLOWS.items():
        flow = house.workflows[name]
        assert kind in flow.kinds
        for step in flow.steps:
            operation = house.library[step.op]
            assert step.samples == 1 and (operation.kind is not Kind.LLM or operation.temperature == 0)


def row(label, flight, repeat, tasks_s, **more):
    system = {"HF generate, padded": "generate", "HF continuous batching": "continuous"}.get(label, "engine")
    mode = label.split(" ")[0].removesuffix(",") if system == "engine" else ""
    same = {"backbone": "b", "n_tasks": 9, "tokens_s": 1.0, "p90_s": 1.0, "resident_mb": 1.0, "operation_mb": 1.0}
    return {
        **same,
        "label": label,
        "system": system,
        "kv_mode": mode,
        "in_flight": flight,
        "repeat": repeat,
        "tasks_s": tasks_s,
        **more,
    }


OURS = "differential (path), dense"


def test_ratios_are_of_the_same_repeat():
    """Ours 6 and 9, theirs 2 and 4: 3 and 2.25, median 2.625; a repeat that only one has does not count."""
    rows = [row(OURS, 32, 1, 6.0), row(OURS, 32, 2, 9.0), row(OURS, 32, 3, 50.0)]
    rows += [row("HF generate, padded", 32, 1, 2.0), row("HF generate, padded", 32, 2, 4.0)]
    frame = pd.DataFrame(rows)
    assert paired(frame, "b", "tasks_s", (OURS, 32), ("HF generate, padded", 32)) == [3.0, 2.25]
    found = pd.DataFrame(ratios(frame)).set_index("measure").loc["tasks_s"]
    assert found[["label", "beside", "in_flight", "repeats"]].tolist() == [OURS, "HF generate, padded", 32, 2]
    assert found[["measured", "lowest", "highest"]].tolist() == [2.625, 2.25, 3.0]


def test_bars_by_hand():
    rows = [
        row(OURS, 1, 1, 2.0),
        row(OURS, 10, 1, 7.0, operation_mb=10.0),
        row(OURS, 32, 1, 8.0, p90_s=2.0),
        row(OURS, 50, 1, 8.0, operation_mb=11.5, resident_mb=20.0),
        row("stateful, dense", 50, 1, 8.0, resident_mb=80.0),
        row("HF generate, padded", 32, 1, 5.0, p90_s=2.8),
    ]
    found = {item["bar"]: item for item in bars(pd.DataFrame(rows))}
    told = [(found[bar.name]["measured"], found[bar.name]["met"]) for bar in BARS]
    assert told == [
        (pytest.approx(1.15), "no"),
        (4.0, "yes"),
        (4.0, "yes"),
        (1.6, "yes"),
        (None, "not measured"),
        (pytest.approx(1.4), "no"),
    ]
    assert len(found) == len(BARS), "without a shared run there is nothing to say of attention"
    shared = [row(OURS.replace("dense", "shared"), flight, 1, tasks_s) for flight, tasks_s in ((8, 3.0), (32, 8.0))]
    both = bars(pd.DataFrame([*rows, row(OURS, 8, 1, 3.0), *shared]))
    last = [(item["label"], item["measured"], item["met"]) for item in both[-2:]]
    assert last == [("differential (path)", 1.0, "yes"), ("differential (path)", 1.0, "no")], "faster at 32, not equal"


def test_equal_answers_are_of_tasks_that_both_ran():
    ours = {"a": ("1", ["x"]), "b": ("2", ["y"]), "c": ("3", [])}
    theirs = {"a": ("1", ["x"]), "b": ("2", ["other"])}
    assert equal(ours, theirs) == {"equal_answers": 1.0, "equal_outputs": 0.5}


def step(op: str, start: float, end: float) -> StepRecord:
    return StepRecord(op, op, start_s=start, end_s=end)


def test_lanes_by_hand():
    """b begins while a runs, c when a is done, d while b and c run."""
    steps = [step("a", 0, 2), step("c", 2, 4), step("b", 1, 4), step("d", 3, 5)]
    assert lanes(steps) == [0, 0, 1, 2]
    assert lanes([]) == []


def test_colours_go_to_what_takes_the_most_time():
    colours = palette([step("b", 0, 2), step("a", 0, 1.5), step("a", 3, 4), step("task", 0, 9), step("c", 0, 0)])
    assert list(colours) == ["a", "b", "c"] and len(set(colours.values())) == 3
    assert len(set(palette([step(f"op{place}", 0, 1) for place in range(16)]).values())) == 16


def test_timeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.barh", lambda self, y, width, **more: drawn.append((y, width, more["left"]))
    )
    one = Episode("one", "b", "w", "f", steps=[step("task", 0, 1), step("a", 1, 3)], latency_s=3.0)
    two = Episode("two", "b", "w", "f", steps=[step("a", 2, 3), step("b", 2, 4)], latency_s=4.0)
    file = draw_timeline([two, one], {"one": 5.0, "two": 7.0}, 10, "t", tmp_path)
    assert file.exists() and file.with_suffix(".svg").exists()
    assert drawn[:2] == [(0, 3.0, 2.0), (0.0, 2, 3.0)], "one arrives at 2, its step begins at 3; its text is not drawn"
    assert drawn[2:] == [(1, 4.0, 3.0), (pytest.approx(0.8), 1, 5.0), (pytest.approx(1.2), 2, 5.0)]


def test_tasks_take_turns():
    from graphflow.experiment.compose import ConfigError
    from graphflow.experiment.serving.workload import mixed

    class Fake:
        def __init__(self, name: str, most: int) -> None:
            self.name, self.most = name, most

        def examples(self, split, limit):
            return [f"{self.name}{i}" for i in range(min(limit, self.most))]

    own = {"a": Fake("a", 9), "b": Fake("b", 9)}
    assert mixed(own, "test", 5) == ["a0", "b0", "a1", "b1", "a2"]
    with pytest.raises(ConfigError, match="needs 3 test tasks of b, which has 2"):
        mixed({"a": Fake("a", 9), "b": Fake("b", 2)}, "test", 5)
