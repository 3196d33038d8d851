"""Whether a workflow can run with the operations of a library (rules: our choice)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphflow.errors import unknown_name
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.step import TASK, Step, WorkflowError

if TYPE_CHECKING:
    from graphflow.wgraph.library import Library
    from graphflow.wgraph.workflow import Workflow

KINDS = ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp")
"""Benchmark kinds a workflow can be made for."""

ANSWER_TYPES = ("answer", "code", "result")
"""Types that the answer step may produce."""


def validate(workflow: Workflow, library: Library) -> None:
    """Check that a workflow can run with the operations of a library.

    Rules: kinds and operations are known; every step reaches the answer; each input has a type that the operation
    accepts and there are as many as its arity says (n samples of a parent are n inputs); required types come from
    ancestors; samples > 1 only for language-model operations; a guard reads a declared field of an ancestor that is
    not sampled; the answer is of one of `ANSWER_TYPES`, and no outcome of the guards leaves the workflow without one.

    Raises:
        WorkflowError: If a rule is broken; the message names the workflow, the step and what is allowed.
    """
    for kind in workflow.kinds:
        if kind not in KINDS:
            raise WorkflowError(f"{workflow}: kinds: {unknown_name('kind', kind, KINDS)}")
    for step in workflow.steps:
        if step.op not in library:
            raise WorkflowError(f"{workflow}, step {step.id!r}: op: {unknown_name('operation', step.op, library)}")
    _check_dead_branches(workflow)
    for step in workflow.steps:
        for problem in _problems(workflow, step, library):
            raise WorkflowError(f"{workflow}, step {step.id!r}: {problem}")
    produced = library[workflow.step(workflow.answer).op].produces
    if produced not in ANSWER_TYPES:
        raise WorkflowError(
            f"{workflow}: answer step {workflow.answer!r} produces {produced!r}; allowed: {', '.join(ANSWER_TYPES)}"
        )
    _check_always_answers(workflow)


def _check_dead_branches(workflow: Workflow) -> None:
    read = workflow.ancestors(workflow.answer) | {workflow.answer}
    dead = [step.id for step in workflow.steps if step.id not in read]
    if dead:
        raise WorkflowError(
            f"{workflow}: {', '.join(map(repr, dead))} never reach{'es' if len(dead) == 1 else ''} "
            f"the answer {workflow.answer!r}; every step must"
        )


def _problems(workflow: Workflow, step: Step, library: Library) -> Iterator[str]:
    """What is wrong with one step, in the order in which it should be mended."""
    operation = library[step.op]
    if step.samples > 1 and operation.kind is not Kind.LLM:
        yield f"samples must be 1 for {step.op!r} (kind {operation.kind.value}), not {step.samples}; only llm has more"
    types = {TASK: TASK} | {other.id: library[other.op].produces for other in workflow.steps}
    for name in step.inputs:
        if types[name] not in operation.accepts:
            yield (
                f"input {name!r} has the type {types[name]!r}, but {step.op!r} accepts {', '.join(operation.accepts)}"
            )
    if operation.arity == "one":
        yield from _too_many(workflow, step)
    behind = {types[name] for name in workflow.ancestors(step.id)}
    for wanted in operation.requires:
        if wanted not in behind:
            yield f"{step.op!r} requires {wanted!r} before it, but there is only {', '.join(sorted(behind))}"
    if step.when is not None:
        yield from _guard_problems(workflow, step, library)


def _too_many(workflow: Workflow, step: Step) -> Iterator[str]:
    """More than one input where the operation takes one."""
    remedy = "put vote, ensemble_select or first_nonempty in between"
    if len(step.inputs) > 1:
        yield f"{step.op!r} takes one input, not {len(step.inputs)} ({', '.join(step.inputs)}); {remedy}"
    only = next(iter(step.inputs))
    if only != TASK and workflow.step(only).samples > 1:
        yield f"{step.op!r} takes one input, but {only!r} gives {workflow.step(only).samples} samples; {remedy}"


def _guard_problems(workflow: Workflow, step: Step, library: Library) -> Iterator[str]:
    guard = step.when
    assert guard is not None
    behind = workflow.ancestors(step.id) - {TASK}
    if guard.step not in behind:
        yield f"guard {str(guard)!r} must read a step before it ({', '.join(sorted(behind)) or 'there is none'})"
        return
    source = workflow.step(guard.step)
    declared = library[source.op].fields
    if guard.field not in declared:
        yield f"guard {str(guard)!r}: {unknown_name(f'field of {source.op!r}', guard.field, declared)}"
    if source.samples > 1:
        yield f"guard {str(guard)!r} needs one value, but {guard.step!r} gives {source.samples} samples"


def _check_always_answers(workflow: Workflow) -> None:
    """Every outcome of the guards must leave the answer step with something to read."""
    outcome = _without_answer(workflow, 0, {TASK}, {})
    if outcome is not None:
        when = " and ".join(f"{'' if value else 'not '}{step}.{field}" for (step, field), value in outcome.items())
        raise WorkflowError(
            f"{workflow}: the answer step {workflow.answer!r} is skipped if {when}; "
            "end with first_nonempty over a step that always runs"
        )


def _without_answer(
    workflow: Workflow, position: int, present: set[str], known: dict[tuple[str, str], bool]
) -> dict[tuple[str, str], bool] | None:
    """An outcome of the guards that skips the answer, or None.

    Walks the steps from ``position`` on as the executor does, and follows both outcomes where a guard is read for the
    first time. A guard over a skipped step does not hold.
    """
    while position < len(workflow.steps):
        step = workflow.steps[position]
        position += 1
        if present.isdisjoint(step.inputs):
            continue
        guard = step.when
        if guard is None:
            present = present | {step.id}
        elif guard.step in present:
            key = (guard.step, guard.field)
            for value in [known[key]] if key in known else [False, True]:
                holds = present | {step.id} if value != guard.negated else present
                found = _without_answer(workflow, position, holds, known | {key: value})
                if found is not None:
                    return found
            return None
    return None if workflow.answer in present else known
