"""Executions of workflows on the suite's test and held-out tasks, in a table that methods never learn from.

A ledger is a folder under the runs folder, named by what determines its outcomes: weights, state mode, engine, tasks
and the repository's code. It holds an outcome table and, a line an episode, what the table has no column for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from graphflow.benchmarks.base import BenchmarkConfig, Example
from graphflow.engine.episode import Episode
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.compose import resolved
from graphflow.experiment.config import Config
from graphflow.experiment.fit import PairRunner, Repertoire, fill, open_table, pairs_left
from graphflow.experiment.record import RunDir, digest
from graphflow.experiment.serve import House, use_threads
from graphflow.generator.outcomes import records
from graphflow.kv.modes import KVConfig

OWN = ("task_id", "fingerprint", "op_bytes", "dynamic_bytes", "ran")
OUTCOME = ("fingerprint", "workflow", "metric", "tokens", "llm_calls", "kv_bytes", "latency_s")

PACE = (
    *("concurrency", "max_batch", "scheduler", "gather", "prefill_chunk", "padding", "prefetch", "arrivals", "rate"),
    "fidelity",
)
"""Settings of the engine that decide when a step runs and what is measured, not what is written."""


@dataclass(frozen=True)
class Ledger:
    """Executions under one backbone and one way of keeping operation state.

    Attributes:
        house: Operations, workflows, benchmarks and the backbone.
        config: The backbone's configuration.
        kv: How operation state is kept.
    """

    house: House
    config: Config
    kv: KVConfig

    @cached_property
    def run_dir(self) -> RunDir:
        """The folder. How many tasks a split has is no part of its name: a smaller split begins a larger one."""
        plain = resolved(replace(self.config, kv=self.kv))
        what = {name: plain[name] for name in ("backbone", "kv")}
        what["engine"] = {name: value for name, value in plain["engine"].items() if name not in PACE}
        what["benchmark"] = {name: plain["benchmark"][name] for name in ("seed", "scoring")}
        return RunDir(self.config.machine.runs_dir, "suite-" + digest({**what, **self.house.executed(self.config)}))

    def examples(self, name: str, split: str, tasks: int) -> list[Example]:
        """The first tasks of a split."""
        return self.house.benchmark(suite_config(self.config, name, tasks)).examples(split, tasks)

    def left(self, examples: Sequence[Example], repertoire: Repertoire) -> int:
        """How many executions are not in the table yet."""
        return len(pairs_left(open_table(self.run_dir.path), examples, repertoire, self.config.engine.seed))

    def run(
        self, name: str, split: str, tasks: int, repertoire: Repertoire, on_episode: Callable[[Episode], None]
    ) -> pd.DataFrame:
        """Execute what is left and give the outcomes; waits for another process that works on the same folder.

        Args:
            name: The benchmark.
            split: Its split.
            tasks: First tasks of it.
            repertoire: The workflows of a task.
            on_episode: Called after each execution.

        Returns:
            One row a task and workflow: ``task_id``, ``text``, ``level``, ``fingerprint``, `OUTCOME`, ``prompt_share``
            (tokens of operation prompts over all tokens in the contexts at the end) and ``ran`` (operations that ran).
        """
        config, run_dir = self.config, self.run_dir
        examples = self.examples(name, split, tasks)
        with run_dir.locked(wait=True):
            table = open_table(run_dir.path)
            self._mend()
            if pairs_left(table, examples, repertoire, config.engine.seed):
                use_threads(config)
                benchmark = self.house.benchmark(suite_config(config, name, tasks))
                benchmark.sandbox = Sandbox(config.engine.sandbox)
                runner = PairRunner(self.house.executor(config, self.kv, benchmark.sandbox))

                def note(episode: Episode) -> None:
                    self._note(episode)
                    on_episode(episode)

                fill(table, benchmark, examples, repertoire, runner, config.engine.seed, note)
            notes = self._notes()
        by_id = {example.task.id: example.task for example in examples}
        names = {(id, flow.fingerprint): flow.name for id, task in by_id.items() for flow in repertoire(task)}
        rows = []
        for row in records(table.frame):
            key = row["task_id"], row["fingerprint"]
            if key in names:
                task, own, row["workflow"] = by_id[row["task_id"]], notes[key], names[key]
                share = own["op_bytes"] / max(1, own["op_bytes"] + own["dynamic_bytes"])
                rows.append(
                    {"task_id": task.id, "text": task.text, "level": task.level}
                    | {column: row[column] for column in OUTCOME}
                    | {"prompt_share": share, "ran": tuple(own["ran"])}
                )
        return pd.DataFrame(rows)

    def _note(self, episode: Episode) -> None:
        own: dict[str, Any] = {**vars(episode), "ran": [step.op for step in episode.steps]}
        with (self.run_dir.path / "episodes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: own[name] for name in OWN}) + "\n")

    def _notes(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What was noted of each task and workflow; the last time counts, an unscored execution is repeated."""
        file = self.run_dir.path / "episodes.jsonl"
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        return {(own["task_id"], own["fingerprint"]): own for own in lines}

    def _mend(self) -> None:
        """Cut off a last line that a kill has torn: its execution is not in the table and is repeated."""
        file = self.run_dir.path / "episodes.jsonl"
        whole, _, torn = file.read_text(encoding="utf-8").rpartition("\n") if file.exists() else ("", "", "")
        if torn:
            file.write_text(whole + "\n" if whole else "", encoding="utf-8")


def suite_config(config: Config, name: str, tasks: int) -> BenchmarkConfig:
    """The suite's benchmark of that name, with no more test and held-out tasks than are used: drawing takes long."""
    return replace(config.benchmark, name=name, limit=0, test_size=tasks, heldout_size=tasks)
