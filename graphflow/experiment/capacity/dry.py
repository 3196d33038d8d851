"""A dry walk through a workflow: the tokens that serving a task would take, without a model (our choice).

The task, the operations' prompts and the passages are real and counted with a tokenizer. How long outputs are and how
often guards hold is assumed, by `Assumptions`. Contexts branch, join and are skipped by the engine's own rules.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from graphflow.backbone.turns import TurnFormat
from graphflow.engine.call import SELECTS
from graphflow.engine.episode import StepOutput, StepRecord, Task
from graphflow.engine.job import Job
from graphflow.engine.parse import LETTERS
from graphflow.engine.state import Branch, Value, common_ancestor, leading
from graphflow.engine.toolwork import HANDS_ON
from graphflow.experiment.capacity.traffic import Call, Request
from graphflow.kv import Context
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import TASK, Step, Workflow


@dataclass
class Assumptions:
    """What a dry walk cannot know.

    Attributes:
        outputs: Tokens of an output by operation, the stop token included; of a tool, tokens of its result.
        other: The same for operations that are not named.
        guards: Share of tasks in which a step's fields are true: a test failed, a review found something; in [0, 1].

    Raises:
        ValueError: A length below 1, or ``guards`` out of range.
    """

    outputs: dict[str, int] = field(default_factory=dict)
    other: int = 100
    guards: float = 0.25

    def __post_init__(self) -> None:
        for name, length in {**self.outputs, "other": self.other}.items():
            if length < 1:
                raise ValueError(f"assumed.{name} must be 1 or more, got {length}")
        if not 0 <= self.guards <= 1:
            raise ValueError(f"assumed.guards must be in [0, 1], got {self.guards}")

    def length(self, op: str) -> int:
        """Assumed tokens of an output."""
        return self.outputs.get(op, self.other)

    def holds(self, task: Task, step: Step) -> bool:
        """Whether the fields of a step are true, for the assumed share of tasks, the same ones every time."""
        return zlib.crc32(f"{task.id}/{step.op}".encode()) < self.guards * 2**32


@dataclass(eq=False)
class Place(Branch):
    """A branch in counts.

    Attributes:
        length: Tokens with KV.
        waiting: Text tokens behind them that have none yet.
        wrote: Tokens of the output that this branch ends with, for a join that quotes it.
    """

    length: int = 0
    waiting: int = 0
    wrote: int = 0

    def longer(self, tokens: int, wrote: int) -> Place:
        """A branch that goes on with more text."""
        return Place(self.context, parent=self, length=self.length, waiting=self.waiting + tokens, wrote=wrote)


def place_of(branch: Branch) -> Place:
    """A branch of a dry walk, which are all places."""
    assert isinstance(branch, Place)
    return branch


class DryWalk:
    """Walks tasks through workflows.

    Args:
        library: Operations.
        turns: Turn format of the backbone.
        count: Tokens of a segment.
        assumed: Lengths and guards.
    """

    def __init__(self, library: Library, turns: TurnFormat, count: Callable[[str], int], assumed: Assumptions) -> None:
        self.library, self.turns, self.count, self.assumed = library, turns, count, assumed
        self.prompts = {
            op.name: count(turns.write_operation(op.prompt))
            for op in library.operations.values()
            if op.kind is Kind.LLM
        }
        self._closing, self._tool = count(turns.closing), count(turns.write_tool(""))
        self._given = count(turns.write_given(LETTERS[0], ""))

    def request(self, task: Task, workflow: Workflow) -> Request:
        """The traffic of one task."""
        root = Place(Context(), length=self.count(self.turns.write_task(task.text)))
        job, calls, places = Job(task, workflow, 0.0, 0.0, root, False), [], dict[str, int]()
        while not job.done:
            ready = job.ready()
            tools = [step for step in ready if self.library[step.op].kind is not Kind.LLM]
            for step in tools:
                job.finish(step, [self._result(job, step)], StepRecord(step.id, step.op))
            if ready and not tools:
                asked = [(step, *self._call(job, step)) for step in ready]  # all of them before one is finished
                for step, call, place, heads in asked:
                    after = tuple(sorted(_waits(step, workflow, places)))
                    places[step.id] = len(calls)
                    calls.append(replace(call, after=after))
                    job.finish(step, self._outputs(job, step, call, place, heads), StepRecord(step.id, step.op))
        return Request(root.length, tuple(calls))

    def _result(self, job: Job, step: Step) -> Value:
        """What a tool or a control step hands on."""
        values = job.inputs(step)
        output = StepOutput("", {name: self.assumed.holds(job.task, step) for name in self.library[step.op].fields})
        if step.op in HANDS_ON or self.library[step.op].kind is Kind.CONTROL:
            return Value(output, values[0].branch)
        passages = job.task.passages if step.op == "retrieve" else ()
        length = sum(map(self.count, passages)) // len(passages) if passages else self.assumed.length(step.op)
        return Value(output, place_of(values[0].branch).longer(self._tool + length, length))

    def _call(self, job: Job, step: Step) -> tuple[Call, Place, list[Value]]:
        """The call, the branch that it goes on from, and what it reads."""
        heads = leading(job.inputs(step))
        place = place_of(heads[0].branch)
        if len({id(value.branch) for value in heads}) > 1:
            quoted = sum(self._given + place_of(value.branch).wrote for value in heads)
            place = place_of(common_ancestor(heads)).longer(quoted, 0)
        output = step.samples * (self.assumed.length(step.op) - 1)
        before = place.length + place.waiting
        return Call(step.op, place.context.path, before, place.waiting, step.samples, output), place, heads

    def _outputs(self, job: Job, step: Step, call: Call, place: Place, heads: list[Value]) -> list[Value]:
        """The outputs of a call, each on its own branch; a selection hands on the first candidate."""
        place.length, place.waiting = call.before, 0
        if step.op == SELECTS:
            return [heads[0]] * step.samples
        context, length = Context(path=(*call.path, call.op)), self.assumed.length(step.op)
        output = StepOutput("", {name: self.assumed.holds(job.task, step) for name in self.library[step.op].fields})
        whole = call.before + self.prompts[call.op] + length - 1
        places = (Place(context, (), place, whole, self._closing, length) for _ in range(step.samples))
        return [Value(output, after) for after in places]


def _waits(step: Step, workflow: Workflow, places: Mapping[str, int]) -> set[int]:
    """Calls that a step waits for, by their places; through tools and skipped steps, those that these wait for."""
    found = set[int]()
    for name in {*step.inputs, *([step.when.step] if step.when else [])} - {TASK}:
        if name in places:
            found.add(places[name])
        else:
            found |= _waits(workflow.step(name), workflow, places)
    return found
