"""Edits of workflows: a small language that is checked against the schema before anything runs (our choice).

    add vote: vote(cot, program)        a new step
    set cot: generate_cot(task) x3      another call under the same id
    answer vote                         another step gives the answer

Lines (or parts behind ``;``) are applied in order; together they are one modification. Steps that the answer no longer
hangs on go with it, so that nothing has to be removed by name. AFlow has a model write Python instead, which local
models break; here what comes out is a valid workflow, or an error that says what is wrong.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count

from graphflow.errors import unknown_name
from graphflow.methods.notation import CALL, read_step, write_call
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import TASK, Guard, Step, Workflow, WorkflowError, validate

VERBS, SAME = ("add", "set", "answer"), "the edit changes nothing"
MAX_PARTS = 8
MAX_NEW = 4  # steps that a drawn edit adds at most
SAMPLES = 3
TRIES = 200  # draws of one kind of change, until the next kind is tried
FALLBACK = "first_nonempty"
_PART = re.compile(r"(?P<verb>\w+)\s+(?P<id>\w+)(?:\s*:\s*(?P<call>.*))?")


def parts_of(text: str) -> list[str]:
    """The single changes of an edit, without empty lines and code fences."""
    parts = [part.strip() for part in re.split(r"[;\n]", text)]
    return [part for part in parts if part and not part.startswith("```")]


def written(text: str) -> str:
    """An edit on one line, as experience shows it."""
    return "; ".join(parts_of(text))


def apply_edit(workflow: Workflow, text: str, library: Library, max_llm_calls: int, name: str = "") -> Workflow:
    """The workflow after an edit.

    Args:
        workflow: Valid.
        text: The edit.
        library: What the result must fit.
        max_llm_calls: Language-model calls that the result may make at most.
        name: Name of the result; empty for that of the workflow.

    Raises:
        WorkflowError: A part is not of the language, the result is not valid, makes too many calls or is the same.
    """
    parts = parts_of(text)
    if not 1 <= len(parts) <= MAX_PARTS:
        raise WorkflowError(f"an edit must have 1 to {MAX_PARTS} parts, got {len(parts)}")
    steps, answer = {step.id: step for step in workflow.steps}, workflow.answer
    for part in parts:
        answer = _apply(part, steps, answer)
    edited = Workflow(name or workflow.name, workflow.kinds, _needed(steps, answer), answer)
    validate(edited, library)
    if edited.llm_calls(library) > max_llm_calls:
        raise WorkflowError(
            f"a workflow may make {max_llm_calls} calls at most, this makes {edited.llm_calls(library)}"
        )
    if edited.fingerprint == workflow.fingerprint:
        raise WorkflowError(SAME)
    return edited


def _apply(part: str, steps: dict[str, Step], answer: str) -> str:
    """Apply one part to the steps; returns the id of the answer."""
    match = _PART.fullmatch(part)
    if match is None or match["verb"] not in VERBS:
        raise WorkflowError(f"a part of an edit must begin with {', '.join(VERBS)} and a step's id, got {part!r}")
    verb, id, call = match["verb"], match["id"], match["call"]
    if (verb in ("add", "set")) != bool(call):
        wanted = f"{verb} ID: {CALL}" if verb in ("add", "set") else f"{verb} ID"
        raise WorkflowError(f"{verb} must have the form {wanted!r}, got {part!r}")
    if verb == "add" and id in steps:
        raise WorkflowError(f"add {id}: there is a step {id!r}; a new step needs a new id")
    if verb in ("set", "answer") and id not in steps:
        raise WorkflowError(f"{verb} {id}: {unknown_name('step', id, steps)}")
    if verb == "answer":
        return id
    steps[id] = read_step(id, call)
    return answer


def _needed(steps: Mapping[str, Step], answer: str) -> tuple[Step, ...]:
    """The steps that the answer hangs on, by inputs and conditions; all of them where it is not among them."""
    needed, waiting = set(), [answer]
    while waiting:
        step = steps.get(waiting.pop())
        if step is not None and step.id not in needed:
            needed.add(step.id)
            waiting += [*step.inputs, *([step.when.step] if step.when else [])]
    return tuple(step for step in steps.values() if step.id in needed or answer not in steps)


def draw_edit(
    workflow: Workflow,
    library: Library,
    operations: Sequence[str],
    max_llm_calls: int,
    draw: random.Random,
    tried: frozenset[str] = frozenset(),
) -> str:
    """A random valid edit that was not tried; empty if none is found.

    One of five changes: another operation, three samples and what joins them, a step between two others, a check of the
    answer with what is done if it fails, or up to four new steps of which the last gives the answer. Edits that cannot
    change an answer are not drawn.

    Args:
        workflow: Valid.
        library: The schema.
        operations: Names of the operations that may be added.
        max_llm_calls: Language-model calls that the result may make at most.
        draw: Source of randomness.
        tried: Edits on one line (`written`) that are left out.
    """
    changes = (_other_operation, _samples, _between, _checked, _more_steps, _more_steps)
    for change in draw.sample(changes, len(changes)):
        for _ in range(TRIES):
            steps, answer = change(workflow, library, operations, draw)
            try:
                edit = "; ".join(difference(workflow, steps, answer))
                edited = apply_edit(workflow, edit, library, max_llm_calls)
            except WorkflowError:
                continue
            if edit not in tried and not _pointless(edited, library):
                return edit
    return ""


Change = tuple[list[Step], str]
"""All steps after a change, and the answer."""


def _other_operation(workflow: Workflow, library: Library, operations: Sequence[str], draw: random.Random) -> Change:
    """One step calls another operation."""
    step = draw.choice(workflow.steps)
    changed = replace(step, op=draw.choice(operations))
    return [changed if own is step else own for own in workflow.steps], workflow.answer


def _samples(workflow: Workflow, library: Library, operations: Sequence[str], draw: random.Random) -> Change:
    """One step is sampled, or no longer; where it gives the answer, the samples are joined."""
    step = draw.choice(workflow.steps)
    changed = replace(step, samples=1 if step.samples > 1 else SAMPLES)
    steps = [changed if own is step else own for own in workflow.steps]
    joining = [name for name in operations if library[name].arity == "many"]
    if step.id != workflow.answer or changed.samples == 1 or not joining:
        return steps, workflow.answer
    join = _named(draw.choice(joining), (step.id,), steps)
    return [*steps, join], join.id


def _between(workflow: Workflow, library: Library, operations: Sequence[str], draw: random.Random) -> Change:
    """A new step reads what a step reads now, which then reads the new one."""
    step = draw.choice(workflow.steps)
    name = draw.choice(step.inputs)
    new = _named(draw.choice(operations), (name,), workflow.steps)
    changed = replace(step, inputs=tuple(new.id if own == name else own for own in step.inputs))
    return [*(changed if own is step else own for own in workflow.steps), new], workflow.answer


def _checked(workflow: Workflow, library: Library, operations: Sequence[str], draw: random.Random) -> Change:
    """A check of the answer, one or two steps that run if its field says so, and the first answer there is."""
    checks = [name for name in operations if library[name].fields]
    if not checks or FALLBACK not in operations:
        return [*workflow.steps], workflow.answer
    steps, answer = [*workflow.steps], workflow.answer
    steps.append(check := _named(draw.choice(checks), (answer,), steps))
    guard = Guard(check.id, draw.choice(library[check.op].fields))
    steps.append(step := replace(_named(draw.choice(operations), (check.id,), steps), when=guard))
    if draw.random() < 0.5:
        steps.append(step := _named(draw.choice(operations), (step.id,), steps))
    steps.append(last := _named(FALLBACK, (step.id, answer), steps))
    return steps, last.id


def _more_steps(workflow: Workflow, library: Library, operations: Sequence[str], draw: random.Random) -> Change:
    """New steps that read what fits them, the latest rather than others; the last one gives the answer."""
    steps = list(workflow.steps)
    for _ in range(draw.randint(1, MAX_NEW)):
        types = {TASK: TASK} | {step.id: library[step.op].produces for step in steps}
        op = library[draw.choice(operations)]
        fitting = [id for id, type in types.items() if type in op.accepts]
        if not fitting:
            continue
        latest = [fitting.pop()] if draw.random() < 0.7 else []
        wanted = 1 if op.arity == "one" else draw.randint(2, 3)
        others = draw.sample(fitting, min(len(fitting), wanted - len(latest)))
        inputs = (*latest, *others)
        sources = [step for step in steps if step.id in inputs]
        fields = [(step.id, field) for step in sources for field in library[step.op].fields]
        new = _named(op.name, inputs, steps)
        steps.append(replace(new, when=Guard(*draw.choice(fields))) if fields and draw.random() < 0.7 else new)
    return steps, steps[-1].id


def _named(op: str, inputs: tuple[str, ...], steps: Sequence[Step]) -> Step:
    """A step with an id of its own, which is its operation's name and perhaps a number."""
    taken = {step.id for step in steps}
    ids = chain([op], (f"{op}_{number}" for number in count(2)))
    return Step(next(id for id in ids if id not in taken), op, inputs)


def difference(workflow: Workflow, steps: Sequence[Step], answer: str) -> Iterator[str]:
    """The parts of the edit that makes these steps of a workflow, without those that do not reach the answer."""
    old = {step.id: step for step in workflow.steps}
    after = Workflow(workflow.name, workflow.kinds, tuple(steps), answer)
    needed = after.ancestors(answer) | {answer}
    ids, named = {TASK: TASK, **{id: id for id in old}}, list(workflow.steps)
    for step in after.steps:
        if step.id in needed and step.id not in old:  # numbers without gaps: one edit is written in one way
            named.append(_named(step.op, step.inputs, named))
            ids[step.id] = named[-1].id
    for step in after.steps:
        guard = replace(step.when, step=ids[step.when.step]) if step.when and step.id in needed else None
        if step.id in needed and old.get(step.id) != step:
            changed = replace(step, inputs=tuple(ids[name] for name in step.inputs), when=guard)
            yield f"{'set' if step.id in old else 'add'} {ids[step.id]}: {write_call(changed)}"
    if answer != workflow.answer:
        yield f"answer {ids[answer]}"


def _pointless(workflow: Workflow, library: Library) -> bool:
    """Whether something is joined that is only one, sampled and not joined, or a fallback that is never needed."""
    for step in workflow.steps:
        joins = library[step.op].arity == "many"
        if joins and (step.samples > 1 or (len(step.inputs) == 1 and workflow.step(step.inputs[0]).samples == 1)):
            return True
        if step.op == FALLBACK and not _may_be_skipped(workflow, step.inputs[0]):
            return True
    return workflow.step(workflow.answer).samples > 1


def _may_be_skipped(workflow: Workflow, id: str) -> bool:
    return any(workflow.step(own).when for own in (workflow.ancestors(id) | {id}) - {TASK})
