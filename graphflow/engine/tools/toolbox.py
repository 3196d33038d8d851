"""What tools share: their signature, and the sandbox that code tools run in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.sandbox import Job, Sandbox, SandboxConfig, Verdict

CODE_KINDS = ("humaneval", "mbpp")


@dataclass
class ToolBox:
    """What a tool may use besides its inputs.

    Attributes:
        sandbox: Where programs run; None makes one from ``config`` when the first program comes.
        config: Limits for a sandbox that is made here.
        tools: Tools beside those that every toolbox has, by operation: a method's own.
    """

    sandbox: Sandbox | None = None
    config: SandboxConfig = field(default_factory=SandboxConfig)
    tools: Mapping[str, Tool] = field(default_factory=dict)

    def runner(self) -> Sandbox:
        """The sandbox.

        Raises:
            SandboxError: If none was given and none can be made here.
        """
        if self.sandbox is None:
            self.sandbox = Sandbox(self.config)
        return self.sandbox


Tool = Callable[[Task, list[StepOutput], ToolBox], StepOutput]
Call = tuple[Task, list[StepOutput]]


@dataclass(frozen=True)
class CodeTool:
    """A tool that runs one program a call, so that a batch of calls is one sandbox batch.

    Attributes:
        prepare: The program to run, or at once the output where there is nothing to run.
        read: The output for the program's verdict.
    """

    prepare: Callable[[Task, str], Job | StepOutput]
    read: Callable[[Verdict], StepOutput]

    def __call__(self, task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
        """One call."""
        return self.batch([(task, inputs)], toolbox)[0]

    def batch(self, calls: Sequence[Call], toolbox: ToolBox) -> list[StepOutput]:
        """Many calls, their programs in one batch."""
        prepared = [self.prepare(task, only(inputs).text) for task, inputs in calls]
        jobs = [item for item in prepared if isinstance(item, Job)]
        verdicts = iter(toolbox.runner().run_many(jobs) if jobs else ())
        return [self.read(next(verdicts)) if isinstance(item, Job) else item for item in prepared]


def only(inputs: list[StepOutput]) -> StepOutput:
    """The single input of a tool of arity one.

    Raises:
        ValueError: If there is not exactly one.
    """
    if len(inputs) != 1:
        raise ValueError(f"this tool takes exactly 1 input, got {len(inputs)}")
    return inputs[0]
