"""Workflows that grow while they run: what a method adds once it has read what its own calls wrote (our choice).

A plan that a model wrote, a step to try again after an error, a workflow that was looked up: none of these is known
when a task arrives. Such a method builds the steps that it knows, and is asked again when their answer is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graphflow.engine.episode import StepOutput, Task
from graphflow.wgraph.workflow import Workflow, WorkflowError

Outputs = Mapping[str, Sequence[StepOutput]]
"""What the steps that ran wrote, a value a sample, by step id; skipped steps are left out."""

Grow = Callable[[Task, Workflow, Outputs], Workflow | None]
"""Gives a larger workflow when the answer of the present one is there, or None where that is the answer."""


def check_growth(before: Workflow, after: Workflow) -> None:
    """See that a workflow goes on from another one.

    Raises:
        WorkflowError: A step of the old one is missing or was changed, or there is no new step.
    """
    for step in before.steps:
        if step.id not in {own.id for own in after.steps}:
            raise WorkflowError(f"{after} must keep the steps that it grows from: {step.id!r} is missing")
        if after.step(step.id) != step:
            raise WorkflowError(f"{after} must keep the steps that it grows from: {step.id!r} was changed")
    if len(after.steps) == len(before.steps):
        raise WorkflowError(f"{after} must have more steps than it grows from (None adds nothing)")
