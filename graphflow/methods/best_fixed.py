"""best_fixed: the one workflow with the best mean metric on the training tasks of a benchmark (a control of ours).

It is the strongest method that ignores the task, hence the bar that choosing per task has to clear.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphflow.engine.episode import Task
from graphflow.generator.outcomes import OutcomeTable, best_fixed
from graphflow.methods.base import Method, MethodError
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow


class BestFixed(Method):
    """One workflow a benchmark; a benchmark without training outcomes gets the best workflow of its kind."""

    name = "best_fixed"

    def __init__(self, library: Library, workflows: Mapping[str, Workflow]) -> None:
        super().__init__(library, workflows)
        self._best: dict[str, Workflow] = {}

    def fit(self, table: OutcomeTable | None = None) -> None:
        """Find the best workflow of each benchmark and kind; ties go to fewer tokens."""
        table = self.needs(table)
        chosen = {**best_fixed(table, by="kind"), **best_fixed(table)}
        self._best = {name: table.workflows[fingerprint] for name, fingerprint in chosen.items()}

    def build(self, task: Task) -> Workflow:
        """See `Method.build`.

        Raises:
            MethodError: The training outcomes hold neither the benchmark nor the kind, or `fit` was not called.
        """
        for name in (task.benchmark, task.kind):
            if name in self._best:
                return self._best[name]
        raise MethodError(
            f"method 'best_fixed' has no outcomes for benchmark {task.benchmark!r} or kind {task.kind!r}; "
            f"it was fitted on {', '.join(sorted(self._best)) or 'nothing'}"
        )
