"""An honest remaining time: what is left of everything, at the rates that were really measured so far.

Cells differ tenfold in how long a task takes, so counting tasks would lie. A cell's rate is its own measured seconds a
task if it has begun, else the mean of cells that share its benchmark, else of those that share its method, else of all;
before the first episode there is no rate and no time is shown.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text


@dataclass
class Unit:
    """One piece of work, for example a cell.

    Attributes:
        label: Shown while it is worked on.
        amount: Pieces in it, for example tasks; those done before this start are not counted.
        benchmark: Work on the same benchmark goes at a similar rate.
        method: Work by the same method goes at a similar rate, if less so.
        done: Pieces done.
        seconds: Time they took.
    """

    label: str
    amount: int
    benchmark: str = ""
    method: str = ""
    done: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Pieces that are left."""
        return max(self.amount - self.done, 0)


@dataclass
class Remaining:
    """The estimate over all units."""

    units: Sequence[Unit] = field(default_factory=list)

    def seconds(self) -> float | None:
        """Seconds of work left; None before anything was measured."""
        pools: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])
        for unit in self.units:
            for key in (("benchmark", unit.benchmark), ("method", unit.method), ("all", "")):
                pools[key][0] += unit.seconds
                pools[key][1] += unit.done
        if pools["all", ""][1] == 0:
            return None
        return sum(unit.left * self._rate(unit, pools) for unit in self.units)

    @staticmethod
    def _rate(unit: Unit, pools: dict[tuple[str, str], list[float]]) -> float:
        if unit.done:
            return unit.seconds / unit.done
        for key in (("benchmark", unit.benchmark), ("method", unit.method), ("all", "")):
            seconds, done = pools[key]
            if done:
                return seconds / done
        raise AssertionError("the pool of all units has a rate once anything was done")


class _RemainingColumn(ProgressColumn):
    def __init__(self, remaining: Remaining) -> None:
        super().__init__()
        self.remaining = remaining

    def render(self, task: Task) -> Text:
        """The time left over all work."""
        seconds = self.remaining.seconds()
        return Text("measuring" if seconds is None else f"{clock(seconds)} left", style="cyan")


class WorkProgress:
    """Shows where the work is and how much is left."""

    def __init__(self, progress: Progress, remaining: Remaining) -> None:
        self._progress, self._remaining = progress, remaining
        self._bar = progress.add_task("", total=sum(unit.amount for unit in remaining.units))

    @contextmanager
    def working_on(self, unit: Unit) -> Iterator[None]:
        """Time a unit; what it did not need (it was finished before) is taken off the total."""
        self._progress.update(self._bar, description=unit.label)
        self._last = time.monotonic()
        self._unit = unit
        yield
        if unit.left:
            unit.amount = unit.done
            self._progress.update(self._bar, total=sum(item.amount for item in self._remaining.units))

    def advance(self, amount: int = 1) -> None:
        """So many pieces of the current unit are done."""
        now = time.monotonic()
        self._unit.done += amount
        self._unit.seconds += now - self._last
        self._last = now
        self._progress.advance(self._bar, amount)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, highlight=False)


@contextmanager
def work_progress(units: Sequence[Unit], console: Console | None = None) -> Iterator[WorkProgress]:
    """A progress display over all units."""
    remaining = Remaining(units)
    columns = (SpinnerColumn(), BarColumn(bar_width=28), MofNCompleteColumn(), _RemainingColumn(remaining))
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        yield WorkProgress(progress, remaining)


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
