"""What requests bring to a store, in tokens: the statistics that the capacity planner works on (our choice)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphflow.engine.episode import Episode, StepRecord


@dataclass(frozen=True)
class Call:
    """One language-model step of one request.

    Attributes:
        op: Operation.
        path: Operations in the context before it.
        before: Tokens in the context before the prompt, ``pending`` included.
        pending: Text tokens that run through the model ahead of the prompt: tool results, other branches' outputs.
        samples: Outputs that are generated.
        output: Output tokens that have KV, all samples together; the last token of each has none.
        after: Calls of the request that it waits for, by their places in it.
    """

    op: str
    path: tuple[str, ...]
    before: int
    pending: int
    samples: int
    output: int
    after: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of its longest output, the last one included; samples count as equally long."""
        return -(-self.output // self.samples) + 1


@dataclass(frozen=True)
class Request:
    """One task served by one workflow.

    Attributes:
        task: Tokens of the task's segment.
        calls: Its calls, each behind those that it waits for.
    """

    task: int
    calls: tuple[Call, ...]

    @property
    def text(self) -> int:
        """Tokens of the request's own text whose KV it keeps: task, pending text, outputs."""
        return self.task + sum(call.pending + call.output for call in self.calls)


def measured(episodes: Iterable[Episode], prompts: Mapping[str, int]) -> list[Request]:
    """The traffic of a run in which every prompt ran through the model (stateful mode).

    Args:
        episodes: Its episodes, in order of completion.
        prompts: Tokens of every operation's segment by name.

    Raises:
        ValueError: A step ran fewer tokens than its prompt has, so that the run did not compute every prompt.
    """
    return [_request(episode, prompts) for episode in episodes]


def _request(episode: Episode, prompts: Mapping[str, int]) -> Request:
    """One request: a step waits for those that had ended when it began; of steps that began together, as they ended."""
    task = sum(step.prefill_tokens for step in episode.steps if step.op == "task")
    steps = sorted((step for step in episode.steps if step.op in prompts), key=lambda step: step.start_s)
    calls = []
    for number, step in enumerate(steps):
        after = tuple(place for place, other in enumerate(steps[:number]) if other.end_s <= step.start_s)
        calls.append(_call(step, prompts[step.op], after, episode))
    return Request(task, tuple(calls))


def _call(step: StepRecord, prompt: int, after: tuple[int, ...], episode: Episode) -> Call:
    pending = step.prefill_tokens - prompt
    if pending < 0:
        raise ValueError(
            f"step {step.step!r} of {episode.task_id} ran {step.prefill_tokens} tokens, its prompt has {prompt}: "
            "capacity is planned from a run in stateful mode, which computes every prompt, with the same operations"
        )
    return Call(
        op=step.op,
        path=step.path,
        before=step.prefill_tokens + step.reused_tokens - prompt,
        pending=pending,
        samples=len(step.texts),
        output=step.output_tokens - len(step.texts),
        after=after,
    )
