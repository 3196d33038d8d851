"""Training the generator on an outcome table (our recipe; the paper's is not public).

The table's tasks are split by benchmark into training and validation; after each epoch the validation tasks get their
workflow, and the epoch whose choices have the highest mark is kept: their mean reward, shrunk as in training, because
a few dozen validation tasks are few. A choice that nobody executed on the benchmark counts as the mean of what was
executed on its task, and how often a choice was not executed on its task is reported as (1 - coverage).

With the objective ``best`` the table grows: at the beginning of some epochs, the rounds, the generator draws workflows
for the training tasks, and the caller executes those that the table does not hold. Validation tasks get none: what a
fresh workflow is worth there is judged by what it earned on training tasks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from graphflow.engine.episode import Task
from graphflow.generator import checkpoint as checkpoints
from graphflow.generator.features import Encoder
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.lessons import Lessons, split
from graphflow.generator.objectives import build_objective
from graphflow.generator.outcomes import OutcomeTable
from graphflow.wgraph.wgraph import WGraph
from graphflow.wgraph.workflow import Workflow

Execute = Callable[[Sequence[tuple[Task, Workflow]]], None]


def train_generator(
    table: OutcomeTable,
    wgraph: WGraph,
    config: GeneratorConfig,
    progress: Callable[[dict[str, Any]], None] | None = None,
    start: Generator | None = None,
    execute: Execute | None = None,
    checkpoint: Path | None = None,
    encoder: Encoder | None = None,
) -> Generator:
    """Train a generator.

    Args:
        table: Executed outcomes. Workflows that cannot be composed from the wGraph are left out, and reported. Rows
            that are added while the training runs count only if the training asked ``execute`` for them.
        wgraph: The graph to compose from.
        config: How.
        progress: Called after each epoch with ``epoch``, ``loss``, and of the validation tasks ``mark``, ``reward``
            and ``coverage``; when a training is resumed, at once for the epochs that it had.
        start: A generator whose weights training starts from, for a short update after the graph or the table grew.
        execute: For the objective ``best``: runs workflows on tasks and adds one row of each pair to ``table``. The
            tasks are the table's: id, benchmark, kind and text.
        checkpoint: File that is written after every epoch and removed in the end; where it is there, the training goes
            on from it, to the same weights, bit for bit on one machine.
        encoder: What encodes texts, in place of a new one of ``config.features``; those of ``start`` come first.

    Returns:
        The generator. Its `Generator.report` has ``epoch`` (which was kept) with its ``loss``, ``mark``, ``reward`` and
        ``coverage``; ``best_fixed_reward`` and ``oracle_reward`` of the same validation tasks; how many ``tasks`` the
        table has; the names of ``ignored`` workflows; and ``fresh``, how many pairs ``execute`` was asked for.

    Raises:
        ValueError: The table has fewer than 5 tasks, or none of its workflows lies in the wGraph, or the objective is
            ``best`` and there is no ``execute``, or it adds no row of a pair.
        CheckpointError: The checkpoint is damaged, or is one of another training.
    """
    if config.objective.kind.executes and execute is None:
        raise ValueError(
            "objective 'best' executes workflows while it trains: give train_generator an `execute`, "
            "or train for 'expected', which needs the table alone"
        )
    saved = checkpoints.read(checkpoint) if checkpoint and checkpoint.exists() else None
    seen = table.head(saved["rows"] if saved else len(table))
    about = {"of": checkpoints.identity(config, wgraph, seen, start), "rows": len(seen)} if checkpoint else {}
    if checkpoint and saved:
        checkpoints.check(checkpoint, saved["of"], about["of"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        course = Course(seen, wgraph, config, start, encoder)

        def keep() -> None:
            if checkpoint:
                checkpoints.write(checkpoint, {**about, "state": course.state()})

        if saved:
            course.resume(saved["state"], table)
        else:
            course.begin()
            keep()  # what the first round adds to the table is not among the rows it began with
        for row in course.rows:
            if progress:
                progress(row)
        while not course.over():
            if execute and course.round_is_due():
                course.explore(table, execute)
            row = course.epoch()
            keep()
            if progress:
                progress(row)
        course.finish()
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return course.generator


class Course:
    """One training, epoch by epoch. What the next epoch hangs on is in `state`, or follows from the arguments.

    Attributes:
        generator: What is trained.
        seen: The outcomes that are learned from, a table of its own.
        rows: What was measured after each epoch.
        asked: Task ids and fingerprints of the pairs that rounds had executed.
    """

    def __init__(
        self,
        seen: OutcomeTable,
        wgraph: WGraph,
        config: GeneratorConfig,
        start: Generator | None,
        encoder: Encoder | None,
    ) -> None:
        tasks = seen.tasks()
        if len(tasks) < 5:
            raise ValueError(f"training needs outcomes of at least 5 tasks, got {len(tasks)}")
        self.seen, self.config = seen, config
        self.noise = torch.Generator().manual_seed(config.seed)
        model = copy.deepcopy(start.model) if start else None
        self.generator = Generator(config, wgraph, model, start.encoder if start else encoder)
        self.model = self.generator.model
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.parts = split(tasks, config.validation, self.noise)
        self.rounds = rounds_of(config) if config.objective.kind.executes else []
        self.rows: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.best: dict[str, Any] = {"mark": -math.inf}
        self.weights = copy.deepcopy(self.model.state_dict())
        self.study()

    def study(self) -> None:
        """Read what was seen, anew when it has grown."""
        sampler, config = self.generator.sampler, self.config
        workflows, ignored = sampler.composable(self.seen.workflows.values())
        self.ignored = [workflow.name for workflow in ignored]
        if not workflows:
            raise ValueError(f"none of the table's workflows lies in the wGraph: {', '.join(self.ignored)}")
        self.generator.remember(workflows)
        self.lessons = Lessons.of(
            self.seen, workflows, self.parts, config.reward, config.shrinkage, self.generator.encoder
        )
        self.objective = build_objective(config.objective, sampler, sampler.plans(workflows))

    def begin(self) -> None:
        """Before the first epoch of a training that is not resumed."""
        self.objective.prepare(self.lessons.taught, self.noise)

    def over(self) -> bool:
        """Whether all epochs are through, or validation stands still."""
        done, config = len(self.rows), self.config
        if not done:
            return False
        counts_from = max(self.best["epoch"], config.objective.warm_start * config.epochs, *self.rounds)
        return done >= config.epochs or done - 1 - counts_from >= config.patience

    def epoch(self) -> dict[str, Any]:
        """Gradient steps over all training tasks, then what the validation tasks say."""
        number, losses = len(self.rows), []
        self.model.train()
        for index in torch.randperm(len(self.lessons.taught), generator=self.noise).split(self.config.batch):
            batch = self.lessons.taught.at(index)
            logits = self.generator.logits(batch.features)
            loss = self.objective.loss(logits, batch, self.noise, number / self.config.epochs)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            losses.append(loss.item())
        row = {"epoch": number, "loss": sum(losses) / len(losses), **self.examine()}
        self.rows.append(row)
        if row["mark"] > self.best["mark"] + 1e-9:
            self.best, self.weights = row, copy.deepcopy(self.model.state_dict())
        return row

    def examine(self) -> dict[str, float]:
        """What the generator's choices for the validation tasks are worth."""
        kinds = [task.kind for task in self.lessons.held_out]
        return self.lessons.examine(self.generator.choose(self.lessons.exam.features, kinds))

    def round_is_due(self) -> bool:
        """Whether workflows are drawn before the next epoch."""
        return len(self.rows) in self.rounds

    def explore(self, table: OutcomeTable, execute: Execute) -> None:
        """Draw workflows for the training tasks and learn from then on what they are worth, too.

        What the table holds already is not executed: a resumed training draws the same workflows again.
        """
        drawn = {}
        for _ in range(self.config.objective.fresh):
            workflows = self.generator.sample(self.lessons.learners, self.noise)
            for task, workflow in zip(self.lessons.learners, workflows, strict=True):
                drawn.setdefault((task.id, workflow.fingerprint), (task, workflow))
        held, there = self.seen.pairs(), table.pairs()
        wanted = {pair: both for pair, both in drawn.items() if pair not in held}
        left = [both for pair, both in wanted.items() if pair not in there]
        if left:
            with torch.random.fork_rng(devices=[]):
                execute(left)
        self.learn_of(table, list(wanted))
        if self.rows:  # the mark of the kept weights is to be compared with marks that are made of the same outcomes
            now = copy.deepcopy(self.model.state_dict())
            self.model.load_state_dict(self.weights)
            self.best = {**self.best, **self.examine()}
            self.model.load_state_dict(now)

    def learn_of(self, table: OutcomeTable, pairs: list[tuple[str, str]]) -> None:
        """Take a table's outcomes of fresh pairs into what was seen."""
        self.seen.take(table, pairs)
        self.asked += pairs
        self.study()

    def state(self) -> dict[str, Any]:
        """For `resume`: tensors and plain values."""
        return {
            "rows": self.rows,
            "asked": self.asked,
            "best": self.best,
            "weights": self.weights,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "objective": self.objective.state(),
            "noise": self.noise.get_state(),
            "dropout": torch.get_rng_state(),
        }

    def resume(self, state: dict[str, Any], table: OutcomeTable) -> None:
        """Go on after the epoch that a state is of.

        Raises:
            ValueError: The table has lost outcomes that the training had executed.
        """
        if state["asked"]:
            self.learn_of(table, state["asked"])
        self.rows, self.best, self.weights = state["rows"], state["best"], state["weights"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.objective.restore(state["objective"])
        self.noise.set_state(state["noise"])
        torch.set_rng_state(state["dropout"])

    def finish(self) -> None:
        """Leave the best epoch's weights, and the report, in the generator."""
        self.model.load_state_dict(self.weights)
        self.model.eval()
        self.generator.report = {
            **self.best,
            **self.lessons.bounds(),
            "tasks": len(self.seen.tasks()),
            "ignored": self.ignored,
            "fresh": len(self.asked),
        }


def rounds_of(config: GeneratorConfig) -> list[int]:
    """The epochs that begin with a round: the first after the warm start, the others evenly over those that remain.

    Raises:
        ValueError: The warm start leaves no epoch.
    """
    epochs, warm_start = config.epochs, config.objective.warm_start
    rest = [epoch for epoch in range(epochs) if epoch / epochs >= warm_start]
    if not rest:
        raise ValueError(
            f"objective 'best' needs an epoch after the warm start, "
            f"got generator.epochs={epochs} with objective.warm_start={warm_start}"
        )
    rounds = config.objective.rounds
    return sorted({rest[i * len(rest) // rounds] for i in range(rounds)})
