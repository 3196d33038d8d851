"""One language-model step, wherever the model runs: what it goes on from, how it samples, how its outputs are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphflow.engine.config import EngineConfig
from graphflow.engine.job import Job
from graphflow.engine.memory import Limits
from graphflow.engine.parse import LETTERS, parse_choice, parse_output
from graphflow.engine.state import Branch, Value, common_ancestor, leading
from graphflow.engine.tools import ToolBox
from graphflow.engine.tools.vote import vote
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Operation
from graphflow.wgraph.workflow import Step

SELECTS = "ensemble_select"

Join = Callable[[Branch, Sequence[tuple[str, str]]], Branch]
"""Gives a branch that goes on with outputs of other branches, each a letter and its text."""


@dataclass(eq=False)
class Call:
    """A language-model step with what it goes on from."""

    job: Job
    step: Step
    operation: Operation
    values: list[Value]
    branch: Branch


def open_call(job: Job, step: Step, library: Library, join: Join) -> Call:
    """What a step goes on from, by the context rule (`graphflow.engine.state`)."""
    heads = leading(job.inputs(step))
    if len({id(value.branch) for value in heads}) == 1:
        branch = heads[0].branch
    else:
        given = [(LETTERS[index], value.output.text) for index, value in enumerate(heads)]
        branch = join(common_ancestor(heads), given)
    return Call(job, step, library[step.op], heads, branch)


def limits(call: Call, config: EngineConfig) -> Limits:
    """How a call samples: several samples of a greedy operation take the engine's temperature."""
    operation, step = call.operation, call.step
    temperature = operation.temperature
    if step.samples > 1 and not temperature:
        temperature = config.sample_temperature
    return Limits(
        max_tokens=config.max_tokens(operation.max_tokens),
        temperature=temperature,
        seeds=tuple(_seed(config.seed, call.job.task.id, step.id, sample) for sample in range(step.samples)),
    )


def read_outputs(
    call: Call, texts: Sequence[str], after: Sequence[Branch], toolbox: ToolBox
) -> tuple[list[Value], int]:
    """What came of a call.

    Args:
        call: The call.
        texts: What the model wrote, a text a sample.
        after: Branches that go on from them.
        toolbox: What a vote uses, where a selection cannot be read.

    Returns:
        A value a sample, and how many outputs could not be read as declared (they are handed on whole).
    """
    values, unread = [], 0
    for text, own in zip(texts, after, strict=True):
        output, failed = parse_output(call.operation, text)
        value, missed = _choose(call, text, Value(output, own), toolbox)
        values.append(value)
        unread += max(failed, missed)
    return values, unread


def _choose(call: Call, text: str, value: Value, toolbox: ToolBox) -> tuple[Value, int]:
    """A selection hands on the candidate it names, on that candidate's own branch; others their own output."""
    if call.operation.name != SELECTS:
        return value, 0
    candidates = call.values
    index = parse_choice(text, [candidate.output for candidate in candidates])
    if index is not None:
        return candidates[index], 0
    winner = vote(call.job.task, [candidate.output for candidate in candidates], toolbox)
    return next((c for c in candidates if c.output.text == winner.text), candidates[0]), 1


def _seed(seed: int, task: str, step: str, sample: int) -> int:
    """A seed that depends on the task and the step alone, not on what else is in the batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{step}/{sample}".encode()).digest()[:6], "big")
