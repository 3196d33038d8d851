"""An outcome table as training reads it: tasks to learn from and to be marked on, rewards as tensors, shrunk.

One execution is a noisy witness of what a workflow is worth on a task, and few executions are noisy witnesses of what
it is worth on a benchmark. So a reward is drawn towards the workflow's mean on the benchmark, and that mean towards the
mean of everything executed there, both with the same weight (our choice; one step of empirical Bayes each).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphflow.engine.episode import Task
from graphflow.generator.features import Encoder
from graphflow.generator.objectives import Outcomes
from graphflow.generator.outcomes import OutcomeTable, RewardConfig
from graphflow.wgraph.workflow import Workflow


@dataclass(frozen=True)
class Lessons:
    """What one training learns from and is marked on.

    Attributes:
        learners: Training tasks.
        held_out: Validation tasks.
        workflows: What the columns of the outcomes are.
        taught: Shrunk outcomes of the training tasks.
        exam: Outcomes of the validation tasks, as they were measured.
        marked: The same, shrunk; a workflow that was executed on training tasks of the benchmark alone has the reward
            that they lead to expect.
        fixed: The workflow that is best on the training tasks of each benchmark.
    """

    learners: list[Task]
    held_out: list[Task]
    workflows: list[Workflow]
    taught: Outcomes
    exam: Outcomes
    marked: Outcomes
    fixed: dict[str, Workflow]

    @classmethod
    def of(
        cls,
        table: OutcomeTable,
        workflows: list[Workflow],
        parts: tuple[Tensor, Tensor],
        reward: RewardConfig,
        shrinkage: float,
        encoder: Encoder,
    ) -> Lessons:
        """Read a table.

        Args:
            table: Executed outcomes.
            workflows: Those of its workflows that can be composed.
            parts: Indices of its training and of its validation tasks.
            reward: What an outcome is worth.
            shrinkage: Weight of a mean, in executions.
            encoder: Of task texts.

        Raises:
            ValueError: A task has no outcome of any of the workflows.
        """
        tasks = table.tasks()
        outcomes = tabulate(table, tasks, workflows, reward, encoder)
        learners, held_out = ([tasks[i] for i in part] for part in parts)
        measured, exam = (outcomes.at(part) for part in parts)
        names = [task.benchmark for task in learners]
        expected = shrink(measured, names, measured, names, shrinkage)
        return cls(
            learners,
            held_out,
            workflows,
            Outcomes(measured.features, expected.reward * measured.known, measured.known),
            exam,
            shrink(exam, [task.benchmark for task in held_out], measured, names, shrinkage),
            {name: workflows[column] for name, column in best_on(measured, names).items()},
        )

    def examine(self, chosen: Sequence[Workflow]) -> dict[str, float]:
        """``mark``, ``reward`` and ``coverage`` of one workflow for each validation task (see `realised`)."""
        reward, coverage = realised(chosen, self.exam, self.workflows)
        return {"mark": realised(chosen, self.marked, self.workflows)[0], "reward": reward, "coverage": coverage}

    def bounds(self) -> dict[str, float]:
        """What the best fixed workflows and the best executed workflow of each task earn on the validation tasks."""
        fixed = [self.fixed[task.benchmark] for task in self.held_out]
        best = self.exam.reward.masked_fill(~self.exam.known, -math.inf).max(1).values
        return {
            "best_fixed_reward": realised(fixed, self.exam, self.workflows)[0],
            "oracle_reward": best.mean().item(),
        }


def tabulate(
    table: OutcomeTable,
    tasks: Sequence[Task],
    workflows: Sequence[Workflow],
    reward: RewardConfig,
    encoder: Encoder,
) -> Outcomes:
    """The table as tensors, rewards averaged over seeds.

    Raises:
        ValueError: A task has no outcome of any of the workflows.
    """
    row = {task.id: i for i, task in enumerate(tasks)}
    column = {workflow.fingerprint: i for i, workflow in enumerate(workflows)}
    means = table.means(reward)
    found = [
        (row[task], column[fingerprint], float(value))
        for task, fingerprint, value in zip(means["task_id"], means["fingerprint"], means["reward"], strict=True)
        if fingerprint in column
    ]
    values, known = torch.zeros(len(row), len(column)), torch.zeros(len(row), len(column), dtype=torch.bool)
    if found:
        rows, columns, rewards = map(list, zip(*found, strict=True))
        values[rows, columns], known[rows, columns] = torch.tensor(rewards), True
    lonely = [task.id for task, some in zip(tasks, known.any(1).tolist(), strict=True) if not some]
    if lonely:
        raise ValueError(f"no usable workflow was executed on {len(lonely)} tasks, among them {lonely[0]!r}")
    return Outcomes(encoder.encode([task.text for task in tasks]), values, known)


def split(tasks: Sequence[Task], share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of training and of validation tasks; each benchmark gives about ``share`` of its tasks to the latter."""
    order = torch.randperm(len(tasks), generator=generator).tolist()
    order.sort(key=lambda index: tasks[index].benchmark)
    held = [math.floor((i + 1) * share) > math.floor(i * share) for i in range(len(order))]
    if not any(held):
        held[0] = True
    learn = [index for index, out in zip(order, held, strict=True) if not out]
    check = [index for index, out in zip(order, held, strict=True) if out]
    return torch.tensor(learn), torch.tensor(check)


def realised(chosen: Sequence[Workflow], outcomes: Outcomes, workflows: Sequence[Workflow]) -> tuple[float, float]:
    """Mean reward of one chosen workflow a task, and the share of choices whose reward on their task is known.

    Where it is not, the choice counts as the mean of those that are.
    """
    column = {workflow.fingerprint: i for i, workflow in enumerate(workflows)}
    total, covered = 0.0, 0
    for row, workflow in enumerate(chosen):
        index, known = column.get(workflow.fingerprint), outcomes.known[row]
        if index is not None and known[index]:
            total += outcomes.reward[row, index].item()
            covered += 1
        else:
            total += outcomes.reward[row][known].mean().item()
    return total / len(chosen), covered / len(chosen)


def best_on(outcomes: Outcomes, benchmarks: Sequence[str]) -> dict[str, int]:
    """Per benchmark the workflow (column) of the highest mean reward, among those executed on the most tasks."""
    best = {}
    for name in dict.fromkeys(benchmarks):
        part = outcomes.at(torch.tensor([row for row, other in enumerate(benchmarks) if other == name]))
        count = part.known.sum(0)
        best[name] = int((part.reward.sum(0) / count).masked_fill(count < count.max(), -math.inf).argmax())
    return best


def shrink(
    outcomes: Outcomes, benchmarks: Sequence[str], measured: Outcomes, taught: Sequence[str], strength: float
) -> Outcomes:
    """Rewards to expect on some tasks, from what was executed on them and on others of their benchmarks.

    With n executions of a workflow on a benchmark's training tasks, their sum s, the mean m of all executions there and
    strength k: the workflow's mean is (s + k m) / (n + k); on a task where it earned r, (r + k mean) / (1 + k) is to be
    expected, and on one where it was not executed, the mean.

    Args:
        outcomes: What to shrink.
        benchmarks: The benchmark of each of its tasks.
        measured: Training outcomes, which the means are taken of; where a benchmark has none, its rewards stay.
        taught: The benchmark of each of their tasks.
        strength: Weight of a mean, in executions.

    Returns:
        Outcomes that are also known where a workflow was executed on other tasks of the benchmark.
    """
    reward, known = outcomes.reward.clone(), outcomes.known.clone()
    for name in dict.fromkeys(benchmarks):
        rows = torch.tensor([row for row, other in enumerate(benchmarks) if other == name])
        part = outcomes.at(rows)
        means = measured.at(torch.tensor([row for row, other in enumerate(taught) if other == name], dtype=torch.long))
        total, count = means.reward.sum(0), means.known.sum(0)
        if not count.any():
            continue
        mean = (total + strength * total.sum() / count.sum()) / (count + strength).clamp(min=1e-9)
        known[rows] |= count > 0
        reward[rows] = torch.where(part.known, (part.reward + strength * mean) / (1 + strength), mean * (count > 0))
    return Outcomes(outcomes.features, reward, known)
