"""Serves tasks through workflows over a backbone, ready steps of all of them in one running batch.

At most ``concurrency`` tasks are in flight. In a closed loop a task arrives when another one is done, in an open loop
by itself. Its latency runs from its arrival to its answer, building the workflow, waiting for a place and tools
included; fidelity measurements and whoever takes the episodes stop the clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from graphflow.backbone.load import DTYPES, Backbone
from graphflow.engine.budget import Budget
from graphflow.engine.calls import Calls
from graphflow.engine.config import EngineConfig
from graphflow.engine.decode import Decoder
from graphflow.engine.engine import Engine
from graphflow.engine.episode import Task
from graphflow.engine.gate import Build
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.opening import open_memory, open_store
from graphflow.engine.prefetch import Prefetch
from graphflow.engine.serving import Serving
from graphflow.engine.state import Branch
from graphflow.engine.tools import ToolBox
from graphflow.kv import Allowed, KVConfig, StoreBytes
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind

__all__ = ["EngineConfig", "Executor"]


class Executor(Engine):
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
        super().__init__(library, config, toolbox, self._extend)
        self.backbone, self._stopped = backbone, 0.0
        prompts = {op.name: op.prompt for op in library.operations.values() if op.kind is Kind.LLM}
        self.store = open_store(kv, backbone, DTYPES[config.kv_dtype], prompts, allowed)
        self.decoder = Decoder(backbone, self.store, self.clock, config.prefill_chunk, config.padding)
        self.memory = open_memory(backbone, self.store, self.decoder, prompts)
        self.prompts = self.memory.prompts
        self.calls = Calls(backbone, library, self.memory, config, self.toolbox, self.stop_clock)
        self.prefetch = Prefetch(self.store, library, config.prefetch)
        self.budget = Budget(backbone, self.store, library, self.prompts, config)
        self.batch = self.decoder.open()

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

    def note_peak(self, jobs: Iterable[Job]) -> None:
        """Notes the peak of everything held: store, contexts of live tasks, caches since it was last noted."""
        own = sum(sum(job.held_bytes()) for job in jobs)
        caches = max(self.batch.peak_bytes, self.decoder.cache_bytes + self.batch.nbytes)
        self.peak_bytes = max(self.peak_bytes, self.memory.nbytes().total + own + caches)
        self.batch.peak_bytes = self.decoder.cache_bytes = 0

    def _open(self, tasks: Sequence[Task], build: Build, grow: Grow | None) -> Serving:
        return Serving(self, tasks, build, grow)

    def _extend(self, branch: Branch, result: str) -> Branch:
        """A branch that goes on with a tool's result, as dynamic text."""
        return branch.extend(self.backbone.encode(self.backbone.turns.write_tool(result)))
