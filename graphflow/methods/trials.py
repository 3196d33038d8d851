"""What a method may try out while it is fitted: executions and proposals, counted, capped and never paid for twice.

A search that is stopped goes on where it was: everything that was executed or written is in a journal, and a search
that draws from its own seed asks for the same again. The cap is the same for every method, so that none wins by trying
more (our choice: the originals differ by two orders of magnitude).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from graphflow.engine.episode import Episode, Task
from graphflow.methods.proposing import Proposal
from graphflow.wgraph.operation import Operation
from graphflow.wgraph.workflow import TASK, Step, Workflow

Serve = Callable[[Sequence[tuple[Task, Workflow]]], Iterator[tuple[Episode, float]]]
"""Executes workflows on tasks and scores the answers, in any order; episodes carry their task's id."""
Room = Callable[[Operation, str], bool]
"""Whether an operation that reads a text, with all that it may write, has room in a context of the backbone."""


class BudgetSpent(RuntimeError):
    """The next thing to try would cost more than is left; the search ends with the best that it has."""


@dataclass
class TrialConfig:
    """Caps on what fitting a method may cost on one benchmark.

    Attributes:
        tasks: Validation tasks that a search may look at, 1 or more (64 is our choice, as many as the main table's
            methods that learn from outcomes have training tasks; AFlow's validation part of GSM8K has 264).
        llm_calls: Language-model calls, proposals among them, 1 or more.
        tokens: Tokens of a search, run through the model or generated, 0 or more; 0 is no cap. A workflow is not begun
            once they are spent, and one that was begun is finished.
        refit: Whether to search even where the package has a result of the same search.

    Raises:
        ValueError: A number is out of range.
    """

    tasks: int = 64
    llm_calls: int = 20_000
    tokens: int = 0
    refit: bool = False

    def __post_init__(self) -> None:
        for name, least in (("tasks", 1), ("llm_calls", 1), ("tokens", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"trials.{name} must be an integer of {least} or more, got {value!r}")


@dataclass(frozen=True)
class Spent:
    """What fitting has cost.

    Attributes:
        tasks: Validation tasks that were looked at.
        executions: Workflows that were executed on one task.
        proposals: Texts that were asked for.
        llm_calls: Language-model calls of both.
        tokens: Tokens of both, run or generated.
        seconds: Latencies of both, added up.
        failed: Executions and proposals that ended with an error, a request that a server refused for example.
    """

    tasks: int = 0
    executions: int = 0
    proposals: int = 0
    llm_calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    failed: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Trial:
    """One execution of a workflow.

    Attributes:
        task: The task's id.
        metric: Its score, in [0, 1].
        llm_calls: Language-model calls.
        tokens: Tokens run or generated.
        latency_s: Seconds.
    """

    task: str
    metric: float
    llm_calls: int
    tokens: int
    latency_s: float


class Trials:
    """Tasks to try on, and the engine to try with.

    Attributes:
        tasks: Validation tasks; never test tasks.
        spent: What was spent, by this process or one before it.

    Args:
        tasks: Validation tasks; the first ``config.tasks`` are used.
        serve: Executes and scores.
        config: Caps.
        journal: File that every trial is added to; None keeps them in memory.
        scripted: Whether scripts write proposals in place of the model.
        room: Whether the model has room for a proposal; None where it has for all.
        bound: Calls that a workflow may make on a task at most; None: as the dearest task so far.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        serve: Serve,
        config: TrialConfig | None = None,
        journal: Path | None = None,
        scripted: bool = False,
        room: Room | None = None,
        bound: Callable[[Workflow], int] | None = None,
    ) -> None:
        self._room, self._bound = None if scripted else room, bound
        self.config = config or TrialConfig()
        self.tasks, self.scripted = tuple(tasks[: self.config.tasks]), scripted
        self._serve, self._journal = serve, journal
        self._trials: dict[tuple[str, str, int], Trial] = {}
        self._texts: dict[str, str] = {}
        self.spent = Spent()
        for line in _whole_lines(journal) if journal and journal.exists() else ():
            self._remember(json.loads(line))

    def execute(self, workflow: Workflow, tasks: Sequence[Task] | None = None, repeat: int = 0) -> list[Trial]:
        """Results of a workflow on some tasks, in their order; those that are known are not executed again.

        Args:
            workflow: Valid.
            tasks: Some of `tasks`; None for all.
            repeat: Number of the repetition: another one is executed anew.

        Raises:
            BudgetSpent: The calls that are left would not do, if each task cost what it may cost at most.
            ValueError: A task that is not among those to try on.
        """
        wanted = self.tasks if tasks is None else tuple(tasks)
        if strange := [task.id for task in wanted if task not in self.tasks]:
            raise ValueError(f"tasks to try on are {len(self.tasks)} validation tasks, {strange[0]!r} is none of them")
        keys = [(task.id, workflow.fingerprint, repeat) for task in wanted]
        missing = [task for task, key in zip(wanted, keys, strict=True) if key not in self._trials]
        dearest = max((trial.llm_calls for trial in self._trials.values()), default=1)
        self._afford(len(missing), self._bound(workflow) if self._bound else dearest)
        unique = {f"{task.id}#{repeat}" if repeat else task.id: task for task in missing}
        for episode, metric in self._serve([(replace(task, id=id), workflow) for id, task in unique.items()]):
            trial = Trial(unique[episode.task_id].id, metric, episode.llm_calls, _tokens(episode), episode.latency_s)
            self._add({"fingerprint": workflow.fingerprint, "repeat": repeat, **asdict(trial)}, episode.error)
        return [self._trials[key] for key in keys]

    def mean(self, workflow: Workflow, tasks: Sequence[Task] | None = None, repeats: int = 1) -> float:
        """Mean metric of a workflow over tasks and repetitions; see `execute`."""
        found = [trial.metric for repeat in range(repeats) for trial in self.execute(workflow, tasks, repeat)]
        return sum(found) / len(found)

    def roomy(self, proposal: Proposal, texts: Iterable[str]) -> str:
        """The first text that the model has room for, else the last; a script has room for all."""
        chosen = ""
        for chosen in texts:
            if self._room is None or self._room(proposal.operation, chosen):
                break
        return chosen

    def write(self, proposal: Proposal, text: str, seed: int = 0) -> str:
        """What the model, or the script in its place, writes when it reads a text.

        Args:
            proposal: What is asked for; its operation must be in the library of the executor.
            text: What it reads, as a task.
            seed: Tells repetitions of one text apart; sampling operations draw anew.

        Raises:
            BudgetSpent: No call is left.
        """
        key = hashlib.sha256(f"{proposal.name}/{seed}/{text}".encode()).hexdigest()[:16]
        if key not in self._texts:
            self._afford(0 if self.scripted else 1, 1)
            step = Step(proposal.name, proposal.name, (TASK,))
            task = Task(f"proposal/{key}", "", "", text)
            pairs = [(task, Workflow(proposal.name, (), (step,), step.id))]
            for episode, _ in self._serve(pairs):
                self._add(
                    {
                        "proposal": key,
                        "text": episode.answer,
                        "llm_calls": episode.llm_calls,
                        "tokens": _tokens(episode),
                        "latency_s": episode.latency_s,
                    },
                    episode.error,
                )
        return self._texts[key]

    def _afford(self, executions: int, calls: int) -> None:
        if not executions:
            return
        need = self.spent.llm_calls + executions * calls
        if need > self.config.llm_calls:
            raise BudgetSpent(
                f"trials.llm_calls is {self.config.llm_calls:,}; with {executions} more it may be {need:,}"
            )
        if 0 < self.config.tokens <= self.spent.tokens:
            raise BudgetSpent(f"trials.tokens is {self.config.tokens:,}, {self.spent.tokens:,} are spent")

    def _add(self, row: dict[str, Any], error: str) -> None:
        """Note a trial, on disk first; one that failed is counted, and made again when the search goes on later."""
        self.spent += Spent(failed=int(bool(error)))
        if self._journal and not error:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._remember(row)

    def _remember(self, row: dict[str, Any]) -> None:
        cost = Spent(llm_calls=row["llm_calls"], tokens=row["tokens"], seconds=row["latency_s"])
        if "proposal" in row:
            self._texts[row["proposal"]] = row["text"]
            self.spent += cost + Spent(proposals=1)
            return
        trial = Trial(**{field.name: row[field.name] for field in fields(Trial)})
        new = trial.task not in {task for task, _, _ in self._trials}
        self._trials[trial.task, row["fingerprint"], row["repeat"]] = trial
        self.spent += cost + Spent(tasks=int(new), executions=1)


def _tokens(episode: Episode) -> int:
    return episode.total("prefill_tokens") + episode.total("output_tokens")


def _whole_lines(journal: Path) -> list[str]:
    """The lines of a journal; the rest of one that a kill cut short is taken out, so that the next one stands alone."""
    text = journal.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        journal.write_text(whole, encoding="utf-8")
    return whole.splitlines()
