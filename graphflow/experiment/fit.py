"""What methods learn from: outcomes of the repository's workflows on training tasks, and the generator trained on them.

Both are kept under the runs folder by the hash of what determines them, so that every cell of a sweep shares one table
and one generator. Outcomes are collected in stateful mode: what a workflow is worth does not hang on how state is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphflow.backbone.config import BackboneError
from graphflow.benchmarks.base import Benchmark, Example
from graphflow.engine.engine import Engine
from graphflow.engine.episode import Episode, Task
from graphflow.experiment.plan import Split
from graphflow.experiment.record import RunDir, file_digest
from graphflow.generator.outcomes import OutcomeTable, collect
from graphflow.methods.agentkb import KNOWLEDGE, AgentKB
from graphflow.methods.base import Method
from graphflow.methods.trials import Spent
from graphflow.paths import PACKAGE
from graphflow.wgraph.workflow import Workflow

MINI = ("mini-gsm8k", "mini-math", "mini-hotpotqa", "mini-humaneval", "mini-mbpp")
Repertoire = Callable[[Task], Sequence[Workflow]]
Run = Callable[[Sequence[tuple[Task, Workflow]]], Iterator[Episode]]


@dataclass
class FitConfig:
    """What is learned from.

    Attributes:
        benchmarks: Names of the benchmarks whose tasks are executed; one table and one generator for all of them.
        train_tasks: Tasks of each, at least 1 and at least 5 in all: the generator keeps a part for early stopping.
        explore: Random recombinations of the wGraph that are executed on each task besides the repository's workflows,
            0 or more.
        split: Part of the benchmark; a benchmark without a training part is learned on its validation part.

    Raises:
        ValueError: ``train_tasks`` or ``explore`` is out of range, or ``split`` is the test part.
    """

    benchmarks: list[str] = field(default_factory=lambda: list(MINI))
    train_tasks: int = 40
    explore: int = 0
    split: Split = Split.TRAIN

    def __post_init__(self) -> None:
        lowest = max(1, -(-5 // max(len(self.benchmarks), 1)))
        if self.train_tasks < lowest:
            raise ValueError(
                f"fit.train_tasks must be {lowest} or more (5 over {len(self.benchmarks)} benchmarks), "
                f"got {self.train_tasks}"
            )
        if self.explore < 0:
            raise ValueError(f"fit.explore must be 0 or more, got {self.explore}")
        if self.split is Split.TEST:
            raise ValueError("fit.split must be train or validation, got 'test': methods may not learn from it")


def open_table(folder: Path) -> OutcomeTable:
    """The outcome table of a folder, as far as it is filled."""
    folder.mkdir(parents=True, exist_ok=True)
    return OutcomeTable(folder / "outcomes.parquet")


def pairs_left(
    table: OutcomeTable, examples: Sequence[Example], repertoire: Repertoire, seed: int
) -> set[tuple[str, str]]:
    """What `fill` has still to execute for these examples: task ids and fingerprints."""
    return {
        (example.task.id, workflow.fingerprint)
        for example in examples
        for workflow in repertoire(example.task)
        if (example.task.id, workflow.fingerprint, seed) not in table
    }


def fill(
    table: OutcomeTable,
    benchmark: Benchmark,
    examples: Sequence[Example],
    repertoire: Repertoire,
    run: Run,
    seed: int,
    on_episode: Callable[[Episode], None] = lambda episode: None,
) -> int:
    """Execute what the table does not hold yet of every example's workflows.

    Args:
        table: Grows by one row an execution.
        benchmark: Scores the answers.
        examples: Training examples of this benchmark.
        repertoire: The workflows to execute on a task.
        run: Executes pairs, one episode each, in any order.
        seed: Sampling seed that the rows are filed under.
        on_episode: Called after each episode.

    Returns:
        How many were executed.

    Raises:
        BackboneError: A server does not answer any more; what was executed before is in the table and its journal.
    """
    by_id = {example.task.id: example for example in examples}
    scores: dict[tuple[str, str], float] = {}

    def run_and_score(part: Sequence[tuple[Task, Workflow]]) -> Iterator[Episode]:
        for episode, score in scored(run(part), benchmark, lambda episode: by_id[episode.task_id], on_episode):
            scores[episode.task_id, episode.answer] = score
            yield episode

    added = collect(
        table,
        [example.task for example in examples],
        repertoire,
        run_and_score,
        lambda task, answer: scores[task.id, answer],
        seed,
    )
    if added:
        table.save()
    return added


def scored(
    episodes: Iterator[Episode],
    benchmark: Benchmark,
    example_of: Callable[[Episode], Example | None],
    on_episode: Callable[[Episode], None],
    read: Callable[[Task, str], str] = lambda task, answer: answer,
) -> Iterator[tuple[Episode, float]]:
    """Episodes with their scores, once all have ended; those without an example have 0 and come as they end.

    Args:
        episodes: As they end.
        benchmark: Scores the answers.
        example_of: The example that an episode's answer is for; None for none.
        on_episode: Called after each episode that has one.
        read: Gives the part of an answer that is scored.

    Raises:
        BackboneError: A server does not answer any more; what it answered before is given first.
    """
    tried, gone = list[tuple[Episode, Example]](), None
    try:
        for episode in episodes:
            example = example_of(episode)
            if example is None:
                yield episode, 0.0
            else:
                tried.append((episode, example))
                on_episode(episode)
    except BackboneError as error:
        gone = error
    answers = [read(example.task, episode.answer) for episode, example in tried]
    scores = benchmark.score_many([example for _, example in tried], answers) if tried else []
    yield from zip([episode for episode, _ in tried], scores, strict=True)
    if gone:
        raise gone


@dataclass(frozen=True)
class Fresh:
    """Executes a generator's own workflows while it learns, and files them in a table.

    Attributes:
        table: Grows by one row a pair.
        benchmark: The benchmark of a name.
        run: Executes pairs, one episode each.
        split: Where the tasks are found again; the table has their texts only.
        seed: Sampling seed that the rows are filed under.
        told: Called with the name of a benchmark and how many pairs were executed there.

    Raises:
        ValueError: A task of the table is not in the split, or is another one there.
    """

    table: OutcomeTable
    benchmark: Callable[[str], Benchmark]
    run: Run
    split: str
    seed: int
    told: Callable[[str, int], None] = lambda name, added: None

    def __call__(self, pairs: Sequence[tuple[Task, Workflow]]) -> None:
        """Execute pairs, one benchmark after the other."""
        wanted: dict[str, list[Workflow]] = defaultdict(list)
        tasks: dict[str, dict[str, Task]] = defaultdict(dict)
        for task, workflow in pairs:
            wanted[task.id].append(workflow)
            tasks[task.benchmark][task.id] = task
        for name, own in tasks.items():
            benchmark = self.benchmark(name)
            examples = {example.task.id: example for example in benchmark.examples(self.split)}
            for task in own.values():
                if task.id not in examples or examples[task.id].task.text != task.text:
                    raise ValueError(f"task {task.id!r} of the table is not in {name}, split {self.split}")
            chosen = [examples[id] for id in own]
            added = fill(self.table, benchmark, chosen, lambda task: wanted[task.id], self.run, self.seed)
            self.told(name, added)


@dataclass(frozen=True)
class PairRunner:
    """Runs (task, workflow) pairs on an executor, several workflows of one task at once."""

    executor: Engine

    def __call__(self, pairs: Sequence[tuple[Task, Workflow]]) -> Iterator[Episode]:
        """One episode a pair, in order of completion."""
        tasks, chosen, names = [], {}, {}
        for task, workflow in pairs:
            unique = f"{task.id}@{workflow.fingerprint}"
            tasks.append(replace(task, id=unique))
            chosen[unique], names[unique] = workflow, task.id
        for episode in self.executor.run(tasks, lambda batch: [chosen[task.id] for task in batch]):
            yield replace(episode, task_id=names[episode.task_id])


def learn(method: Method, table: OutcomeTable, folder: Path) -> None:
    """Fit a method on outcomes. The knowledge base of `agentkb` is read if it is kept beside them, else kept there.

    Args:
        method: Not fitted yet.
        table: What it learns from, whole.
        folder: Of the table; that of the knowledge base is named by the code that made it.
    """
    if not isinstance(method, AgentKB):
        method.fit(table)
        return
    kept = RunDir(folder, "knowledge-" + file_digest(PACKAGE / "methods" / "agentkb.py"))
    with kept.locked(wait=True):
        if not (kept.path / KNOWLEDGE).exists():
            method.fit(table)
            method.save(kept.path)
    method.load(kept.path)


def spent(table: OutcomeTable, benchmark: str) -> Spent:
    """What a table's executions on tasks of one benchmark have cost."""
    frame: Any = table.frame
    own = frame[frame["benchmark"] == benchmark]
    calls, tokens, seconds = (own[name].sum() for name in ("llm_calls", "tokens", "latency_s"))
    return Spent(own["task_id"].nunique(), len(own), 0, int(calls), int(tokens), float(seconds))
