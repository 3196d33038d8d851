"""Tool and control steps: they run as soon as they are ready, programs of many tasks in one sandbox batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from graphflow.engine.episode import StepOutput, StepRecord
from graphflow.engine.failure import attempt
from graphflow.engine.job import Job
from graphflow.engine.state import Branch, Value
from graphflow.engine.tools import ToolBox, run_batch
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Step

HANDS_ON = ("vote", "first_nonempty")
Ready = tuple[Job, Step]


class ToolWork:
    """Runs tools.

    Args:
        library: Operations.
        toolbox: What tools use.
        clock: Seconds, monotonic.
        extend: Gives the branch that goes on from a branch with a result.
    """

    def __init__(
        self,
        library: Library,
        toolbox: ToolBox,
        clock: Callable[[], float],
        extend: Callable[[Branch, str], Branch],
    ) -> None:
        self.library, self.toolbox, self.clock, self._extend = library, toolbox, clock, extend

    def run(self, ready: Sequence[Ready]) -> None:
        """Runs steps, those of one operation together; where that raises, one by one, and the one at fault fails."""
        by_op: dict[str, list[Ready]] = defaultdict(list)
        for job, step in ready:
            by_op[step.op].append((job, step))
        for op, pairs in by_op.items():
            if not attempt(lambda op=op, pairs=pairs: self._run(op, pairs)):
                continue
            for job, step in pairs:
                if step.id not in job.states:
                    failure = attempt(lambda op=op, pair=(job, step): self._run(op, [pair]))
                    if failure:
                        job.fail(f"step {step.id!r}: {failure}")

    def _run(self, op: str, pairs: Sequence[Ready]) -> None:
        started = self.clock()
        read = [job.inputs(step) for job, step in pairs]
        given = [(job.task, [value.output for value in values]) for (job, _), values in zip(pairs, read, strict=True)]
        for (job, step), values, output in zip(pairs, read, run_batch(op, given, self.toolbox), strict=True):
            self._finish(job, step, values, output, started)

    def _finish(self, job: Job, step: Step, values: list[Value], output: StepOutput, started: float) -> None:
        """A step that hands on one of its inputs goes on from that input's branch; a tool's result is dynamic text."""
        if step.op in HANDS_ON:
            chosen = next((value for value in values if value.output.text == output.text), values[0])
            result = Value(output, chosen.branch)
        elif self.library[step.op].kind is Kind.CONTROL:
            result = Value(output, values[0].branch)
        else:
            result = Value(output, self._extend(values[0].branch, output.text))
        record = StepRecord(step.id, step.op, start_s=started - job.arrived, end_s=self.clock() - job.arrived)
        record.texts = (output.text,)
        job.finish(step, [result], record)
