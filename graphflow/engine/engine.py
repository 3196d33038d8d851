"""What serves tasks through workflows, wherever the model runs: the way in, the clock, the tools."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, Task
from graphflow.engine.gate import Build
from graphflow.engine.growth import Grow
from graphflow.engine.loop import Loop
from graphflow.engine.state import Branch
from graphflow.engine.tools import ToolBox
from graphflow.engine.toolwork import ToolWork
from graphflow.kv import StoreBytes
from graphflow.wgraph.library import Library


class Engine(ABC):
    """Serves tasks through workflows.

    Attributes:
        tools: Runs tools.
        peak_bytes: Most bytes of KV held at once, as far as they are this process's.

    Args:
        library: Operations.
        config: Settings.
        toolbox: What tools use; made from ``config.sandbox`` where None.
        extend: Gives the branch that goes on from a branch with a tool's result.
    """

    def __init__(
        self,
        library: Library,
        config: EngineConfig,
        toolbox: ToolBox | None,
        extend: Callable[[Branch, str], Branch],
    ) -> None:
        self.library, self.config = library, config
        self.toolbox = toolbox or ToolBox(config=config.sandbox)
        self.tools = ToolWork(library, self.toolbox, self.clock, extend)
        self.peak_bytes = 0
        self._loop: Loop | None = None

    def clock(self) -> float:
        """Seconds, monotonic."""
        return time.perf_counter()

    def stop_clock(self, seconds: float) -> None:  # noqa: B027 (overriding it is optional)
        """Leaves out time that has passed, where nothing goes on meanwhile: what is done with episodes."""

    @abstractmethod
    def store_bytes(self) -> StoreBytes:
        """Bytes of what all tasks share, now."""

    def save(self) -> None:  # noqa: B027 (overriding it is optional)
        """Saves what is kept from run to run, where the settings say; `run` does so at its end."""

    def run(self, tasks: Sequence[Task], build: Build, grow: Grow | None = None) -> Iterator[Episode]:
        """Serves tasks; one run at a time.

        A task whose tool or step raises, that runs out of time or is cancelled ends in an episode that says so; the
        others go on. What ``build`` raises ends the run.

        Args:
            tasks: The tasks, in order of arrival.
            build: Gives a workflow for each of some tasks; its time counts.
            grow: Asked for more steps whenever a task's answer is there, see `graphflow.engine.growth`.

        Yields:
            Episodes in order of completion, one a task.
        """
        self._loop = self._open(tasks, build, grow)
        try:
            yield from self._loop.episodes()
        finally:
            self._loop = None
        self.save()

    def cancel(self, task_id: str) -> bool:
        """Ends a task of the current run before its answer; its episode comes with the next ones.

        Returns:
            False if no task of that name is left.
        """
        return self._loop is not None and self._loop.cancel(task_id)

    @abstractmethod
    def _open(self, tasks: Sequence[Task], build: Build, grow: Grow | None) -> Loop:
        """The loop of one run."""
