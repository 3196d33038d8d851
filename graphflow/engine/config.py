"""Settings of the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphflow.backbone.load import DTYPES
from graphflow.backbone.padding import PADDING
from graphflow.engine.arrivals import Arrivals
from graphflow.engine.sandbox import SandboxConfig
from graphflow.engine.schedule import Schedule


@dataclass
class EngineConfig:
    """Settings of the engine.

    Attributes:
        concurrency: Tasks in flight at most.
        max_batch: Rows of the running batch at most: samples of steps. A step of more samples runs alone.
        scheduler: Order in which ready steps join the batch: ``fifo``, ``same_operation`` (those of the operation that
            waits longest), ``critical_path`` (the longest way to the answer first) or ``resident_first`` (those whose
            stored state is decoded).
        gather: Tasks and steps that could join the batch wait until they are so many for every row that decodes: fewer
            and larger prefills, so more throughput and later first tokens. 0 lets everyone in at once.
        prefill_chunk: Prompt tokens that run between two tokens of the rows that decode, at most (one of each prompt at
            least); 0 runs prompts whole.
        padding: Prompts of different lengths are prefilled apart where that saves more tokens of padding than this, the
            tokens that run in the time of one more forward pass. 64 suits a mini backbone on a CPU; a GPU that is far
            from busy with a prompt wants hundreds.
        prefetch: Stored state of prompts that is decoded ahead, for steps that follow those in the batch; at most so
            many at a time and never more than the store's workspace keeps. 0 for none.
        timeout_s: Seconds from its arrival after which a task fails; 0 for no limit.
        memory_bytes: Bytes that the store, the contexts of tasks and the batch may take together; tasks and steps wait
            until they fit, with all that they can grow to, and a task that never will fails. What is kept after a task
            (trees of tokens, residuals) is bounded by ``kv.store_bytes`` alone. 0 for no bound.
        arrivals: ``closed`` (one arrives when one ends), ``poisson`` or ``bursts`` (of 8), see
            `graphflow.engine.arrivals`.
        rate: Tasks that arrive a second, in the mean; not for ``closed``.
        kv_dtype: Dtype in which KV is kept between steps: float32, bfloat16 or float16.
        sample_temperature: Temperature of steps with several samples whose operation is greedy.
        max_tokens_scale: Factor on every operation's token limit; the library's limits suit the mini backbones.
        fidelity: Number of tasks, first ones first, whose steps are compared with exact state.
        seed: Seed of sampling and of arrivals.
        sandbox: Limits for programs.

    Raises:
        ValueError: A field out of range; the message names field, allowed range and value.
    """

    concurrency: int = 16
    max_batch: int = 32
    scheduler: str = "fifo"
    gather: float = 0.5
    prefill_chunk: int = 0
    padding: int = PADDING
    prefetch: int = 0
    timeout_s: float = 0.0
    memory_bytes: int = 0
    arrivals: str = "closed"
    rate: float = 1.0
    kv_dtype: str = "bfloat16"
    sample_temperature: float = 0.7
    max_tokens_scale: float = 1.0
    fidelity: int = 0
    seed: int = 0
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __post_init__(self) -> None:
        none_or_more = ("fidelity", "gather", "prefill_chunk", "padding", "prefetch", "timeout_s", "memory_bytes")
        for name, lowest in (("concurrency", 1), ("max_batch", 1), *((name, 0) for name in none_or_more)):
            if not getattr(self, name) >= lowest:
                raise ValueError(f"engine.{name} must be {lowest} or more, got {getattr(self, name)}")
        allowed = {
            "kv_dtype": [*DTYPES],
            "scheduler": [kind.value for kind in Schedule],
            "arrivals": [kind.value for kind in Arrivals],
        }
        for name, known in allowed.items():
            if getattr(self, name) not in known:
                raise ValueError(f"engine.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        for name in ("sample_temperature", "max_tokens_scale", "rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"engine.{name} must be above 0, got {getattr(self, name)}")

    def max_tokens(self, limit: int) -> int:
        """An operation's token limit for one output, by `max_tokens_scale`."""
        return max(1, round(limit * self.max_tokens_scale))
