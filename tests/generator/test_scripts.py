"""Scripts around the generator: what they ask for, what training tracks, and how it executes fresh workflows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from graphflow.benchmarks import Benchmark, BenchmarkConfig, Example
from graphflow.engine.episode import Episode, Task
from graphflow.experiment.fit import Fresh
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.objectives import ObjectiveConfig, ObjectiveKind
from graphflow.generator.outcomes import OutcomeTable
from graphflow.paths import CONF, ROOT
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import Workflow
from tests.generator.small import COT, RUN, VOTE, row, word_task
from tests.test_repository import load

SCRIPT = load(ROOT / "scripts" / "train_generator.py")


class Words(Benchmark):
    """An answer is right if the workflow ``vote`` gave it, to this task."""

    name, kind = "words", "gsm8k"

    def load(self, split: str) -> list[Example]:
        return [Example(word_task(index)[0], "") for index in range(20)] if split == "train" else []

    def score(self, example: Example, answer: str) -> float:
        return float(answer == f"{example.task.id} by vote")


def run(pairs: Sequence[tuple[Task, Workflow]]) -> Iterator[Episode]:
    for task, made in reversed(pairs):
        yield Episode(task.id, task.benchmark, made.name, made.fingerprint, f"{task.id} by {made.name}", [], 0.5)


def repository_table(path: Path) -> OutcomeTable:
    """Twelve tasks with made-up outcomes of two workflows of the repository, saved."""
    workflows = load_workflows(CONF / "workflows", load_operations(CONF / "operations"))
    table = OutcomeTable(path)
    for index in range(12):
        for place, name in enumerate(("cot", "program_run")):
            task, made = word_task(index)[0], workflows[name]
            table.add(
                {
                    **row(task, COT, float(index % 2 == place)),
                    "workflow": name,
                    "fingerprint": made.fingerprint,
                    "llm_calls": 1,
                },
                made,
            )
    table.save()
    return table


def test_defaults_are_those_of_the_config() -> None:
    assert SCRIPT.config(SCRIPT.parse(["--table", "t", "--out", "o"])) == GeneratorConfig()
    words = ["--table", "t", "--out", "o", "--objective", "best", "--rounds", "2", "--fresh", "4"]
    assert SCRIPT.config(SCRIPT.parse(words)).objective == ObjectiveConfig(ObjectiveKind.BEST, rounds=2, fresh=4)


def test_the_other_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(ROOT / "scripts" / "collect_outcomes.py").parse(["--table", "t"]).split == "train"
    load(ROOT / "scripts" / "build_wgraph.py").main(["--out", str(tmp_path / "wgraph.json")])
    assert "wGraph of" in capsys.readouterr().out
    written = json.loads((tmp_path / "wgraph.json").read_text())
    assert {"id": "task", "op": "task"}.items() <= written["nodes"][0].items()


def test_a_table_must_be_there() -> None:
    with pytest.raises(SystemExit, match="no outcome table at nowhere.parquet"):
        SCRIPT.main(["--table", "nowhere.parquet", "--out", "o"])


def test_it_trains_tracks_and_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a stand-in for wandb; a checkpoint is gone in the end."""
    logged: list[tuple[int, dict]] = []
    tracked = SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), summary={}, finish=lambda exit_code: None
    )
    asked: dict = {}
    stand_in = SimpleNamespace(init=lambda **words: asked.update(words) or tracked, Settings=lambda **words: words)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    repository_table(tmp_path / "t.parquet")
    words = ["--table", str(tmp_path / "t.parquet"), "--out", str(tmp_path / "out"), "--epochs", "3"]
    SCRIPT.main([*words, "--wandb", "offline", "--checkpoint", str(tmp_path / "state")])
    assert asked["mode"] == "offline" and asked["config"]["objective"]["kind"] == "expected"
    assert [step for step, _ in logged] == [0, 1, 2]
    assert set(logged[0][1]) == {f"generator/{name}" for name in ("loss", "mark", "reward", "coverage")}
    library = load_operations(CONF / "operations")
    kept = Generator.load(tmp_path / "out", merge(load_workflows(CONF / "workflows", library), library))
    assert kept.report["mark"] == max(values["generator/mark"] for _, values in logged) == tracked.summary["mark"]
    assert not (tmp_path / "state").exists()
    out = capsys.readouterr().out
    assert "epoch   2  loss" in out and "trained in" in out
    logged.clear()
    SCRIPT.main(words)
    assert not logged


def fresh(table: OutcomeTable, told: Callable[[str, int], None] = lambda name, added: None) -> Fresh:
    return Fresh(table, lambda name: Words(BenchmarkConfig()), run, "train", 5, told)


def test_fresh_workflows_are_executed_and_scored(tmp_path: Path) -> None:
    """The table's tasks have no more than a text: the examples are found by id."""
    table, (first, _), (second, _) = OutcomeTable(tmp_path / "t.parquet"), word_task(0), word_task(1)
    said: list[tuple[str, int]] = []
    fresh(table, lambda *words: said.append(words))([(first, VOTE), (first, RUN), (second, VOTE)])
    found = {(line["task_id"], line["workflow"]): line["metric"] for line in table.frame.to_dict("records")}
    assert found == {("t0", "vote"): 1.0, ("t0", "run"): 0.0, ("t1", "vote"): 1.0}
    assert set(table.frame["seed"]) == {5}
    assert said == [("words", 3)]


def test_tasks_of_another_split_are_refused() -> None:
    other = Task("t0", "words", "gsm8k", "another text")
    for task in (other, word_task(20)[0]):
        with pytest.raises(ValueError, match=f"task '{task.id}' of the table is not in words, split train"):
            fresh(OutcomeTable())([(task, COT)])


def test_best_executes_in_the_engine_settings_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` hands `executing` to the training; the engine itself is stood in for."""
    table = repository_table(tmp_path / "t.parquet")
    monkeypatch.setattr(SCRIPT, "executing", lambda args, own, library: fresh(own))
    words = ["--table", str(tmp_path / "t.parquet"), "--out", str(tmp_path / "out"), "--objective", "best"]
    SCRIPT.main([*words, "--epochs", "2", "--fresh", "2"])
    grown = OutcomeTable(tmp_path / "t.parquet")
    assert len(grown) > len(table) and set(grown.frame["seed"]) == {0, 5}
