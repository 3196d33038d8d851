"""What could be known of a task beyond its text: the family of problems that it was generated from, and its level.

The best workflow of every (family, level) on training tasks shows what a choice can win that goes by the problem's kind
alone. What the oracle has beyond it hangs on particular numbers and names, and on luck.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from graphflow.engine.episode import Task
from graphflow.generator.outcomes import OutcomeTable, records
from graphflow.methods.best_fixed import BestFixed
from graphflow.wgraph.workflow import Workflow

ENOUGH = 8
"""Training tasks of one family and level before their best workflow is trusted over the benchmark's."""

Group = tuple[str, str, int]


class Structure:
    """Picks the workflow that did best on training tasks of the same benchmark, family and level.

    Args:
        table: Training outcomes.
        known: Training tasks by id, with their families and levels.
        fallback: Picks for a group with fewer than `ENOUGH` tasks; fitted.
    """

    def __init__(self, table: OutcomeTable, known: Mapping[str, Task], fallback: BestFixed) -> None:
        metrics: dict[Group, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in records(table.means()):
            task = known[row["task_id"]]
            metrics[group_of(task)][row["fingerprint"]][task.id] = row["metric"]
        self._best: dict[Group, Workflow] = {}
        for group, runs in metrics.items():
            most = max(map(len, runs.values()))
            if most >= ENOUGH:
                means = {key: fmean(own.values()) for key, own in runs.items() if len(own) == most}
                self._best[group] = table.workflows[max(means, key=lambda key: (means[key], key))]
        self._fallback = fallback

    @property
    def groups(self) -> int:
        """Groups with a workflow of their own."""
        return len(self._best)

    def build_many(self, tasks: Sequence[Task]) -> list[Workflow]:
        """A workflow for each task."""
        return [self._best.get(group_of(task)) or self._fallback.build(task) for task in tasks]


def group_of(task: Task) -> Group:
    """Benchmark, family and level of a task."""
    return task.benchmark, task.family, task.level
