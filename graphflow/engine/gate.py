"""Tasks before they are admitted: those that are still to arrive, and those that have arrived and wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice

from graphflow.engine.arrivals import Arrivals, arrival_times
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, Task
from graphflow.wgraph.workflow import Workflow

Build = Callable[[Sequence[Task]], list[Workflow]]
CANCELLED, LATE = "cancelled", "timeout"  # how the reasons begin


def late(limit: float) -> str:
    """Why a task failed that ran out of time."""
    return f"{LATE}: not done {limit:g} s after it arrived (engine.timeout_s)"


@dataclass(eq=False)
class Arrived:
    """A task that has arrived and is not admitted.

    Attributes:
        task: The task.
        at: Clock at arrival, seconds.
        workflow: Its workflow, once built.
        build_s: Seconds that building it took.
    """

    task: Task
    at: float
    workflow: Workflow | None = None
    build_s: float = 0.0


class Gate:
    """Lets tasks arrive as the settings say, and has their workflows built.

    Attributes:
        closed: True if tasks arrive only when there is a place.
        here: Tasks that have arrived, the first ones first.

    Args:
        tasks: In order of arrival.
        build: Gives a workflow for each of some tasks.
        config: Settings.
        clock: Seconds, monotonic; tasks begin to arrive now.
    """

    def __init__(self, tasks: Sequence[Task], build: Build, config: EngineConfig, clock: Callable[[], float]) -> None:
        kind = Arrivals(config.arrivals)
        self.closed, self.here = kind is Arrivals.CLOSED, deque[Arrived]()
        self._build, self._clock, self._began = build, clock, clock()
        self._coming = deque(zip(tasks, arrival_times(kind, config.rate, config.seed), strict=False))

    def __bool__(self) -> bool:
        """True while a task is left that has not been admitted."""
        return bool(self._coming or self.here)

    def __contains__(self, task_id: object) -> bool:
        return any(
            task.id == task_id for task in (*(task for task, _ in self._coming), *(own.task for own in self.here))
        )

    @property
    def next_s(self) -> float:
        """Seconds until the next task arrives by itself; 0 if none will."""
        due = self._coming[0][1] if self._coming else None
        return 0.0 if due is None else max(0.0, self._began + due - self._clock())

    def arrive(self, places: int) -> None:
        """Lets tasks in whose time has come, or in a closed loop as many as there are places for."""
        now, places = self._clock(), places - len(self.here)
        while self._coming:
            task, due = self._coming[0]
            if places <= 0 if due is None else self._began + due > now:
                break
            self._coming.popleft()
            self.here.append(Arrived(task, now if due is None else self._began + due))
            places -= 1

    def first(self, count: int) -> list[tuple[Arrived, Workflow]]:
        """The first of the tasks that are here, with their workflows."""
        found = list(islice(self.here, count))
        new = [arrived for arrived in found if arrived.workflow is None]
        if new:
            began = self._clock()
            for arrived, workflow in zip(new, self._build([arrived.task for arrived in new]), strict=True):
                arrived.workflow = workflow
            for arrived in new:
                arrived.build_s = self._clock() - began
        return [(arrived, arrived.workflow) for arrived in found if arrived.workflow is not None]

    def expire(self, cancelled: Collection[str], limit: float) -> list[Episode]:
        """Episodes of tasks that are cancelled, or have waited for longer than the limit; 0 for none."""
        now, ended = self._clock(), []
        for arrived in list(self.here):
            error = CANCELLED if arrived.task.id in cancelled else late(limit) if 0 < limit < now - arrived.at else ""
            if error:
                self.here.remove(arrived)
                ended.append(never_admitted(arrived.task, now - arrived.at, error))
        gone = [(task, due) for task, due in self._coming if task.id in cancelled] if cancelled else []
        for task, due in gone:
            self._coming.remove((task, due))
            ended.append(never_admitted(task, 0.0, CANCELLED))
        return ended


def never_admitted(task: Task, waited: float, error: str) -> Episode:
    """The episode of a task that never began."""
    return Episode(task.id, task.benchmark, "", "", latency_s=waited, waited_s=waited, error=error)
