"""What models wrote for methods is counted as the methods read it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from graphflow.experiment.baselines.proposals import _searched, readers_of
from graphflow.experiment.baselines.tables import read_methods
from graphflow.experiment.experiments import experiment
from graphflow.experiment.serve import House
from graphflow.training.lessons import Lessons
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone

WRONG, TWICE = {"error": "unknown step 'a'"}, {"error": "this gives the workflow of round 1, score 0.5000"}
READ = {
    "llmcompiler_plan": ("1. program()\n2. run_python($1)\n3. join()", "1. program()\n2. run_python($7)"),
    "llmcompiler_join": ("so <replan>again</replan>", "so again"),
    "llmcompiler_finish": ("<answer>4</answer>", "<replan>again</replan>"),
    "taskweaver_plan": ("1. Find it.\n2. Find more.", "Find it."),
    "taskweaver_cell": ("```python\ndef solve():\n    return 4\n```", "Anna"),
    "taskweaver_observe": ("<next>more</next>", "more"),
    "taskweaver_conclude": ("<answer></answer>", "<next>more</next>"),
    "kb_reason": ("how many", " \n"),
    "kb_refine": ("Do as program_run does.", "Do it directly."),
}


def test_good_and_bad_texts() -> None:
    house = House()
    readers = readers_of(house)
    searched = {"aflow_edit", "autoflow_flow"}
    assert set(readers) == set(READ) == set(Lessons(house.library, house.workflows).prompts) - searched
    assert {name: tuple(map(readers[name], texts)) for name, texts in READ.items()} == dict.fromkeys(
        READ, (True, False)
    )


@pytest.mark.parametrize(
    ("method", "history", "expected"),
    [
        ("autoflow", [{"error": ""}, {"error": "no end"}, {"error": ""}], [(False, True), (True, True)]),
        (
            "aflow",
            [{"refused": [WRONG, WRONG]}, {"refused": []}, {"refused": [TWICE]}],
            [(False, False)] * 2 + [(True, False)] + [(True, True)] * 2,
        ),
    ],
)
def test_searches_are_counted_from_their_history(
    method: str, history: list[dict], expected: list[tuple[bool, bool]], tmp_path: Path
) -> None:
    (tmp_path / "b.json").write_text(json.dumps(history))
    config = SimpleNamespace(method=SimpleNamespace(name=method))
    search: Any = SimpleNamespace(folder=tmp_path, benchmark=SimpleNamespace(name="b"), config=config)
    assert [(read, new) for _, read, new in _searched(search)] == expected, "where it began was not written"


def test_a_table_counts_what_models_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows nothing: plans are asked for twice, and nothing can be read."""
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    words = [
        *SMALL,
        "experiment.grids=[{methods:[vanilla,llmcompiler],kv:[stateful,differential]}]",
        *("backbones=[qwen-mini-planner]", "benchmarks=[mini-mbpp]", "tasks=2", "warmup=0"),
        *("fit.train_tasks=5", "fit.benchmarks=[mini-mbpp]"),
        *(f"machine.results_dir={tmp_path / 'results'}", f"machine.runs_dir={tmp_path / 'runs'}"),
    ]
    experiment("main_table", words, "graphflow experiment main_table", Console(file=io.StringIO(), width=200))
    table: Any = pd.read_csv(tmp_path / "results" / "methods" / "main_table_proposals.csv").set_index("operation")
    assert table.loc["llmcompiler_plan", "written"] == 4 and table.loc["llmcompiler_plan", "read"] == 0
    (sheet,) = (one for one in read_methods(tmp_path / "results" / "methods").sheets if "wrote" in one.title)
    assert sheet.rows[0] == ["llmcompiler_plan", "0.0 of 4"]
    assert table.loc["llmcompiler_finish", "written"] == 2 and set(table["backbone"]) == {"qwen-mini-planner"}
