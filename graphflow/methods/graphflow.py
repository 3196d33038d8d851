"""graphflow: the paper's method, a workflow composed for each task by the graph network over the merged wGraph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.engine.episode import Task
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.outcomes import OutcomeTable
from graphflow.generator.training import train_generator
from graphflow.methods.base import Method, MethodError
from graphflow.wgraph.library import Library
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import Workflow


class GraphFlow(Method):
    """Composes with a generator that was given, or that `fit` trains."""

    name = "graphflow"

    def __init__(
        self,
        library: Library,
        workflows: Mapping[str, Workflow],
        generator: Generator | None = None,
        config: GeneratorConfig | None = None,
    ) -> None:
        super().__init__(library, workflows)
        self.generator, self.config = generator, config or GeneratorConfig()

    def fit(self, table: OutcomeTable | None = None) -> None:
        """Train a generator, unless there is one already."""
        if self.generator is None:
            self.generator = train_generator(self.needs(table), merge(self.workflows, self.library), self.config)

    def build(self, task: Task) -> Workflow:
        """See `Method.build`."""
        return self.build_many([task])[0]

    def build_many(self, tasks: Sequence[Task]) -> list[Workflow]:
        """See `Method.build_many`.

        Raises:
            MethodError: There is no generator: `fit` was not called.
        """
        if self.generator is None:
            raise MethodError("method 'graphflow' must be fitted, or given a generator, before it builds")
        return self.generator.compose(tasks)
