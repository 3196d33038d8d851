"""One task in flight: which steps are ready, what they read, and what came of them."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.engine.episode import Episode, StepOutput, StepRecord, Task
from graphflow.engine.growth import Outputs, check_growth
from graphflow.engine.state import Branch, StepState, Value
from graphflow.kv import own_bytes
from graphflow.wgraph.workflow import TASK, Step, Workflow


class Job:
    """A task, its workflow and the state of its steps.

    Attributes:
        begun: Ids of the steps that are in somebody's hands: `ready` does not give them again.
        error: Why it failed; empty while it did not.
        whole: True once nobody adds steps any more.

    Args:
        task: The task.
        workflow: A valid workflow.
        arrived: Clock at arrival, seconds.
        build_s: Seconds spent on building the workflow.
        root: Branch that holds the task's text.
        measured: Whether fidelity is measured.
    """

    def __init__(self, task: Task, workflow: Workflow, arrived: float, build_s: float, root: Branch, measured: bool):
        self.task, self.workflow, self.arrived, self.root, self.measured = task, workflow, arrived, root, measured
        self.states: dict[str, StepState] = {TASK: StepState([Value(StepOutput(task.text), root)])}
        self.episode = Episode(task.id, task.benchmark, workflow.name, workflow.fingerprint, build_s=build_s)
        self.branches = [root]
        self.begun: set[str] = set()
        self.error, self.whole = "", False
        self._added = (0, 0)

    def ready(self) -> list[Step]:
        """Steps that can run now; steps whose guard does not hold or that have nothing to read are skipped here."""
        found, changed = [], True
        while changed:
            found, changed = [], False
            for step in self.workflow.steps:
                if (
                    step.id in self.states
                    or step.id in self.begun
                    or any(name not in self.states for name in self._needs(step))
                ):
                    continue
                if self._guarded_off(step) or all(self.states[name].skipped for name in step.inputs):
                    self.states[step.id], changed = StepState(skipped=True), True
                else:
                    found.append(step)
        return found

    @staticmethod
    def _needs(step: Step) -> list[str]:
        return [*step.inputs, *([step.when.step] if step.when else [])]

    def _guarded_off(self, step: Step) -> bool:
        if step.when is None:
            return False
        values = self.states[step.when.step].values
        holds = any(value.output.fields.get(step.when.field, False) for value in values)
        return not values or holds == step.when.negated

    def inputs(self, step: Step) -> list[Value]:
        """What a step reads: the values of its inputs that ran, sample by sample, in order."""
        return [value for name in step.inputs for value in self.states[name].values]

    def finish(self, step: Step, values: Sequence[Value], record: StepRecord) -> None:
        """Records the results of a step."""
        self.states[step.id] = StepState(list(values))
        self.branches += [value.branch for value in values]
        self.episode.steps.append(record)

    def outputs(self) -> Outputs:
        """What the steps that ran have written."""
        ran = {id: state for id, state in self.states.items() if id != TASK and not state.skipped}
        return {id: [value.output for value in state.values] for id, state in ran.items()}

    def grow(self, workflow: Workflow) -> None:
        """Goes on with a workflow that has all of the present steps, and more.

        Raises:
            WorkflowError: It has not.
        """
        check_growth(self.workflow, workflow)
        self.workflow = workflow
        self.episode.workflow, self.episode.fingerprint = workflow.name, workflow.fingerprint

    @property
    def done(self) -> bool:
        """True once the answer step has run or was skipped, or the task has failed."""
        return bool(self.error) or self.workflow.answer in self.states

    def fail(self, error: str) -> None:
        """Ends the task; the first reason stays."""
        self.error = self.error or error

    def close(self, now: float) -> Episode:
        """The finished episode."""
        episode = self.episode
        values = [] if self.error else self.states[self.workflow.answer].values
        episode.answer, episode.error = values[0].output.text if values else "", self.error
        if not values and not self.error:
            episode.error = f"the answer step {self.workflow.answer!r} was skipped: none of its inputs ran"
        episode.latency_s = now - self.arrived
        episode.op_bytes, episode.dynamic_bytes = self.own_bytes()
        return episode

    def add(self, nbytes: tuple[int, int]) -> None:
        """Notes bytes that this task added to what all tasks share: operation state, dynamic text."""
        self._added = (self._added[0] + nbytes[0], self._added[1] + nbytes[1])

    def held_bytes(self) -> tuple[int, int]:
        """Bytes that this task alone holds now: operation state of its own, dynamic text."""
        return own_bytes({id(branch.context): branch.context for branch in self.branches}.values())

    def own_bytes(self) -> tuple[int, int]:
        """Bytes that exist for this task: what it holds and what it added to what all share."""
        operation, dynamic = self.held_bytes()
        return operation + self._added[0], dynamic + self._added[1]
