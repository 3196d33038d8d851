"""What choices are worth: workflows picked for tasks, looked up among executed ones and executed where they were not.

Outcomes are those of stateful mode, from the suite's ledger (`graphflow.experiment.suite.ledger`), so that two methods
that pick the same workflow for a task have the same outcome, and a difference is one of choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev
from typing import Any

import pandas as pd

from graphflow.engine.episode import Task
from graphflow.experiment.config import Config
from graphflow.experiment.serve import House
from graphflow.experiment.stats import bootstrap, paired_difference, percentile
from graphflow.experiment.suite.ledger import Ledger
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.wgraph.workflow import Workflow

Pick = Callable[[Sequence[Task]], Sequence[Workflow]]
MEAN = "mean"
COSTS = ("tokens", "llm_calls", "kv_bytes")


@dataclass(frozen=True)
class Exam:
    """Tasks of some benchmarks, and what workflows do on them.

    Attributes:
        house: Operations, workflows, benchmarks and the backbone.
        config: The backbone's configuration.
        names: Benchmarks of the embedded suite.
        tasks: Tasks of each, in each split.
    """

    house: House
    config: Config
    names: tuple[str, ...]
    tasks: int

    @cached_property
    def ledger(self) -> Ledger:
        """Executions in stateful mode."""
        return Ledger(self.house, self.config, KVConfig(mode=StateMode.STATEFUL))

    def repertoire(self, task: Task) -> list[Workflow]:
        """The repository's workflows for a task's kind."""
        return [workflow for workflow in self.house.workflows.values() if task.kind in workflow.kinds]

    def all_left(self, name: str) -> int:
        """How many executions of the repository's workflows on a benchmark's test tasks are still to be done."""
        return self.ledger.left(self.ledger.examples(name, "test", self.tasks), self.repertoire)

    def all(self, name: str, on_episode: Callable[[Any], None]) -> pd.DataFrame:
        """Outcomes of every workflow of the repository on a benchmark's test tasks."""
        return self.ledger.run(name, "test", self.tasks, self.repertoire, on_episode).assign(benchmark=name)

    def take(self, split: str, pick: Pick) -> pd.DataFrame:
        """Outcomes of the picked workflows, one row a task, benchmarks one after the other.

        Args:
            split: ``test`` or ``heldout``.
            pick: Gives one workflow a task.
        """
        frames = []
        for name in self.names:
            tasks = [example.task for example in self.ledger.examples(name, split, self.tasks)]
            chosen = {task.id: [flow] for task, flow in zip(tasks, pick(tasks), strict=True)}
            frame = self.ledger.run(name, split, self.tasks, lambda task, of=chosen: of[task.id], lambda _: None)
            frames.append(frame.assign(benchmark=name))
        return pd.concat(frames, ignore_index=True)


def oracle(every: Any) -> dict[str, float]:
    """By task, the best score that some workflow of the repository has: of many noisy outcomes, so it flatters."""
    return by_task(every.sort_values("metric").groupby("task_id", as_index=False).last())


def by_task(frame: Any) -> dict[str, float]:
    """Scores by task id, a mean where a task has several."""
    means = frame.groupby("task_id")["metric"].mean()
    return {str(task): float(score) for task, score in means.items()}


def marks(frame: Any, fixed: Any, best: dict[str, float] | None = None) -> dict[str, Any]:
    """Score, distance from the best fixed workflows and costs of what was picked.

    Args:
        frame: One row a task (and seed); all benchmarks have the same number of tasks, so that a plain mean is the
            mean over benchmarks.
        fixed: The same of the best fixed workflows.
        best: Scores of the oracle by task; None leaves the share of its gap open.
    """
    own, theirs = by_task(frame), by_task(fixed)
    score, gain = bootstrap(list(own.values())), paired_difference(own, theirs)
    gap = (sum(best[task] - theirs[task] for task in own) / len(own)) if best else 0.0
    return {
        "n_tasks": len(own),
        "metric": score.mean,
        "metric_lo": score.low,
        "metric_hi": score.high,
        "gain": gain.mean,
        "gain_lo": gain.low,
        "gain_hi": gain.high,
        "gap_closed": gain.mean / gap if gap > 0 else None,
        **{name: float(frame[name].mean()) for name in COSTS},
        "p90_s": percentile(frame["latency_s"].tolist(), 90),
    }


def measured(frames: list[Any], bar: Any, best: dict[str, float] | None, known: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of one setting on one split: the mean over benchmarks and each benchmark, over all seeds.

    Args:
        frames: Outcomes of what each seed picked, one row a task.
        bar: Outcomes of the best fixed workflows on the same tasks.
        best: The oracle's scores by task; None where they are not known.
        known: Fingerprints of the workflows that were executed on training tasks.
    """
    whole: Any = pd.concat(frames, ignore_index=True)
    for name in (MEAN, *dict.fromkeys(whole["benchmark"])):
        part, beside, *own = (
            frame if name == MEAN else frame[frame["benchmark"] == name] for frame in (whole, bar, *frames)
        )
        means = [float(frame["metric"].mean()) for frame in own]
        new: Any = part[~part["fingerprint"].isin(known)]
        yield {
            "benchmark": name,
            "seeds": len(frames),
            **marks(part, beside, best),
            "metric_sd": stdev(means) if len(means) > 1 else 0.0,
            "new_share": len(new) / len(part),
            "new_metric": new["metric"].mean() if len(new) else None,
            "workflows": part["fingerprint"].nunique(),
        }
