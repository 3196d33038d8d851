"""How workflows are written for models that change them: one line a step, read back strictly (our choice).

    program: program(task)
    tests: run_tests(program)
    fix: fix_program(tests) when tests.failed
    pick: first_nonempty(fix, program)
    answer pick

``x3`` behind the inputs draws three samples. AFlow's edits and AutoFlow's instructions use the same calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Guard, Step, Workflow, WorkflowError

_CALL = re.compile(
    r"(?P<op>\w+)\s*\((?P<inputs>[^()]*)\)(?:\s*x\s*(?P<samples>\d+))?(?:\s+when\s+(?P<when>(?:not\s+)?[^.\s]+\.\w+))?"
)
CALL = "OP(INPUT, ...) [xN] [when [not] STEP.FIELD]"


def read_step(id: str, text: str) -> Step:
    """A step from its id and its call, for example ``vote(cot, run) when tests.failed``.

    Raises:
        WorkflowError: The call has another form, or the step is not allowed.
    """
    match = _CALL.fullmatch(text.strip())
    if match is None:
        raise WorkflowError(f"step {id!r}: a call must have the form {CALL}, got {text.strip()!r}")
    inputs = tuple(name.strip() for name in match["inputs"].split(",") if name.strip())
    guard = Guard.parse(" ".join(match["when"].split())) if match["when"] else None
    return Step(id, match["op"], inputs, int(match["samples"] or 1), guard)


def write_call(step: Step, guarded: bool = True) -> str:
    """The inverse of `read_step`, without the guard if that is said elsewhere."""
    samples = f" x{step.samples}" if step.samples > 1 else ""
    guard = f" when {step.when}" if guarded and step.when else ""
    return f"{step.op}({', '.join(step.inputs)}){samples}{guard}"


def write_workflow(workflow: Workflow) -> str:
    """A workflow in lines, its answer in the last one."""
    return "\n".join([*(f"{step.id}: {write_call(step)}" for step in workflow.steps), f"answer {workflow.answer}"])


def ending(text: str, chars: int) -> str:
    """The last characters of a task on one line: passages may be long, and what is asked stands at the end."""
    return " ".join(text.split())[-chars:].strip()


def write_operations(library: Library, names: Sequence[str]) -> str:
    """What operations accept, need and give, one a line."""
    return "\n".join(_signature(library, name) for name in names)


def operations_of(workflows: Sequence[Workflow], kind: str) -> list[str]:
    """Names of the operations in workflows that are made for a kind, in alphabetical order.

    AFlow, too, searches with a list of operators for each benchmark.
    """
    return sorted({step.op for workflow in workflows if kind in workflow.kinds for step in workflow.steps})


def _signature(library: Library, name: str) -> str:
    operation = library[name]
    many = ", ..." if operation.arity == "many" else ""
    parts = [f"{name}({' | '.join(operation.accepts)}{many}) -> {operation.produces}"]
    if operation.requires:
        parts.append(f"after {', '.join(operation.requires)}")
    if operation.fields:
        parts.append(f"sets {', '.join(operation.fields)}")
    about = f": {' '.join(operation.semantics.split())}" if operation.semantics else ""
    return "; ".join(parts) + about


def read_workflow(lines: Sequence[str]) -> Workflow:
    """The inverse of `write_workflow`; kinds are not written.

    Raises:
        WorkflowError: A line has another form, there is no answer, or the steps make no workflow.
    """
    steps, answer = [], ""
    for line in lines:
        id, colon, call = line.partition(":")
        if colon:
            steps.append(read_step(id.strip(), call))
        elif line.startswith("answer "):
            answer = line.removeprefix("answer ").strip()
        else:
            raise WorkflowError(f"a line must be 'ID: {CALL}' or 'answer ID', got {line!r}")
    return Workflow("written", (), tuple(steps), answer)


def section(lines: Sequence[str], title: str) -> list[str]:
    """The lines below a title, up to the next empty one."""
    below = list(lines[lines.index(title) + 1 :])
    return below[: below.index("")] if "" in below else below
