"""What a linear map of the text features knows: how much the words of a task say about which workflow serves it best.

Ridge regression from the generator's own text features to the score of every workflow of a benchmark (our choice). It
has no graph and no operation texts, so it knows only workflows that were executed; what it finds, a generator could
find.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphflow.engine.episode import Task
from graphflow.generator.features import Encoder
from graphflow.generator.outcomes import OutcomeTable, records
from graphflow.methods.best_fixed import BestFixed
from graphflow.wgraph.workflow import Workflow

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Weights of the penalty that are tried."""
FOLDS = 5


class Linear:
    """Picks the workflow with the best predicted score.

    Args:
        table: Training outcomes; of each benchmark the workflows that every task of it has.
        encoder: Text features, rows of length one.
        fallback: Picks for benchmarks that the table does not hold; fitted.

    Attributes:
        chosen: The penalty of every benchmark, the one whose picks score best on folds that were left out.
    """

    def __init__(self, table: OutcomeTable, encoder: Encoder, fallback: BestFixed) -> None:
        self._encoder, self._fallback = encoder, fallback
        self.chosen: dict[str, float] = {}
        self._fits: dict[str, tuple[list[Workflow], Tensor, Tensor]] = {}
        scores: dict[str, dict[str, dict[str, float]]] = {}
        for row in records(table.means()):
            own = scores.setdefault(row["benchmark"], {}).setdefault(row["fingerprint"], {})
            own[row["task_id"]] = row["metric"]
        texts = {task.id: task.text for task in table.tasks()}
        for name, runs in scores.items():
            most = max(map(len, runs.values()))
            whole = {key: own for key, own in runs.items() if len(own) == most}
            ids = sorted(next(iter(whole.values())))
            features = encoder.encode([texts[id] for id in ids]).double()
            metric = torch.tensor([[own[id] for own in whole.values()] for id in ids], dtype=torch.float64)
            self.chosen[name] = max(RIDGES, key=lambda ridge, x=features, y=metric: left_out_score(x, y, ridge))
            flows = [table.workflows[key] for key in whole]
            self._fits[name] = (flows, *fit(features, metric, self.chosen[name]))

    def build_many(self, tasks: Sequence[Task]) -> list[Workflow]:
        """A workflow for each task."""
        found = []
        for task in tasks:
            if task.benchmark not in self._fits:
                found.append(self._fallback.build(task))
                continue
            flows, weights, mean = self._fits[task.benchmark]
            predicted = self._encoder.encode([task.text]).double() @ weights + mean
            found.append(flows[int(predicted.argmax())])
        return found


def fit(features: Tensor, metric: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Ridge regression of how much better a workflow does on a task than the others.

    Args:
        features: float64 (tasks, dim).
        metric: float64 (tasks, workflows).
        ridge: Weight of the squared norm of the map.

    Returns:
        The map, (dim, workflows), and what is added, (workflows,).
    """
    beside = metric - metric.mean(dim=1, keepdim=True)
    mean = beside.mean(dim=0)
    kernel = features @ features.T + ridge * torch.eye(len(features), dtype=features.dtype)
    return features.T @ torch.linalg.solve(kernel, beside - mean), mean


def left_out_score(features: Tensor, metric: Tensor, ridge: float) -> float:
    """Mean score of the picks for tasks that the map was not fitted on; every fifth task is left out in turn."""
    fold, score = torch.arange(len(features)) % FOLDS, 0.0
    for left in range(FOLDS):
        own, rest = fold == left, fold != left
        weights, mean = fit(features[rest], metric[rest], ridge)
        picked = (features[own] @ weights + mean).argmax(dim=1, keepdim=True)
        score += float(metric[own].gather(1, picked).sum())
    return score / len(features)
