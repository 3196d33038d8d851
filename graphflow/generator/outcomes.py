"""The outcome table: what each workflow scored and cost on each task. Execute once, learn many times (our choice).

One row is one executed (task, workflow, seed). Rows are only ever added, a triple never twice. While a collection runs,
each row goes to a journal (``<table>.journal.jsonl``, one flushed line a row), so that a killed run loses no episode;
`OutcomeTable.save` folds the journal into one parquet file, which also carries the structure of every workflow in it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from graphflow.engine.episode import Episode, Task
from graphflow.wgraph.workflow import Workflow

COLUMNS: dict[str, str] = {
    "task_id": "str",
    "benchmark": "str",
    "kind": "str",
    "text": "str",
    "workflow": "str",
    "fingerprint": "str",
    "seed": "int64",
    "metric": "float64",
    "latency_s": "float64",
    "tokens": "int64",
    "kv_bytes": "int64",
    "llm_calls": "int64",
}
KEY = ("task_id", "fingerprint", "seed")
METADATA = b"graphflow.workflows"


@dataclass
class RewardConfig:
    """Reward = metric - latency x seconds - kv x megabytes - tokens x thousands of tokens.

    Attributes:
        latency: Weight of one second of latency, at least 0.
        kv: Weight of one megabyte of KV that the task keeps, at least 0.
        tokens: Weight of a thousand tokens (prefilled and generated), at least 0. Unlike latency it is free of noise.
    """

    latency: float = 0.0
    kv: float = 0.0
    tokens: float = 0.01

    def __post_init__(self) -> None:
        for name in ("latency", "kv", "tokens"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"reward.{name} must be at least 0, got {getattr(self, name)}")

    def of(self, frame: pd.DataFrame) -> pd.Series:
        """Reward of each row of an outcome frame."""
        column: Any = frame
        cost = self.latency * column["latency_s"] + self.kv * column["kv_bytes"] / 1e6
        return column["metric"] - cost - self.tokens * column["tokens"] / 1e3


class OutcomeTable:
    """Executed (task, workflow, seed) triples, append-only.

    Attributes:
        workflows: Every workflow that occurs in the table, by fingerprint.
        path: Where the table is kept; None for a table in memory.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path else None
        self.workflows: dict[str, Workflow] = {}
        self._rows: list[dict[str, Any]] = []
        self._keys: set[tuple[str, str, int]] = set()
        if self.path and self.path.exists():
            self._read_parquet(self.path)
        if self.journal and self.journal.exists():
            self._read_journal(self.journal)

    @property
    def journal(self) -> Path | None:
        """The file that rows are appended to until `save`."""
        return self.path.with_name(f"{self.path.stem}.journal.jsonl") if self.path else None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @property
    def frame(self) -> pd.DataFrame:
        """All rows, in the order they came, columns as in `COLUMNS`."""
        return pd.DataFrame(self._rows, columns=pd.Index(COLUMNS)).astype(COLUMNS)

    def means(self, reward: RewardConfig | None = None) -> pd.DataFrame:
        """One row a (task, workflow), averaged over seeds, with a ``reward`` column; order of first appearance."""
        frame = self.frame
        frame["reward"] = (reward or RewardConfig()).of(frame)
        text = dict.fromkeys(("benchmark", "kind", "text", "workflow"), "first")
        numbers = dict.fromkeys(("metric", "latency_s", "tokens", "kv_bytes", "llm_calls", "reward"), "mean")
        grouped: Any = frame.groupby(["task_id", "fingerprint"], sort=False, as_index=False)
        return grouped.agg({**text, **numbers})

    def tasks(self) -> list[Task]:
        """The tasks of the table, as far as it knows them: id, benchmark, kind, text."""
        first = {row["task_id"]: row for row in reversed(self._rows)}
        order = dict.fromkeys(row["task_id"] for row in self._rows)
        return [Task(id, first[id]["benchmark"], first[id]["kind"], first[id]["text"]) for id in order]

    def add(self, row: Mapping[str, Any], workflow: Workflow) -> None:
        """Append one row, and the workflow it came from.

        Raises:
            ValueError: Columns are missing or unknown, the metric is not in [0, 1], the fingerprint is not the
                workflow's, or (task_id, fingerprint, seed) is there already.
        """
        self._insert(row, workflow)
        if self.journal:
            self.journal.parent.mkdir(parents=True, exist_ok=True)
            with self.journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": self._rows[-1], "workflow": workflow.to_dict()}) + "\n")

    def select(self, task_ids: Iterable[str]) -> OutcomeTable:
        """A table in memory with the rows of these tasks only."""
        chosen, part = set(task_ids), OutcomeTable()
        for row in self._rows:
            if row["task_id"] in chosen:
                part._insert(row, self.workflows[row["fingerprint"]])
        return part

    def head(self, count: int) -> OutcomeTable:
        """A table in memory with the first rows only."""
        part = OutcomeTable()
        for row in self._rows[:count]:
            part._insert(row, self.workflows[row["fingerprint"]])
        return part

    def pairs(self) -> set[tuple[str, str]]:
        """Task ids and fingerprints of what was executed, whatever the seed."""
        return {(task, fingerprint) for task, fingerprint, _ in self._keys}

    def take(self, other: OutcomeTable, pairs: Iterable[tuple[str, str]]) -> None:
        """Append another table's rows of some pairs (see `pairs`), one pair after the other.

        Raises:
            ValueError: It has no row of a pair.
        """
        found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in other._rows:
            found[row["task_id"], row["fingerprint"]].append(row)
        for task, fingerprint in pairs:
            if (task, fingerprint) not in found:
                raise ValueError(f"the table has no outcome of workflow {fingerprint} on task {task!r}")
            for row in found[task, fingerprint]:
                self.add(row, other.workflows[fingerprint])

    def save(self, path: str | Path | None = None) -> Path:
        """Write one parquet file (temp file, then rename) and remove this table's journal.

        Raises:
            ValueError: No path was given, here or when the table was made.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        target = Path(path) if path else self.path
        if target is None:
            raise ValueError("save needs a path: the table was made without one")
        structures = {key: workflow.to_dict() for key, workflow in sorted(self.workflows.items())}
        arrow = pa.Table.from_pandas(self.frame, preserve_index=False)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), METADATA: json.dumps(structures)})
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        pq.write_table(arrow, partial, compression="zstd")
        partial.replace(target)
        if target == self.path and self.journal and self.journal.exists():
            self.journal.unlink()
        return target

    def _insert(self, row: Mapping[str, Any], workflow: Workflow) -> None:
        if set(row) != set(COLUMNS):
            missing, unknown = sorted(set(COLUMNS) - set(row)), sorted(set(row) - set(COLUMNS))
            raise ValueError(f"an outcome has the columns {list(COLUMNS)}; missing {missing}, unknown {unknown}")
        if not 0 <= row["metric"] <= 1:
            raise ValueError(f"metric must be in [0, 1], got {row['metric']} for task {row['task_id']!r}")
        if row["fingerprint"] != workflow.fingerprint:
            raise ValueError(f"fingerprint {row['fingerprint']!r} is not that of {workflow} ({workflow.fingerprint!r})")
        key = (row["task_id"], row["fingerprint"], int(row["seed"]))
        if key in self._keys:
            raise ValueError(f"(task_id, fingerprint, seed) = {key} is in the table already")
        self._keys.add(key)
        self._rows.append({name: row[name] for name in COLUMNS})
        self.workflows.setdefault(row["fingerprint"], workflow)

    def _read_parquet(self, path: Path) -> None:
        import pyarrow.parquet as pq

        arrow = pq.read_table(path)
        structures = json.loads((arrow.schema.metadata or {}).get(METADATA, b"{}"))
        workflows = {key: Workflow.from_dict(structure) for key, structure in structures.items()}
        for row in arrow.to_pylist():
            if row["fingerprint"] not in workflows:
                raise ValueError(f"{path} does not carry the structure of workflow {row['workflow']!r}")
            self._insert(row, workflows[row["fingerprint"]])

    def _read_journal(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        whole, _, torn = text.rpartition("\n")
        if torn:  # the process died in the middle of a line: that row was not finished and is executed again
            path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        for line in whole.splitlines():
            entry = json.loads(line)
            row = entry["row"]
            if (row["task_id"], row["fingerprint"], row["seed"]) not in self._keys:  # saved, but not yet removed
                self._insert(row, Workflow.from_dict(entry["workflow"]))


def collect(
    table: OutcomeTable,
    tasks: Sequence[Task],
    workflows: Sequence[Workflow] | Callable[[Task], Sequence[Workflow]],
    run: Callable[[list[tuple[Task, Workflow]]], Iterator[Episode]],
    score: Callable[[Task, str], float],
    seed: int = 0,
    chunk: int = 256,
) -> int:
    """Execute what the table does not hold yet and append it.

    Args:
        table: Grows by one row an episode.
        tasks: Tasks to run.
        workflows: The workflows for every task; or a function that names them for one task. Without a function only
            workflows whose ``kinds`` include the task's kind are run.
        run: Executes pairs and yields one episode a pair, in any order (`Episode.task_id` and `Episode.fingerprint`
            say which).
        score: Metric in [0, 1] of an answer to a task.
        seed: Sampling seed that the rows are filed under; the caller gives it to the engine.
        chunk: Pairs handed to ``run`` at a time.

    Returns:
        How many rows were added.
    """
    todo: list[tuple[Task, Workflow]] = []
    planned: set[tuple[str, str]] = set()
    for task in tasks:
        fitting = workflows(task) if callable(workflows) else [w for w in workflows if task.kind in w.kinds]
        for workflow in fitting:
            pair = (task.id, workflow.fingerprint)
            if pair not in planned and (*pair, seed) not in table:
                planned.add(pair)
                todo.append((task, workflow))
    for start in range(0, len(todo), chunk):
        part = todo[start : start + chunk]
        pairs = {(task.id, workflow.fingerprint): (task, workflow) for task, workflow in part}
        for episode in run(part):
            task, workflow = pairs.pop((episode.task_id, episode.fingerprint))
            table.add(to_row(task, workflow, episode, score(task, episode.answer), seed), workflow)
        if pairs:
            raise RuntimeError(f"run returned no episode for {sorted(pairs)[:3]} ({len(pairs)} of {len(part)})")
    return len(todo)


def to_row(task: Task, workflow: Workflow, episode: Episode, metric: float, seed: int) -> dict[str, Any]:
    """The table row of one episode. Tokens are prefilled plus generated; KV bytes operation state plus dynamic text."""
    return {
        "task_id": task.id,
        "benchmark": task.benchmark,
        "kind": task.kind,
        "text": task.text,
        "workflow": workflow.name,
        "fingerprint": workflow.fingerprint,
        "seed": seed,
        "metric": float(metric),
        "latency_s": float(episode.latency_s),
        "tokens": episode.total("prefill_tokens") + episode.total("output_tokens"),
        "kv_bytes": episode.op_bytes + episode.dynamic_bytes,
        "llm_calls": episode.llm_calls,
    }


def best_fixed(table: OutcomeTable, by: str = "benchmark") -> dict[str, str]:
    """Per benchmark the fingerprint of the workflow with the best mean metric; ties go to fewer tokens, then the name.

    Only workflows that were run on as many tasks as any other compete.

    Args:
        table: Executed outcomes.
        by: ``benchmark`` or ``kind``: what the tasks are grouped by.
    """
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in records(table.means()):
        groups[row[by]][row["fingerprint"]].append(row)
    chosen = {}
    for group, runs in sorted(groups.items()):
        most = max(map(len, runs.values()))
        chosen[group] = min(
            (key for key, rows in runs.items() if len(rows) == most),
            key=lambda key: (
                -round(fmean(row["metric"] for row in runs[key]), 9),
                fmean(row["tokens"] for row in runs[key]),
                table.workflows[key].name,
            ),
        )
    return chosen


def summary(table: OutcomeTable) -> pd.DataFrame:
    """How much choosing well can win, one row a benchmark.

    Columns: ``tasks``, ``workflows``, ``coverage`` (share of task x workflow pairs executed), ``entropy`` (bits, of
    which workflow is best on a task, a tie shared equally), ``best_fixed`` (name), ``best_fixed_metric``, ``oracle``
    (mean of the best metric per task) and ``gap`` (oracle minus best fixed).
    """
    groups: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in records(table.means()):
        groups[row["benchmark"]][row["task_id"]][row["fingerprint"]] = row["metric"]
    fixed, lines = best_fixed(table), []
    for benchmark, tasks in sorted(groups.items()):
        share: dict[str, float] = defaultdict(float)
        for metrics in tasks.values():
            winners = [key for key, metric in metrics.items() if metric >= max(metrics.values()) - 1e-9]
            for key in winners:
                share[key] += 1 / len(winners) / len(tasks)
        workflows = {key for metrics in tasks.values() for key in metrics}
        best = fmean(metrics[fixed[benchmark]] for metrics in tasks.values() if fixed[benchmark] in metrics)
        oracle = fmean(max(metrics.values()) for metrics in tasks.values())
        lines.append(
            {
                "benchmark": benchmark,
                "tasks": len(tasks),
                "workflows": len(workflows),
                "coverage": sum(map(len, tasks.values())) / (len(tasks) * len(workflows)),
                "entropy": -sum(p * math.log2(p) for p in share.values()),
                "best_fixed": table.workflows[fixed[benchmark]].name,
                "best_fixed_metric": best,
                "oracle": oracle,
                "gap": oracle - best,
            }
        )
    return pd.DataFrame(lines)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dictionaries."""
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]
