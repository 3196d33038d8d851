"""Flows in the CoRE language, as workflows (CoRE: agiresearch/CoRE, ``src/flow/block.py`` at aeff75a).

    code:::process:::code_generate(task):::next::tests
    tests:::decision:::run_tests(code):::failed::fix::not failed::pick
    fix:::process:::fix_program(tests):::next::pick
    pick:::terminal:::first_nonempty(fix, code):::

A line is ``name:::type:::instruction:::branches``, a branch ``key::name``. A process has the one branch ``next``, a
decision two, a terminal none. In the original an instruction is a sentence that a model follows, and a model says which
branch its answer takes. Here an instruction calls an operation of the library on what it reads, and a decision branches
on a boolean field of its operation, ``field`` or ``not field``: what only one branch leads to gets that guard. Branches
lead down, as a workflow has no cycles, and there is one terminal, as it has one answer (the original allows jumps back
and several ends).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphflow.errors import unknown_name
from graphflow.methods.notation import read_step, write_call
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Guard, Step, Workflow, WorkflowError, validate

TYPES = ("process", "decision", "terminal")
FORM = "name:::type:::instruction:::branches"
_NOT = "not "


@dataclass(frozen=True)
class Line:
    """One step of a flow.

    Attributes:
        name: Its name.
        type: One of `TYPES`.
        call: What it calls.
        branches: Name of the next step by key.
    """

    name: str
    type: str
    call: Step
    branches: dict[str, str]


def read_flow(text: str, library: Library, kinds: tuple[str, ...] = (), name: str = "flow") -> Workflow:
    """The workflow of a flow.

    Args:
        text: Lines; those without ``:::`` are passed over, as in the original.
        library: What the workflow must fit.
        kinds: Kinds that the workflow is made for.
        name: Its name.

    Raises:
        WorkflowError: A line is not of the language, branches do not fit together, or the workflow is not valid.
    """
    lines = [_line(row.strip()) for row in text.split("\n") if ":::" in row]
    if not lines:
        raise WorkflowError(f"a flow must have lines of the form {FORM}, got none")
    names = [line.name for line in lines]
    for line in lines:
        if names.count(line.name) > 1:
            raise WorkflowError(f"step name {line.name!r} is given {names.count(line.name)} times; it names one step")
        _check_branches(line, names, library)
    ends = [line.name for line in lines if line.type == "terminal"]
    if len(ends) != 1:
        raise WorkflowError(f"a flow must have exactly one terminal step, got {', '.join(ends) or 'none'}")
    workflow = Workflow(name, kinds, _guarded(lines), ends[0])
    validate(workflow, library)
    return workflow


def write_flow(workflow: Workflow) -> str:
    """A workflow as a flow, with each decision before what it guards.

    The order of steps must let every block of guarded steps follow its decision; what is read back may differ where it
    does not, so that a caller who cannot exclude this compares fingerprints.
    """
    steps, deciding = workflow.steps, {step.when.step: step.when for step in workflow.steps if step.when}
    rows = []
    for place, step in enumerate(steps):
        after = [own.id for own in steps[place + 1 :]]
        type, branches = "process", f"next::{after[0]}" if after else ""
        if step.id == workflow.answer:
            type, branches = "terminal", ""
        elif guard := deciding.get(step.id):
            others = [own.id for own in steps[place + 1 :] if own.when != guard]
            key, other = (f"{_NOT}{guard.field}", guard.field) if guard.negated else (guard.field, _NOT + guard.field)
            type, branches = "decision", f"{key}::{after[0]}::{other}::{others[0] if others else after[0]}"
        rows.append(f"{step.id}:::{type}:::{write_call(step, guarded=False)}:::{branches}")
    return "\n".join(rows)


def _line(row: str) -> Line:
    parts = [part.strip() for part in row.split(":::")]
    if len(parts) != 4:
        raise WorkflowError(f"a line must have the form {FORM}, got {len(parts)} parts in {row!r}")
    name, type, instruction, rest = parts
    if type.lower() not in TYPES:
        raise WorkflowError(f"step {name!r}: {unknown_name('type', type, TYPES)}")
    fields = [field.strip() for field in rest.split("::")] if rest else []
    if len(fields) % 2:
        raise WorkflowError(f"step {name!r}: branches must be pairs key::name, got {rest!r}")
    call = read_step(name, instruction)
    if call.when:
        raise WorkflowError(f"step {name!r}: a condition is written as a decision, not as 'when {call.when}'")
    return Line(name, type.lower(), call, dict(zip(fields[::2], fields[1::2], strict=True)))


def _check_branches(line: Line, names: Sequence[str], library: Library) -> None:
    """See that a line has the branches of its type, and that they lead down."""
    keys = sorted(line.branches)
    if line.call.op not in library:
        raise WorkflowError(f"step {line.name!r}: {unknown_name('operation', line.call.op, library)}")
    allowed = {"process": [["next"]], "terminal": [[]]}.get(line.type)
    if allowed is None:
        allowed = [sorted((field, _NOT + field)) for field in library[line.call.op].fields]
    if keys not in allowed:
        wanted = " or ".join(", ".join(some) or "none" for some in allowed) or f"possible: {line.call.op} has no field"
        raise WorkflowError(f"step {line.name!r}: the branches of a {line.type} here must be {wanted}; got {keys}")
    for target in line.branches.values():
        if target not in names:
            raise WorkflowError(f"step {line.name!r}: {unknown_name('step', target, names)}")
        if names.index(target) <= names.index(line.name):
            raise WorkflowError(f"step {line.name!r}: a branch must lead to a later line, {target!r} is none")


def _guarded(lines: Sequence[Line]) -> tuple[Step, ...]:
    """The steps, each with the last of the conditions that hold on every way to it."""
    ways: dict[str, list[tuple[Guard, ...]]] = {line.name: [] for line in lines}
    ways[lines[0].name] = [()]
    steps = []
    for line in lines:
        if not ways[line.name]:
            raise WorkflowError(f"step {line.name!r} is never reached from {lines[0].name!r}, where the flow begins")
        conditions = _in_common(ways[line.name])
        steps.append(replace(line.call, when=conditions[-1] if conditions else None))
        for key, target in line.branches.items():
            decided = (Guard(line.name, key.removeprefix(_NOT), key.startswith(_NOT)),) if key != "next" else ()
            ways[target].append(conditions + decided)
    return tuple(steps)


def _in_common(ways: Sequence[tuple[Guard, ...]]) -> tuple[Guard, ...]:
    """The longest beginning that all ways share."""
    shared = []
    for conditions in zip(*ways, strict=False):
        if len(set(conditions)) > 1:
            break
        shared.append(conditions[0])
    return tuple(shared)
