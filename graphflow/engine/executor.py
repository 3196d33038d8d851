"""Serves tasks through workflows over a backbone, ready steps of all of them in one running batch.

At most ``concurrency`` tasks are in flight. In a closed loop a task arrives when another one is done, in an open loop
by itself. Its latency runs from its arrival to its answer, building the workflow, waiting for a place and tools
included; fidelity measurements and whoever takes the episodes stop the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from graphflow.backbone.load import DTYPES, Backbone
from graphflow.engine.budget import Budget
from graphflow.engine.calls import Calls
from graphflow.engine.config import EngineConfig
from graphflow.engine.decode import Decoder
from graphflow.engine.episode import Episode, Task
from graphflow.engine.gate import Build
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.opening import open_memory, open_store
from graphflow.engine.prefetch import Prefetch
from graphflow.engine.serving import Serving
from graphflow.engine.tools import ToolBox
from graphflow.engine.toolwork import ToolWork
from graphflow.kv import Allowed, KVConfig, StoreBytes
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind

__all__ = ["EngineConfig", "Executor"]


class Executor:
    """Serves tasks through workflows, with operation state kept as configured.

    Attributes:
        batch: The running batch.
        peak_bytes: Most bytes held at once: store, contexts of live tasks, caches of the batch.

    Args:
        backbone: The model.
        library: Operations.
        kv: How operation state is kept.
        config: Settings.
        toolbox: What tools use; made from ``config.sandbox`` where None.
        allowed: Transitions that valid workflows can take: only their operation state is stored; None for all.

    Raises:
        UnsupportedModelError: State is to be shared and the model's keys cannot be moved.
        StoreMismatchError: There is a saved store at ``kv.store`` that belongs to something else.
    """

    def __init__(
        self,
        backbone: Backbone,
        library: Library,
        kv: KVConfig,
        config: EngineConfig,
        toolbox: ToolBox | None = None,
        allowed: Allowed | None = None,
    ):
        self.backbone, self.library, self.config = backbone, library, config
        self.toolbox = toolbox or ToolBox(config=config.sandbox)
        self._stopped = 0.0
        prompts = {op.name: op.prompt for op in library.operations.values() if op.kind is Kind.LLM}
        self.store = open_store(kv, backbone, DTYPES[config.kv_dtype], prompts, allowed)
        self.decoder = Decoder(backbone, self.store, self.clock, config.prefill_chunk)
        self.memory = open_memory(backbone, self.store, self.decoder, prompts)
        self.prompts = self.memory.prompts
        self.calls = Calls(backbone, library, self.memory, config, self.toolbox, self.stop_clock)
        self.tools = ToolWork(backbone, library, self.toolbox, self.clock)
        self.prefetch = Prefetch(self.store, library, config.prefetch)
        self.budget = Budget(backbone, self.store, library, self.prompts, config)
        self.batch = self.decoder.open()
        self.peak_bytes = 0
        self._serving: Serving | None = None

    def clock(self) -> float:
        """Seconds, without the time that is left out."""
        return time.perf_counter() - self._stopped

    def stop_clock(self, seconds: float) -> None:
        """Leaves out time that has passed: fidelity measurements, and what is done with episodes."""
        self._stopped += seconds

    def store_bytes(self) -> StoreBytes:
        """Bytes of what all tasks share, now."""
        return self.memory.nbytes()

    def save(self) -> None:
        """Saves the store where the settings say; nothing where they do not. `run` does so at its end."""
        if self.store.config.store:
            self.store.save(self.store.config.store)

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
        self._serving = Serving(self, tasks, build, grow)
        try:
            yield from self._serving.episodes()
        finally:
            self._serving = None
        self.save()

    def cancel(self, task_id: str) -> bool:
        """Ends a task of the current run before its answer; its episode comes with the next ones.

        Returns:
            False if no task of that name is left.
        """
        return self._serving is not None and self._serving.cancel(task_id)

    def note_peak(self, jobs: Iterable[Job]) -> None:
        """Notes the peak of everything held: store, contexts of live tasks, caches since it was last noted."""
        own = sum(sum(job.held_bytes()) for job in jobs)
        caches = max(self.batch.peak_bytes, self.decoder.cache_bytes + self.batch.nbytes)
        self.peak_bytes = max(self.peak_bytes, self.memory.nbytes().total + own + caches)
        self.batch.peak_bytes = self.decoder.cache_bytes = 0
