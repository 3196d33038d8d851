"""Which of the steps that wait for a place in the batch comes next (our choice; all of them serve the same tasks).

A scheduler orders the queue, nothing else: places are given in that order for as long as they last.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Workflow

PATIENCE = 64
"""A step that so many others have overtaken is overtaken no more."""


@dataclass(eq=False)
class Waiting:
    """A step that could run.

    Attributes:
        number: Place in the order in which steps became ready.
        op: Its operation.
        rows: Places that it takes: its samples.
        remaining: Language-model steps on the longest way from it to the answer, itself included.
        resident: True if the stored state of its prompt is decoded already.
        overtaken: Later steps that went before it.
        what: What the step is; not for schedulers.
    """

    number: int
    op: str
    rows: int = 1
    remaining: int = 1
    resident: bool = False
    overtaken: int = 0
    what: Any = None


class Scheduler(ABC):
    """Orders steps; those that have been overtaken too often come first whatever it prefers."""

    def order(self, queue: Sequence[Waiting]) -> list[Waiting]:
        """The queue, the next one first; steps alike in the order in which they became ready."""
        rank = {step.number: rank for step, rank in zip(queue, self.ranks(queue), strict=True)}

        def key(step: Waiting) -> tuple[int, int, int]:
            return (1, rank[step.number], step.number) if step.overtaken < PATIENCE else (0, 0, step.number)

        return sorted(queue, key=key)

    @abstractmethod
    def ranks(self, queue: Sequence[Waiting]) -> list[int]:
        """For every step its rank; lower goes first."""


class Fifo(Scheduler):
    """In the order in which they became ready."""

    def ranks(self, queue: Sequence[Waiting]) -> list[int]:
        """All alike."""
        return [0] * len(queue)


class SameOperation(Scheduler):
    """All steps of the operation whose step waits longest, then all of the next one."""

    def ranks(self, queue: Sequence[Waiting]) -> list[int]:
        """The number of the operation's earliest step."""
        earliest: dict[str, int] = {}
        for step in queue:
            earliest[step.op] = min(step.number, earliest.get(step.op, step.number))
        return [earliest[step.op] for step in queue]


class CriticalPath(Scheduler):
    """The step with the longest way to its answer first."""

    def ranks(self, queue: Sequence[Waiting]) -> list[int]:
        """Longer is lower."""
        return [-step.remaining for step in queue]


class ResidentFirst(Scheduler):
    """Steps whose prompt's stored state is decoded before those whose state is not."""

    def ranks(self, queue: Sequence[Waiting]) -> list[int]:
        """Resident, then not."""
        return [int(not step.resident) for step in queue]


class Schedule(Enum):
    """Schedulers by name."""

    FIFO = "fifo"
    SAME_OPERATION = "same_operation"
    CRITICAL_PATH = "critical_path"
    RESIDENT_FIRST = "resident_first"


def scheduler(kind: Schedule) -> Scheduler:
    """The scheduler of that name."""
    match kind:
        case Schedule.FIFO:
            return Fifo()
        case Schedule.SAME_OPERATION:
            return SameOperation()
        case Schedule.CRITICAL_PATH:
            return CriticalPath()
        case Schedule.RESIDENT_FIRST:
            return ResidentFirst()


def take(queue: Sequence[Waiting], places: int) -> list[Waiting]:
    """The steps at the head of an ordered queue that find places; those that they overtake are told so.

    Args:
        queue: In order.
        places: Free ones.
    """
    chosen: list[Waiting] = []
    for step in queue:
        if step.rows > places:
            break
        chosen.append(step)
        places -= step.rows
    for step in queue[len(chosen) :]:
        step.overtaken += sum(other.number > step.number for other in chosen)
    return chosen


def ways(workflow: Workflow, library: Library) -> dict[str, int]:
    """For every step the language-model steps on the longest way from it to the answer, itself included."""
    found: dict[str, int] = {}
    for step in reversed(workflow.steps):
        readers = [
            other.id
            for other in workflow.steps
            if step.id in other.inputs or (other.when and other.when.step == step.id)
        ]
        own = library[step.op].kind is Kind.LLM
        found[step.id] = own + max((found[reader] for reader in readers), default=0)
    return found
