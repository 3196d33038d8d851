"""Training the generator on an outcome table (our recipe; the paper's is not public).

The table's tasks are split by benchmark into training and validation; after each epoch the validation tasks get their
workflow, and the epoch whose choices have the highest mark is kept: their mean reward, shrunk as in training, because
a few dozen validation tasks are few. A choice that was never executed on its task counts as the mean of those that
were, and how often that happens is reported as (1 - coverage).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from graphflow.engine.episode import Task
from graphflow.generator.features import Encoder
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.objectives import Objective, Outcomes, build_objective
from graphflow.generator.outcomes import OutcomeTable, RewardConfig
from graphflow.wgraph.wgraph import WGraph
from graphflow.wgraph.workflow import Workflow


def train_generator(
    table: OutcomeTable,
    wgraph: WGraph,
    config: GeneratorConfig,
    progress: Callable[[dict[str, Any]], None] | None = None,
    start: Generator | None = None,
) -> Generator:
    """Train a generator.

    Args:
        table: Executed outcomes. Workflows that cannot be composed from the wGraph are left out, and reported.
        wgraph: The graph to compose from.
        config: How.
        progress: Called after each epoch with ``epoch``, ``loss``, and of the validation tasks ``mark``, ``reward``
            and ``coverage``.
        start: A generator whose weights training starts from, for a short update after the graph or the table grew.

    Returns:
        The generator. Its `Generator.report` has ``epoch`` (which was kept) with its ``loss``, ``mark``, ``reward`` and
        ``coverage``; ``best_fixed_reward`` and ``oracle_reward`` of the same validation tasks; how many ``tasks`` the
        table has; and the names of ``ignored`` workflows.

    Raises:
        ValueError: The table has fewer than 5 tasks, or none of its workflows lies in the wGraph.
    """
    tasks = table.tasks()
    if len(tasks) < 5:
        raise ValueError(f"training needs outcomes of at least 5 tasks, got {len(tasks)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        noise = torch.Generator().manual_seed(config.seed)
        model = copy.deepcopy(start.model) if start else None
        generator = Generator(config, wgraph, model, start.encoder if start else None)
        workflows, ignored = generator.sampler.composable(table.workflows.values())
        if not workflows:
            names = ", ".join(workflow.name for workflow in ignored)
            raise ValueError(f"none of the table's workflows lies in the wGraph: {names}")
        generator.remember(workflows)
        outcomes = tabulate(table, tasks, workflows, config.reward, generator.encoder)
        learn, check = split(tasks, config.validation, noise)
        lessons, exam = outcomes.at(learn), outcomes.at(check)
        held_out = [tasks[i] for i in check]
        objective = build_objective(config.objective, generator.sampler, generator.sampler.plans(workflows))
        benchmarks = [tasks[i].benchmark for i in learn]
        shrunk = shrink(lessons, benchmarks, lessons, benchmarks, config.shrinkage)
        marked = shrink(exam, [task.benchmark for task in held_out], lessons, benchmarks, config.shrinkage)
        objective.prepare(shrunk, noise)

        def examine() -> dict[str, float]:
            chosen = generator.choose(exam.features, [task.kind for task in held_out])
            reward, coverage = realised(chosen, exam, workflows)
            return {"mark": realised(chosen, marked, workflows)[0], "reward": reward, "coverage": coverage}

        kept = _fit(generator, objective, shrunk, examine, noise, progress)
    fixed = best_on(lessons, benchmarks)
    generator.report = {
        **kept,
        "best_fixed_reward": realised([workflows[fixed[task.benchmark]] for task in held_out], exam, workflows)[0],
        "oracle_reward": exam.reward.masked_fill(~exam.known, -math.inf).max(1).values.mean().item(),
        "tasks": len(tasks),
        "ignored": [workflow.name for workflow in ignored],
    }
    return generator


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
    values, known = torch.zeros(len(row), len(column)), torch.zeros(len(row), len(column), dtype=torch.bool)
    means = table.means(reward)
    for task, fingerprint, value in zip(means["task_id"], means["fingerprint"], means["reward"], strict=True):
        if fingerprint in column:
            values[row[task], column[fingerprint]] = float(value)
            known[row[task], column[fingerprint]] = True
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
    """Mean reward of one chosen workflow a task, and the share of choices that were executed on their task."""
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
    outcomes: Outcomes, benchmarks: Sequence[str], lessons: Outcomes, taught: Sequence[str], strength: float
) -> Outcomes:
    """Rewards drawn towards the workflow's mean on the benchmark: (reward + strength * mean) / (1 + strength).

    Args:
        outcomes: What to shrink.
        benchmarks: The benchmark of each of its tasks.
        lessons: Training outcomes, which the means are taken of; where they have none, the reward stays.
        taught: The benchmark of each of their tasks.
        strength: Weight of the mean, in executions.
    """
    reward = outcomes.reward.clone()
    for name in set(benchmarks):
        rows = torch.tensor([row for row, other in enumerate(benchmarks) if other == name])
        known_rows = [row for row, other in enumerate(taught) if other == name]
        part, means = outcomes.at(rows), lessons.at(torch.tensor(known_rows, dtype=torch.long))
        count = means.known.sum(0)
        mean = torch.where(count > 0, means.reward.sum(0) / count.clamp(min=1), part.reward)
        reward[rows] = (part.reward + strength * mean) / (1 + strength) * part.known
    return Outcomes(outcomes.features, reward, outcomes.known)


def _fit(
    generator: Generator,
    objective: Objective,
    lessons: Outcomes,
    examine: Callable[[], dict[str, float]],
    noise: torch.Generator,
    progress: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    """Gradient steps until validation stands still; leaves the best epoch's weights in the generator."""
    config, model = generator.config, generator.model
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best: dict[str, Any] = {"mark": -math.inf}
    weights = copy.deepcopy(model.state_dict())
    for epoch in range(config.epochs):
        model.train()
        losses = []
        for index in torch.randperm(len(lessons), generator=noise).split(config.batch):
            batch = lessons.at(index)
            loss = objective.loss(generator.logits(batch.features), batch, noise, epoch / config.epochs)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
        row = {"epoch": epoch, "loss": sum(losses) / len(losses), **examine()}
        if progress:
            progress(row)
        if row["mark"] > best["mark"] + 1e-9:
            best, weights = row, copy.deepcopy(model.state_dict())
        elif epoch - max(best["epoch"], config.objective.warm_start * config.epochs) >= config.patience:
            break
    model.load_state_dict(weights)
    model.eval()
    return best
