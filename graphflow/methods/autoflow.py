"""autoflow: one flow in the CoRE language, rewritten by its score (the paper's "AutoFlow" baseline; reduction is ours).

Read: agiresearch/AutoFlow (``src/auto_agi.py`` at 184114c, ``src/auto_main.py`` at bba9e79) and agiresearch/CoRE
(``src/flow/block.py`` at aeff75a).

The original has a model write a flow for a whole benchmark. In-context, a conversation goes on for ten epochs: the
model sees its flows with the performance of each on training tasks, or the error that executing one raised, and writes
the next. With open weights the flow's writer is trained by reinforcement instead, where a flow that fails has reward
-2. The flow with the best reward is the result.

Kept: the language, ten epochs, the conversation of flows, rewards and errors, -2 for a flow that is not valid, the
best flow as the result.

Left out: instructions as free sentences and branches that a model decides (`graphflow.methods.core_language` says what
stands in their place), without which no two flows share an operation whose state can be kept; a second model that
corrects the grammar; training the writer, which our backbones, shared by all methods, are not open to; all flows so
far. The conversation is one text with the best flow and the last four, and a flow that is not valid is shown, with its
error, to the next writer alone: local models repeat the mistakes that they read.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools import ToolBox
from graphflow.methods.core_language import read_flow, write_flow
from graphflow.methods.edits import apply_edit, draw_edit
from graphflow.methods.found import Found
from graphflow.methods.notation import ending, operations_of, section, write_operations
from graphflow.methods.proposing import Proposal
from graphflow.methods.trials import BudgetSpent, Trials
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import Workflow, WorkflowError

EPOCHS = 10
INVALID = -2.0
EXAMPLES, EXAMPLE_CHARS = 2, 300  # the original shows two task descriptions; the last characters of each
OPERATIONS, BEST, ALL = "Operations:", "Best flow:", "Flows so far:"
SHOWN = 4  # flows of a page, the latest, besides the best
DRAWS = 20  # changes that the script tries until one can be written as a flow
BROKEN = 1 / 8  # share of the script's flows that are not valid

FLOW = Operation(
    name="autoflow_flow",
    kind=Kind.LLM,
    accepts=("task",),
    produces="plan",
    temperature=0.7,
    max_tokens=384,
    prompt="""\
Write a flow that does better than those above on tasks like the examples. A flow has one step a line, in the form
name:::type:::instruction:::branches
The name is a word of its own. The instruction calls one of the operations above on what it reads, the task or earlier
steps by name: OPERATION(INPUT, ...), with xN behind it for N samples that a later step joins. The type is process,
decision or terminal. A process has the branch next::NAME. A decision calls an operation that sets a field and has two
branches, FIELD::NAME::not FIELD::NAME. The one terminal gives the answer and has no branches, so that its line ends
with :::. Branches lead to later lines, and what is read has the listed types. Write the lines of the flow and nothing
else.""",
)


@dataclass(frozen=True)
class Attempt:
    """One flow of a search.

    Attributes:
        epoch: 0 is the flow that the search starts from.
        flow: Its text.
        reward: Mean metric on the validation tasks, or `INVALID`.
        error: Why it is not valid; empty if it is.
    """

    epoch: int
    flow: str
    reward: float
    error: str = ""


class AutoFlow(Found):
    """The best flow that was written for each benchmark.

    Args:
        library: The operations.
        workflows: The repository's workflows by name: where a search starts, and which operations a kind has.
        scripted: Whether flows are drawn at random in the model's place.
        max_llm_calls: Calls that a flow may make at most.
        epochs: Flows at most.
    """

    name = "autoflow"

    def __init__(
        self,
        library: Library,
        workflows: Mapping[str, Workflow],
        scripted: bool = False,
        max_llm_calls: int = 8,
        epochs: int = EPOCHS,
    ) -> None:
        super().__init__(library, workflows)
        self.max_llm_calls, self.epochs = max_llm_calls, epochs
        self.flow = Proposal(FLOW, partial(write_random_flow, library, max_llm_calls))
        self.propose(self.flow, scripted=scripted)

    def executions(self, tasks: int) -> int:
        """See `Found.executions`."""
        return (self.epochs + 1) * tasks

    def search(self, trials: Trials) -> None:
        """Improve a flow on the validation tasks of one benchmark; ends with the best so far if the budget is spent.

        Raises:
            BudgetSpent: Not even the first flow can be scored.
        """
        task = trials.tasks[0]
        first = self.first(task)
        attempts, best = [Attempt(0, write_flow(first), trials.mean(first))], first
        try:
            for epoch in range(1, self.epochs + 1):
                text = trials.write(self.flow, self.shown(trials, attempts), seed=epoch).strip()
                attempt, workflow = self._tried(trials, epoch, text)
                if workflow is not None and attempt.reward > _best(attempts).reward:
                    best = workflow
                attempts.append(attempt)
        except BudgetSpent:
            pass  # what was found so far counts
        self.keep(task.benchmark, best, [asdict(attempt) for attempt in attempts])

    def _tried(self, trials: Trials, epoch: int, text: str) -> tuple[Attempt, Workflow | None]:
        """What a flow is worth; a flow that is not valid is not executed."""
        kind = trials.tasks[0].kind
        try:
            workflow = self.read(text, (kind,), f"autoflow_{epoch}")
        except WorkflowError as error:
            return Attempt(epoch, text, INVALID, " ".join(str(error).split())), None
        return Attempt(epoch, text, trials.mean(workflow)), workflow

    def read(self, text: str, kinds: tuple[str, ...] = (), name: str = "flow") -> Workflow:
        """The workflow of a flow that was written.

        Raises:
            WorkflowError: It is not valid, or makes too many calls.
        """
        workflow = read_flow(text, self.library, kinds, name)
        calls = workflow.llm_calls(self.library)
        if calls > self.max_llm_calls:
            raise WorkflowError(f"a flow may make {self.max_llm_calls} calls at most, this makes {calls}")
        return workflow

    def shown(self, trials: Trials, attempts: Sequence[Attempt]) -> str:
        """What a model reads to write the next flow: `page` with up to `SHOWN` flows, or as many as it has room for."""
        recent = [attempt for attempt in attempts if not attempt.error or attempt is attempts[-1]][-SHOWN:]
        pages = (self.page(trials.tasks, attempts, recent[gone:]) for gone in range(len(recent) + 1))
        return trials.roomy(self.flow, pages)

    def page(self, tasks: Sequence[Task], attempts: Sequence[Attempt], recent: Sequence[Attempt]) -> str:
        """The text behind `FLOW`.

        Args:
            tasks: Of the benchmark; the first ones are shown.
            attempts: All flows so far, of which the best is shown.
            recent: Those of them that are shown besides.
        """
        best = _best(attempts)
        sections = [
            OPERATIONS,
            write_operations(self.library, operations_of([*self.workflows.values()], tasks[0].kind)),
            "\nExamples of tasks:",
            *(f"* {ending(task.text, EXAMPLE_CHARS)}" for task in tasks[:EXAMPLES]),
            f"\n{BEST}",
            best.flow,
            f"(performance {best.reward:.4f}, between 0 and 1)",
            f"\n{ALL}",
        ]
        for attempt in recent:
            error = f"; it cannot be executed: {attempt.error}" if attempt.error else ""
            sections += [attempt.flow, f"(epoch {attempt.epoch}, performance {attempt.reward:.4f}{error})"]
        return "\n".join(sections)


def _best(attempts: Sequence[Attempt]) -> Attempt:
    """The highest reward; of equal ones the earliest."""
    return max(attempts, key=lambda attempt: (attempt.reward, -attempt.epoch))


def write_random_flow(
    library: Library, max_llm_calls: int, task: Task, inputs: list[StepOutput], box: ToolBox
) -> StepOutput:
    """The script in a model's place: the best flow changed at random to one that is not shown, one in eight not valid.

    It is seeded by the text, the last flows included.
    """
    lines, draw = task.text.split("\n"), random.Random(task.text)
    operations = [line.split("(")[0] for line in section(lines, OPERATIONS)]
    best = read_flow("\n".join(section(lines, BEST)), library)
    text = write_flow(best)
    for _ in range(DRAWS):
        if edit := draw_edit(best, library, operations, max_llm_calls, draw):
            changed = apply_edit(best, edit, library, max_llm_calls)
            flow = write_flow(changed)
            if flow not in task.text and can_be_written(changed, library):
                text = flow
                break
    return StepOutput(broken(text, draw) if draw.random() < BROKEN else text)


def can_be_written(workflow: Workflow, library: Library) -> bool:
    """Whether a workflow is the same when its flow is read."""
    try:
        return read_flow(write_flow(workflow), library).fingerprint == workflow.fingerprint
    except WorkflowError:
        return False


def broken(text: str, draw: random.Random) -> str:
    """A flow with one of the mistakes that models make: a separator short, no such type, or no end."""
    mistakes = (
        lambda: text.replace(":::", "::", 1),
        lambda: text.replace(":::terminal:::", ":::end:::"),
        lambda: "\n".join(text.split("\n")[:-1]),
    )
    return draw.choice(mistakes)()
