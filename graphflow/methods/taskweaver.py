"""taskweaver: a planner instructs a code interpreter that keeps its state, and observes what came out.

Original (microsoft/TaskWeaver, ``taskweaver/session/session.py`` at 06e2c80e, ``planner/planner.py`` at 05fe7557,
``code_interpreter/code_interpreter/code_interpreter.py`` at 18e8f8be): a planner writes a plan and posts a request to a
code interpreter; that writes code, runs it in a kernel that lives as long as the session, and on an error posts the
error to itself and tries again, at most 3 times; the planner reads the outcome, and posts the next request or answers.
A session fails after 10 internal posts.

Kept: both roles, state between cells, retries with the error (3), the planner's decision after each cell, the limit of
posts (10). A post is a plan, one attempt at a cell with its run, or an observation. At most 3 cells follow each other,
and with the last post the planner has to answer, where the original gives up without an answer.

State is kept by running the code of the earlier cells that succeeded before the new cell's, in one program (the sandbox
has no kernels that live on): names are there again, but what a cell does besides is done again, and a cell that failed
leaves nothing behind, as it might in a kernel. The value of a cell is that of its ``solve()``. Cells of code tasks are
tried on the tests that the task shows, and together are the answer: the code, not what is said about it. The passages
of a question are there as a list ``passages``.

Left out: plugins, retrieval of examples and experience, memory over several rounds, verification of imports (the
sandbox does that), compression of prompts, JSON around each post.

Mini backbones that are planners (`graphflow.training.lessons`) do all of this. For the others a script writes plan and
decisions: one cell for numbers (program) and for code (code_generate), both repaired by fix_program; two look-ups
(lookup_query, retrieve) in place of cells for questions. It answers with the value that the interpreter gave; where
there is none, and for questions, the model answers from what it saw (generate_cot, answer_generate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.growth import Outputs
from graphflow.engine.tools import ToolBox
from graphflow.engine.tools.python import run_python
from graphflow.engine.tools.tests import run_tests
from graphflow.engine.tools.text import extract_code
from graphflow.engine.tools.toolbox import CODE_KINDS
from graphflow.methods.base import Method
from graphflow.methods.planning import Deciding, block, extended, numbered
from graphflow.methods.proposing import Proposal
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Convention, Kind, Operation
from graphflow.wgraph.workflow import TASK, Step, Workflow

CELLS, RETRIES, POSTS = 3, 3, 10

PLAN = Operation(
    "taskweaver_plan",
    Kind.LLM,
    ("task",),
    "plan",
    max_tokens=256,
    prompt=(
        f"You are the planner. You work with a code interpreter that writes and runs Python, follows one request at a "
        f"time and remembers what earlier code has defined. Break the task above into at most {CELLS} requests, as a "
        "numbered list, and merge what can be done at once. Do not write code."
    ),
)
CELL = Operation(
    "taskweaver_cell",
    Kind.LLM,
    ("plan", "answer"),
    "code",
    convention=Convention.CODE,
    max_tokens=512,
    prompt=(
        "You are the code interpreter. Write the Python code for the planner's next request alone. Names that your "
        "earlier code has defined are still there. If the task asks for a function, define it with the name and "
        "arguments that are asked for. Otherwise define what later code needs at the top level, and a function solve() "
        "without arguments that returns what this request asks for; passages that the task shows are in the list "
        "passages. Write one fenced block of code."
    ),
)
DECISION = (
    "You are the planner. The outcome of your last request stands above. Think in one or two sentences about what it "
    "means for the task. "
)
ANSWERING = "write the final answer, in the form that the task asks for, between <answer> and </answer>."
OBSERVE = Operation(
    "taskweaver_observe",
    Kind.LLM,
    ("result", "passages", "plan"),
    "answer",
    arity="many",
    max_tokens=256,
    prompt=f"{DECISION}If the task is done, {ANSWERING} Otherwise write the next request between <next> and </next>.",
)
CONCLUDE = Operation(
    "taskweaver_conclude",
    Kind.LLM,
    ("result", "passages", "plan"),
    "answer",
    arity="many",
    max_tokens=256,
    prompt=f"{DECISION}No further request is possible: {ANSWERING}",
)
RUN = Operation("taskweaver_run", Kind.TOOL, ("code",), "result", fields=("failed",), arity="many")
REPORT = Operation("taskweaver_report", Kind.TOOL, ("code",), "code", arity="many")


@dataclass(frozen=True)
class Interpreter:
    """Which operations act for the interpreter.

    Attributes:
        cell: Writes a cell.
        run: Runs it.
        answer: Answers where the script has no value; empty where it always has one.
        requests: What the script plans.
    """

    cell: str
    run: str = RUN.name
    answer: str = ""
    requests: tuple[str, ...] = ()


MODEL = Interpreter(CELL.name)
ARITHMETIC = Interpreter("program", answer="generate_cot", requests=("Write a program that computes the answer.",))
WRITING = Interpreter("code_generate", requests=("Write the function and try it on the examples.",))
LOOKING_UP = Interpreter(
    "lookup_query", "retrieve", "answer_generate", ("Look up what the question names.", "Look up what that leads to.")
)
MINI = {"gsm8k": ARITHMETIC, "math": ARITHMETIC, "hotpotqa": LOOKING_UP, "humaneval": WRITING, "mbpp": WRITING}


class TaskWeaver(Method):
    """Begins with a plan and grows by one post at a time.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.
        scripted: Whether a script is the planner.
    """

    name = "taskweaver"

    def __init__(self, library: Library, workflows: Mapping[str, Workflow], scripted: bool = False) -> None:
        super().__init__(library, workflows)
        planner = (Proposal(PLAN, write_plan), Proposal(OBSERVE, decide), Proposal(CONCLUDE, decide))
        self.propose(*planner, scripted=scripted)
        cell = () if scripted else (CELL,)
        self.asking = Deciding([*(proposal.made(scripted) for proposal in planner), *cell, RUN, REPORT])
        self.tools = {**self.tools, RUN.name: run_cell, REPORT.name: report}

    def build(self, task: Task) -> Workflow:
        """The plan's call alone."""
        return Workflow(self.name, (), (Step("plan", PLAN.name, (TASK,)),), "plan")

    def grow(self, task: Task, workflow: Workflow, outputs: Outputs) -> Workflow | None:
        """The next post; None after the planner's answer."""
        last = workflow.answer
        post, *numbers = last.split("_")
        match post:
            case "plan":
                return self._cell(task, workflow, outputs, 1)
            case "run":
                cell, tries = map(int, numbers)
                if _failed(outputs, last) and tries <= RETRIES and posts(workflow) < POSTS - 1:
                    retry = Step(f"cell_{cell}_{tries + 1}", "fix_program", (last,))
                    return self._run(task, workflow, outputs, retry)
                return self._observe(workflow, cell)
            case "observe":
                return self._after(task, workflow, outputs, int(numbers[0]))
            case _:
                return None

    def _interpreter(self, task: Task) -> Interpreter:
        return MINI.get(task.kind, ARITHMETIC) if self.scripted else MODEL

    def _cell(self, task: Task, workflow: Workflow, outputs: Outputs, cell: int) -> Workflow:
        """A new cell: a model reads the planner's last post; for a script it reads what ran before, or the task."""
        source = (_runs(workflow) or [TASK])[-1] if self.scripted else workflow.answer
        return self._run(task, workflow, outputs, Step(f"cell_{cell}_1", self._interpreter(task).cell, (source,)))

    def _run(self, task: Task, workflow: Workflow, outputs: Outputs, cell: Step) -> Workflow:
        """A cell and its run, which has what earlier cells defined."""
        op = self._interpreter(task).run
        earlier = kept(workflow, outputs) if op == RUN.name else []
        return extended(workflow, cell, Step(cell.id.replace("cell", "run"), op, (cell.id, *earlier)))

    def _observe(self, workflow: Workflow, cell: int) -> Workflow:
        """The planner reads how each cell ended, the latest first; there must be room to read one more."""
        final = cell == CELLS or posts(workflow) > POSTS - 3
        ended = {run.split("_")[1]: run for run in _runs(workflow)}
        inputs = (*reversed(ended.values()), "plan")
        return extended(workflow, Step(f"observe_{cell}", (CONCLUDE if final else OBSERVE).name, inputs))

    def _after(self, task: Task, workflow: Workflow, outputs: Outputs, cell: int) -> Workflow | None:
        """What the planner's decision leads to: another cell, or the answer where it has not given it."""
        text = outputs[workflow.answer][0].text
        decided = block(text, "answer") is not None
        final = workflow.step(workflow.answer).op == CONCLUDE.name
        if not final and not decided and block(text, "next") is not None:
            return self._cell(task, workflow, outputs, cell + 1)
        if task.kind in CODE_KINDS:
            cells = kept(workflow, outputs) or [_runs(workflow)[-1].replace("run", "cell")]
            return extended(workflow, Step("answer", REPORT.name, tuple(cells)))
        if self.scripted and not decided:
            return extended(workflow, Step("answer", self._interpreter(task).answer, (_runs(workflow)[-1],)))
        return None


def posts(workflow: Workflow) -> int:
    """How many posts planner and interpreter have made."""
    return sum(step.id.split("_")[0] in ("plan", "run", "observe") for step in workflow.steps)


def kept(workflow: Workflow, outputs: Outputs) -> list[str]:
    """The cells that ran without an error, in order."""
    return [run.replace("run", "cell") for run in _runs(workflow) if not _failed(outputs, run)]


def run_cell(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """Runs a cell behind those before it: the value of its ``solve()``, or for code the tests that the task shows.

    Args:
        task: The task.
        inputs: The cell, then the earlier cells in order.
        toolbox: Has the sandbox.

    Returns:
        As ``run_python`` or ``run_tests``, with the field ``failed``.
    """
    cell, *earlier = inputs
    program = report(task, [*earlier, cell], toolbox)
    if task.kind in CODE_KINDS:
        return run_tests(task, [program], toolbox)
    given = f"passages = {list(task.passages)!r}\n\n" if task.passages else ""
    return run_python(task, [StepOutput(given + program.text)], toolbox)


def report(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The code of cells, as one program."""
    return StepOutput("\n\n".join(extract_code(cell.text) for cell in inputs))


def write_plan(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The script in the place of the planner that plans; see `MINI`."""
    requests = MINI.get(task.kind, ARITHMETIC).requests
    return StepOutput("\n".join(f"{number}. {request}" for number, request in enumerate(requests, 1)))


def decide(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The script in the place of the planner that observes: the next request, else the value that came out, if any.

    Args:
        task: The task.
        inputs: How each cell ended, the latest first, and the plan.
        toolbox: Not used.
    """
    *ended, plan = inputs
    requests = numbered(plan.text)
    if len(ended) < len(requests):
        return StepOutput(f"<next>{requests[len(ended)][1]}</next>")
    if ended[0].fields.get("failed", True):  # nothing was computed, or not without an error
        return StepOutput("The model has to answer.")
    return StepOutput(f"<answer>{ended[0].text}</answer>")


def _runs(workflow: Workflow) -> list[str]:
    return [step.id for step in workflow.steps if step.id.startswith("run_")]


def _failed(outputs: Outputs, run: str) -> bool:
    return outputs[run][0].fields.get("failed", False)
