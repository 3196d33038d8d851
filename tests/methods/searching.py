"""A served world for methods that search: what a workflow scores depends on its operations alone."""

from __future__ import annotations

from graphflow.engine.episode import Episode, StepOutput, StepRecord, Task
from graphflow.engine.tools import ToolBox
from graphflow.methods.base import Method
from tests.generator.small import COT, FIX, LIBRARY, RUN, VOTE, workflow

DIRECT = workflow("direct", "cot", cot={"op": "cot", "in": ["task"]})
REPOSITORY = {own.name: own for own in (DIRECT, RUN, VOTE)}
WITH_FIX = {own.name: own for own in (COT, RUN, VOTE, FIX)}
TASKS = [Task(f"v{index}", "words", "gsm8k", f"Ann has {index} apples. How many?") for index in range(10)]


def worth(workflow) -> int:
    """Tasks of ten that a workflow solves: programs that are run help, and so does more than one way."""
    ops = {step.op for step in workflow.steps}
    return 3 + 3 * ("run" in ops) + 2 * ({"cot", "run", "vote"} <= ops)


class World:
    """Executes proposals by a method's script, or by what is said, and scores workflows by `worth`.

    Args:
        method: Whose proposals are asked for.
        says: Answers in their order, in place of the script.
        stop: Raise before so many executions.
        score: Tasks of ten that a workflow solves.
    """

    def __init__(self, method: Method, says: list[str] | None = None, stop: int = 0, score=worth) -> None:
        self.method, self.says, self.stop, self.score = method, says, stop, score
        self.read: list[str] = []
        self.served: list[str] = []

    def __call__(self, pairs):
        for task, made in pairs:
            if task.id.startswith("proposal/"):
                yield self._written(task, made.name), 0.0
                continue
            if self.stop and len(self.served) == self.stop:
                raise KeyboardInterrupt
            self.served.append(made.fingerprint)
            calls = made.llm_calls(LIBRARY)
            step = StepRecord("s", "op", prefill_tokens=10 * calls, output_tokens=5 * calls, texts=("x",) * calls)
            number = int(task.id.split("#")[0][1:])
            yield Episode(task.id, "words", made.name, made.fingerprint, "a", [step]), float(number < self.score(made))

    def _written(self, task: Task, name: str) -> Episode:
        self.read.append(task.text)
        if self.says is not None:
            text = self.says.pop(0)
        else:
            output = self.method.tools[name](task, [StepOutput(task.text)], ToolBox())
            text = output.text
        step = StepRecord("s", name, output_tokens=0 if self.says is None else 5, texts=(text,))
        return Episode(task.id, "", name, "", text, [step])
