"""Loops as bounded unrolling (our choice): a workflow that runs is always a DAG.

A loop names a body of steps that improve one value. The first round is the body as written. Every further round is a
copy of it (``fix`` becomes ``fix_2``) that reads the previous round's last body step in place of the outside value,
and that runs only if the condition held in the previous round. A step behind the loop that read a body step reads all
its copies, the latest first, so that ``first_nonempty`` takes the latest that ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphflow.errors import unknown_name
from graphflow.wgraph import strict
from graphflow.wgraph.step import TASK, Guard, Step, WorkflowError


@dataclass(frozen=True)
class Loop:
    """A loop as a workflow file declares it.

    Attributes:
        body: Ids of the repeated steps; the last one's output goes into the next round.
        condition: Guard over a step of the body: another round runs while it holds (``while`` in the file).
        max_unroll: Rounds at most, the first included.
    """

    body: tuple[str, ...]
    condition: Guard
    max_unroll: int

    @classmethod
    def from_dict(cls, raw: object) -> Loop:
        """Build a loop from ``{body: [...], while: ..., max_unroll: ...}``.

        Raises:
            WorkflowError: If a key is unknown or missing, or a value is not allowed.
        """
        try:
            values = strict.mapping(raw, "loop", ("body", "while", "max_unroll"))
            return cls(
                body=strict.texts(values["body"], "loop: body"),
                condition=Guard.parse(strict.text(values["while"], "loop: while")),
                max_unroll=strict.whole(values["max_unroll"], "loop: max_unroll", 1),
            )
        except WorkflowError:
            raise
        except ValueError as error:
            raise WorkflowError(str(error)) from error


def unroll(steps: Sequence[Step], loops: Sequence[Loop], answer: str) -> list[Step]:
    """The steps with every loop written out.

    Args:
        steps: The steps as declared.
        loops: The loops over them; their bodies share no step.
        answer: Id of the answer step, which must stand outside every loop.

    Returns:
        The steps, each body followed by its copies.

    Raises:
        WorkflowError: If a loop is not one that can be written out.
    """
    bodies = [step for loop in loops for step in loop.body]
    twice = sorted({step for step in bodies if bodies.count(step) > 1})
    if twice:
        raise WorkflowError(f"loop: body names {', '.join(twice)} more than once; a step belongs to one loop at most")
    if answer in bodies:
        raise WorkflowError(
            f"answer {answer!r} stands inside a loop; put first_nonempty behind the loop and make it the answer"
        )
    result = list(steps)
    for loop in loops:
        result = _unroll_one(result, loop)
    return result


def _unroll_one(steps: list[Step], loop: Loop) -> list[Step]:
    carried = _carried(steps, loop)
    rounds = range(2, loop.max_unroll + 1)
    copies = [_copy(step, loop, carried, k) for k in rounds for step in steps if step.id in loop.body]
    last = max(index for index, step in enumerate(steps) if step.id in loop.body)
    rewired = [step if step.id in loop.body else _after(step, loop) for step in steps]
    return [*rewired[: last + 1], *copies, *rewired[last + 1 :]]


def _carried(steps: list[Step], loop: Loop) -> str:
    """The one step outside the body whose value the loop improves."""
    for id in loop.body:
        if id not in {step.id for step in steps}:
            raise WorkflowError(f"loop: body: {unknown_name('step', id, [step.id for step in steps])}")
    if loop.condition.step not in loop.body:
        raise WorkflowError(
            f"loop: while must read a step of the body ({', '.join(loop.body)}), not {str(loop.condition)!r}"
        )
    body = [step for step in steps if step.id in loop.body]
    outside = {name for step in body for name in step.inputs} - {*loop.body, TASK}
    if len(outside) != 1:
        raise WorkflowError(
            f"loop: body {', '.join(loop.body)} must read exactly one step outside itself, whose value it improves, "
            f"not {', '.join(sorted(outside)) or 'none'}"
        )
    return outside.pop()


def _name(id: str, k: int) -> str:
    return id if k == 1 else f"{id}_{k}"


def _copy(step: Step, loop: Loop, carried: str, k: int) -> Step:
    """The step of round ``k`` (counted from 1)."""
    names = {id: _name(id, k) for id in loop.body} | {carried: _name(loop.body[-1], k - 1)}
    if step.when is not None and step.when.step in loop.body:
        when = replace(step.when, step=_name(step.when.step, k))
    else:
        when = replace(loop.condition, step=_name(loop.condition.step, k - 1))
    return replace(step, id=_name(step.id, k), inputs=tuple(names.get(i, i) for i in step.inputs), when=when)


def _after(step: Step, loop: Loop) -> Step:
    """A step outside the body, reading every round of what it read, the latest first."""
    if step.when is not None and step.when.step in loop.body:
        raise WorkflowError(f"step {step.id!r}: guard {str(step.when)!r} reads a step of a loop it does not belong to")
    inputs: list[str] = []
    for id in step.inputs:
        inputs += [_name(id, k) for k in range(loop.max_unroll, 0, -1)] if id in loop.body else [id]
    return replace(step, inputs=tuple(inputs))
