"""retrieve_top1: the workflow that served the most similar training task best (a control of ours).

Similarity is the cosine of the generator's own text features, so that what the graph network adds can be told apart
from what the features know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from graphflow.engine.episode import Task
from graphflow.generator.features import Encoder, FeatureConfig, build_encoder
from graphflow.generator.outcomes import OutcomeTable, RewardConfig, records
from graphflow.methods.base import Method, MethodError
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow


class RetrieveTop1(Method):
    """The best executed workflow (by reward, then by its name) of the nearest training task."""

    name = "retrieve_top1"

    def __init__(
        self,
        library: Library,
        workflows: Mapping[str, Workflow],
        encoder: Encoder | None = None,
        reward: RewardConfig | None = None,
    ) -> None:
        super().__init__(library, workflows)
        self.encoder, self.reward = encoder or build_encoder(FeatureConfig()), reward or RewardConfig()
        self._index, self._best = torch.zeros(0, self.encoder.dim), list[Workflow]()

    def fit(self, table: OutcomeTable | None = None) -> None:
        """Encode the training tasks and note the best workflow of each."""
        table = self.needs(table)
        best: dict[str, tuple[float, str, str]] = {}
        for row in records(table.means(self.reward)):
            rank = (-row["reward"], row["workflow"], row["fingerprint"])
            best[row["task_id"]] = min(rank, best.get(row["task_id"], rank))
        tasks = table.tasks()
        self._index = self.encoder.encode([task.text for task in tasks])
        self._best = [table.workflows[best[task.id][2]] for task in tasks]

    def build(self, task: Task) -> Workflow:
        """See `Method.build`."""
        return self.build_many([task])[0]

    def build_many(self, tasks: Sequence[Task]) -> list[Workflow]:
        """See `Method.build_many`; of equally near training tasks the first counts.

        Raises:
            MethodError: `fit` was not called.
        """
        if not self._best:
            raise MethodError("method 'retrieve_top1' must be fitted before it builds")
        similarity = self.encoder.encode([task.text for task in tasks]) @ self._index.T
        return [self._best[index] for index in similarity.argmax(1).tolist()]
