"""An executor that also says how much of what it holds is operation state."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow.engine.executor import Executor
from graphflow.engine.job import Job


class Measured(Executor):
    """Serves tasks as ever.

    Attributes:
        peak_operation_bytes: Most bytes of operation state held at once: the store with all that belongs to it, text
            left out, and the operation prompts in contexts of live tasks. Copies in the batch's caches count among all
            resident KV alone.
        setup_s: Seconds that were spent before tasks could be served, and are in nobody's latency.
    """

    peak_operation_bytes = 0
    setup_s = 0.0

    def note_peak(self, jobs: Iterable[Job]) -> None:
        """See `Executor.note_peak`."""
        jobs, shared = list(jobs), self.memory.nbytes()
        held = shared.total - shared.text + sum(job.held_bytes()[0] for job in jobs)
        self.peak_operation_bytes = max(self.peak_operation_bytes, held)
        super().note_peak(jobs)
