"""Workflows: executable DAGs of steps with guards and one answer (format and rules: our choice).

A `Workflow` that exists has unique step ids, inputs that exist and no cycle, and its steps stand in topological order.
Whether it fits the operations of a library is a second question, which `validate` answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphflow.errors import UnknownNameError, unknown_name
from graphflow.wgraph import strict
from graphflow.wgraph.loops import Loop, unroll
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.step import TASK, Guard, Step, WorkflowError
from graphflow.wgraph.validation import validate

if TYPE_CHECKING:
    from graphflow.wgraph.library import Library

__all__ = ["TASK", "Guard", "Step", "Workflow", "WorkflowError", "validate"]


@dataclass(frozen=True)
class Workflow:
    """A DAG of steps that turns a task into an answer.

    A step whose guard does not hold is skipped. Skipped inputs are dropped; a step whose inputs are all skipped is
    skipped too.

    Attributes:
        name: Its name, also the name of its file.
        kinds: Benchmark kinds it is made for; empty where that is not known, as for a workflow built for one task.
        steps: The steps; whatever order they are given in, they are kept in topological order.
        answer: Id of the step whose output is the answer.

    Raises:
        WorkflowError: If ids repeat, an input or the answer does not exist, or the steps form a cycle.
    """

    name: str
    kinds: tuple[str, ...]
    steps: tuple[Step, ...]
    answer: str

    def __post_init__(self) -> None:
        ids = [step.id for step in self.steps]
        for id in ids:
            if ids.count(id) > 1:
                raise WorkflowError(f"{self}: step id {id!r} is given {ids.count(id)} times; an id names one step")
        for step in self.steps:
            for name in step.inputs:
                if name != TASK and name not in ids:
                    raise WorkflowError(f"{self}, step {step.id!r}: in: {unknown_name('step', name, [TASK, *ids])}")
        if self.answer not in ids:
            raise WorkflowError(f"{self}: answer: {unknown_name('step', self.answer, ids)}")
        object.__setattr__(self, "steps", _topological(self))

    def __str__(self) -> str:
        return f"workflow {self.name!r}"

    def step(self, id: str) -> Step:
        """The step with this id.

        Raises:
            UnknownNameError: If there is none.
        """
        if id not in self._by_id:
            raise UnknownNameError(f"{self}: {unknown_name('step', id, self._by_id)}")
        return self._by_id[id]

    def parents(self, id: str) -> tuple[str, ...]:
        """Ids of the inputs of a step in order, `TASK` among them where it reads the task."""
        return self.step(id).inputs

    def ancestors(self, id: str) -> frozenset[str]:
        """Ids of everything that a step reads directly or through others; `TASK` always belongs to it."""
        return self._ancestors[self.step(id).id]

    def llm_calls(self, library: Library) -> int:
        """Language-model calls at most: every sample counts, every guard is taken to hold."""
        return sum(step.samples for step in self.steps if library[step.op].kind is Kind.LLM)

    @cached_property
    def fingerprint(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical structure.

        Two workflows have the same one exactly if they differ in nothing but names and the order of declaration:
        operations, inputs in order, samples, guards and the answer are the same. Steps are numbered by a walk from the
        answer through the inputs in order, so the numbering does not depend on ids; steps that do not reach the answer,
        which `validate` refuses, are left out.
        """
        number: dict[str, int] = {TASK: 0}
        rows: dict[int, list[object]] = {}
        stack = [self.answer]
        while stack:
            id = stack.pop()
            if id in number:
                continue
            number[id] = len(number)
            step = self.step(id)
            guard = (step.when.step,) if step.when else ()
            stack += [*guard, *step.inputs[::-1]]
        for id, n in number.items():
            if id != TASK:
                step = self.step(id)
                guard = [number[step.when.step], step.when.field, step.when.negated] if step.when else None
                rows[n] = [step.op, [number[i] for i in step.inputs], step.samples, guard]
        canonical = json.dumps([rows[n] for n in sorted(rows)], separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain values in the form of a workflow file; loops stay written out."""
        steps = {step.id: step.to_dict() for step in self.steps}
        return {"name": self.name, "kinds": list(self.kinds), "steps": steps, "answer": self.answer}

    @classmethod
    def from_dict(cls, raw: object) -> Workflow:
        """Build a workflow from plain values, as a workflow file or `to_dict` gives them, and write out its loops.

        Raises:
            WorkflowError: If a key is unknown or missing, or the steps do not make a workflow.
        """
        try:
            values = strict.mapping(raw, "workflow", ("name", "kinds", "steps", "answer"), ("loops",))
            name = strict.text(values["name"], "name")
            answer = strict.text(values["answer"], "answer")
            kinds = strict.texts(values["kinds"], "kinds")
            declared = values["steps"]
            if not isinstance(declared, dict) or not declared:
                raise WorkflowError(f"steps must be a mapping of step ids to steps, not {declared!r}")
            loops = values.get("loops") or []
            if not isinstance(loops, list):
                raise WorkflowError(f"loops must be a list of loops, not {loops!r}")
        except WorkflowError:
            raise
        except ValueError as error:
            raise WorkflowError(str(error)) from error
        steps = [Step.from_dict(id, step) for id, step in declared.items()]
        return cls(name, kinds, tuple(unroll(steps, [Loop.from_dict(loop) for loop in loops], answer)), answer)

    @cached_property
    def _by_id(self) -> dict[str, Step]:
        return {step.id: step for step in self.steps}

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {TASK: frozenset()}
        for step in self.steps:
            found[step.id] = frozenset(step.inputs).union(*(found[name] for name in step.inputs))
        return found


def _topological(workflow: Workflow) -> tuple[Step, ...]:
    """The steps with every input before its reader; where that leaves a choice, in the order of declaration."""
    waiting = list(workflow.steps)
    ordered: list[Step] = []
    done = {TASK}
    while waiting:
        ready = next((step for step in waiting if done.issuperset(step.inputs)), None)
        if ready is None:
            raise WorkflowError(f"{workflow}: the steps form a cycle: {_cycle(waiting)}")
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.id)
    return tuple(ordered)


def _cycle(steps: Iterable[Step]) -> str:
    """One cycle among steps that all wait for each other, as ``a -> b -> a`` in the direction of the data."""
    inputs = {step.id: step.inputs for step in steps}
    walk = [next(iter(inputs))]
    while walk.count(walk[-1]) == 1:
        walk.append(next(name for name in inputs[walk[-1]] if name in inputs))
    return " -> ".join(reversed(walk[walk.index(walk[-1]) :]))
