"""What goes into the engine and what comes out of it.

An `Episode` carries everything that was measured while one task was served, so that scoring, tables and plots never
ask the engine again (definitions: paper section 5 for accuracy, P90 latency and KV; the rest is our choice).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """One task as a workflow may see it: never the reference answer, never a hidden test.

    Attributes:
        id: Unique name, for example ``mini-gsm8k/test/17``.
        benchmark: Name of the benchmark it belongs to.
        kind: One of gsm8k, math, hotpotqa, humaneval, mbpp: which repository workflows fit it.
        text: What the model reads.
        passages: Texts that the ``retrieve`` tool searches.
        entry_point: Name of the function that is asked for, for code kinds.
        visible_tests: Assert statements that the task's own text shows, which ``run_tests`` may run.
        level: Difficulty, 1 is easiest; 0 where unknown.
        family: Kind of problem inside the benchmark.
    """

    id: str
    benchmark: str
    kind: str
    text: str
    passages: tuple[str, ...] = ()
    entry_point: str = ""
    visible_tests: tuple[str, ...] = ()
    level: int = 0
    family: str = ""


@dataclass(frozen=True)
class StepOutput:
    """What a step hands on: its text, and boolean fields that guards read."""

    text: str
    fields: dict[str, bool] = field(default_factory=dict)


@dataclass
class StepRecord:
    """One executed step (one row a sample set, not a sample).

    Attributes:
        step: Step id in the workflow.
        op: Operation name.
        path: Prefix path: LLM operations already in the context when this one started.
        start_s: Start, seconds after the task arrived.
        end_s: End, seconds after the task arrived.
        prefill_tokens: Prompt tokens run through the model for this step.
        reused_tokens: Prompt tokens whose KV was there already.
        operation_tokens: Tokens of the operation's own prompt, among both of them.
        operation_reused: Those of them whose KV was there already.
        output_tokens: Tokens generated, all samples together.
        first_token_s: Seconds from the start of the step to its first token; 0 for tools, and where a server was asked.
        fallback: True if the operation was prefilled exactly because its path holds no residual.
        parse_fallbacks: Outputs that could not be read as declared and were handed on whole.
        texts: Output text per sample.
        kl: Mean KL divergence (nats) of the exact next-token distribution from the one used; None where not measured.
        agrees: True if exact state would have produced the identical greedy output; None where not measured.
    """

    step: str
    op: str
    path: tuple[str, ...] = ()
    start_s: float = 0.0
    end_s: float = 0.0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    output_tokens: int = 0
    first_token_s: float = 0.0
    fallback: bool = False
    parse_fallbacks: int = 0
    texts: tuple[str, ...] = ()
    kl: float | None = None
    agrees: bool | None = None
    operation_tokens: int = 0
    operation_reused: int = 0


@dataclass
class Episode:
    """One task served by one workflow.

    Attributes:
        task_id: `Task.id`.
        benchmark: `Task.benchmark`.
        workflow: Name of the workflow that ran.
        fingerprint: `Workflow.fingerprint`.
        answer: Text of the answer step; empty if the task failed.
        steps: One record an executed step, in order of completion.
        latency_s: Seconds from arrival to answer.
        build_s: Seconds of it until the workflows of its batch of arrivals were built.
        op_bytes: Bytes of operation state that only this request keeps, or that it added to a tree of tokens.
        dynamic_bytes: The same of KV of text (task, outputs, tool results). Both are 0 where a server was asked, since
            nothing is known of its KV.
        error: Why the task failed; empty if it did not. Begins with ``timeout``, ``cancelled``, ``memory`` or
            ``step '<id>'`` and what that step raised.
        score: Metric in [0, 1], filled in by the experiment; None before.
        waited_s: Seconds from arrival until the task was admitted; 0 in a closed loop.
    """

    task_id: str
    benchmark: str
    workflow: str
    fingerprint: str
    answer: str = ""
    steps: list[StepRecord] = field(default_factory=list)
    latency_s: float = 0.0
    build_s: float = 0.0
    op_bytes: int = 0
    dynamic_bytes: int = 0
    error: str = ""
    score: float | None = None
    waited_s: float = 0.0

    @property
    def llm_calls(self) -> int:
        """Language-model calls, every sample counted."""
        return sum(len(record.texts) for record in self.steps if record.output_tokens)

    def total(self, name: str) -> int:
        """Sum of an integer field of `StepRecord` over the steps, for example ``prefill_tokens``."""
        return sum(int(getattr(record, name)) for record in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Episode:
        """The inverse of `to_dict`."""
        steps = [
            StepRecord(**{**step, "path": tuple(step["path"]), "texts": tuple(step["texts"])}) for step in row["steps"]
        ]
        return cls(**{**row, "steps": steps})
