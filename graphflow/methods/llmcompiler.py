"""llmcompiler: one call plans all calls, independent ones run in parallel, one call joins what they gave.

Original (SqueezeAILab/LLMCompiler, ``src/llm_compiler/llm_compiler.py`` and ``output_parser.py`` at 1e34a9e0,
``task_fetching_unit.py`` at dca77b21, ``configs/hotpotqa`` at 34676dbe): a planner writes lines ``k. tool(arguments)``
in which ``$i`` stands for what line i gave; a scheduler starts each line as soon as the lines that it names are done; a
joiner reads everything and finishes or asks for another plan, at most ``max_replans`` plans (1 in every shipped
config, so that the joiner finishes).

Kept: the form of the lines, dependencies by ``$i``, lines that run at the same time where none depends on the other (by
the engine), one join that reads the plan and all outputs, ``max_replans``. Tools are the operations of the library.
Their prompts are fixed, so that arguments in words reach only what takes a query (``retrieve``), as in the original's
searches; a line without ``$i`` reads the task, a line with it goes on from the lines that it names.

Changed: the joiner's decision stands between tags (the original cuts the answer at the first ``)``). A plan is invalid
if it cannot be read, names no operation, reads a line that is not there or gives an operation what it does not take. It
is asked for once more with the error as a tool's result, and then a plan of one generating line takes its place (the
original ignores lines that it cannot read and ends with an exception where a tool is unknown).

Left out: streaming of the plan (lines wait until the plan is whole) and the planner's worked examples per benchmark.

Mini backbones that are planners (`graphflow.training.lessons`) write plans and joins themselves. For the others, which
never saw a plan, a script writes that of a kind in the same form; the join is then ensemble_select over the ends of the
plan, or first_nonempty where there is one end, since that is how they can join.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.growth import Outputs
from graphflow.engine.tools import ToolBox
from graphflow.errors import unknown_name
from graphflow.methods.base import Method, MethodError
from graphflow.methods.planning import JOIN as JOIN_LINE
from graphflow.methods.planning import Call, Deciding, PlanError, block, extended, parse_plan
from graphflow.methods.proposing import Proposal
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import TASK, Step, Workflow, WorkflowError, validate

MOST = 8
"""Lines of a plan at most (our choice)."""

PLAN = "llmcompiler_plan"
PLANNING = """\
Plan how to do the task above: which operations to call, so that as many of them as possible can run at the same time.
Write one call a line, 'number. operation(arguments)', numbered from 1, {most} lines at most, and nothing else. The
argument $1 stands for what line 1 gives; a call without such an argument reads the task. Each operation takes one
input of a type that stands in its brackets, or several where it says so. Close with a line that calls {join}(),
which reads all results and answers. For example:
1. retrieve("the first name")
2. retrieve("the second name")
3. {join}()
Operations:
{operations}"""

PLANS = {
    "gsm8k": "1. program()\n2. run_python($1)\n3. generate_cot()\n4. join()",
    "math": "1. program()\n2. run_python($1)\n3. generate_cot()\n4. join()",
    "hotpotqa": (
        "1. lookup_query()\n2. retrieve($1)\n3. lookup_query($2)\n4. retrieve($3)\n5. answer_generate($4)\n"
        "6. extract_facts()\n7. answer_generate($6)\n8. join()"
    ),
    "humaneval": "1. code_generate()\n2. join()",
    "mbpp": "1. code_generate()\n2. join()",
}
"""What the script writes; for code a mini backbone has one way to begin."""

FALLBACK = {"hotpotqa": "1. answer_generate()", "humaneval": "1. code_generate()", "mbpp": "1. code_generate()"}
GENERATING = "1. generate_cot()"
VALID = "the plan is valid"

FINISH_FORM = (
    "The results of the calls that were planned for the task stand above. Say in one or two sentences what follows "
    "from them; where they disagree, decide. Then write the final answer of the task, whole and in the form that the "
    "task asks for, between <answer> and </answer>."
)
REPLAN_FORM = (
    " If the results do not suffice for an answer, write what is missing between <replan> and </replan> instead, and "
    "another plan will be made."
)


def _join(name: str, prompt: str) -> Operation:
    accepts = ("answer", "code", "result", "review", "facts", "query", "passages", "plan")
    return Operation(name, Kind.LLM, accepts, "answer", prompt=prompt, arity="many", max_tokens=512)


JOIN = _join("llmcompiler_join", FINISH_FORM + REPLAN_FORM)
FINISH = _join("llmcompiler_finish", FINISH_FORM)
PROBLEM = Operation("llmcompiler_problem", Kind.TOOL, ("plan",), "review")
WORDS = tuple(Operation(f"llmcompiler_words_{k}", Kind.TOOL, ("plan",), "query") for k in range(1, MOST + 1))


class LLMCompiler(Method):
    """Begins with a plan, and grows by what the plan says.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.
        scripted: Whether a script plans.
        max_replans: Plans at most, 1 or 2; what the original calls so.

    Raises:
        MethodError: ``max_replans`` is out of range.
    """

    name = "llmcompiler"

    def __init__(
        self, library: Library, workflows: Mapping[str, Workflow], scripted: bool = False, max_replans: int = 1
    ) -> None:
        super().__init__(library, workflows)
        check_replans(max_replans)
        self.max_replans = max_replans
        planner = Proposal(planning(library), write_plan)
        self.propose(planner, scripted=scripted)
        joins = () if scripted else (JOIN, FINISH)
        self.asking = Deciding([planner.made(scripted), PROBLEM, *WORDS, *joins])
        words = {operation.name: partial(words_of, k) for k, operation in enumerate(WORDS, 1)}
        self.tools = {**self.tools, **words, PROBLEM.name: self.problem}
        self.operations = self.asking.library(library)

    def build(self, task: Task) -> Workflow:
        """The plan's call alone."""
        return Workflow(self.name, (), (Step("plan_1", PLAN, (TASK,)),), "plan_1")

    def grow(self, task: Task, workflow: Workflow, outputs: Outputs) -> Workflow | None:
        """After a plan what it says, or the plan once more; after a join another plan, if that is what it decides."""
        asked = workflow.answer
        text, count = outputs[asked][0].text, _round(asked)
        if asked.startswith(JOIN_LINE):
            wanted = count < self.max_replans and block(text, "answer") is None and block(text, "replan") is not None
            return extended(workflow, Step(f"plan_{count + 1}", PLAN, (asked,))) if wanted else None
        try:
            return self.compile(workflow, text)
        except PlanError:
            if asked.endswith("again"):
                return self.compile(workflow, FALLBACK.get(task.kind, GENERATING))
            problem = Step(f"problem_{count}", PROBLEM.name, (asked,))
            return extended(workflow, problem, Step(f"plan_{count}_again", PLAN, (problem.id,)))

    def compile(self, workflow: Workflow, text: str) -> Workflow:
        """A workflow that ends with a plan, with the steps and the join that the plan says.

        Args:
            workflow: Its answer is the plan's call.
            text: The plan.

        Raises:
            PlanError: The plan is invalid.
        """
        asked, count = workflow.answer, _round(workflow.answer)
        calls = parse_plan(text, MOST)
        ids = {call.number: f"step_{count}_{call.number}" for call in calls}
        steps: list[Step] = []
        for line, call in enumerate(calls, 1):
            if call.op not in self.library:
                raise PlanError(f"line {call.number}: {unknown_name('operation', call.op, self.library)}")
            inputs = tuple(ids[number] for number in call.reads)
            if not inputs and self._takes_words(call):
                steps.append(Step(f"words_{count}_{call.number}", WORDS[line - 1].name, (asked,)))
                inputs = (steps[-1].id,)
            steps.append(Step(ids[call.number], call.op, inputs or (TASK,)))
        try:
            grown = extended(workflow, *steps, self._join(workflow, calls, ids))
            # A plan that nobody reads, since a script wrote it or it was wrong, is no dead branch.
            read = grown.ancestors(grown.answer) | {grown.answer}
            validate(replace(grown, steps=tuple(step for step in grown.steps if step.id in read)), self.operations)
        except WorkflowError as error:
            raise PlanError(str(error)) from error
        return grown

    def problem(self, task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
        """What is wrong with a plan, for whoever is asked again."""
        try:
            self.compile(self.build(task), inputs[0].text)
        except PlanError as error:
            return StepOutput(f"error: {error}")
        return StepOutput(VALID)

    def _takes_words(self, call: Call) -> bool:
        accepts = self.library[call.op].accepts
        return bool(call.words) and "query" in accepts and TASK not in accepts

    def _join(self, workflow: Workflow, calls: list[Call], ids: Mapping[int, str]) -> Step:
        """The call that ends a round: of the model over everything, or of what a mini backbone knows over the ends."""
        count = _round(workflow.answer)
        if not self.scripted:
            op = FINISH if count == self.max_replans else JOIN
            return Step(f"{JOIN_LINE}_{count}", op.name, (workflow.answer, *ids.values()))
        read = {number for call in calls for number in call.reads}
        ends = tuple(ids[call.number] for call in calls if call.number not in read)
        return Step(f"{JOIN_LINE}_{count}", "ensemble_select" if len(ends) > 1 else "first_nonempty", ends)


def check_replans(max_replans: int) -> None:
    """See that a number of plans is one that the method makes.

    Raises:
        MethodError: It is not.
    """
    if isinstance(max_replans, bool) or max_replans not in (1, 2):
        raise MethodError(f"method.max_replans must be 1 or 2, got {max_replans!r}")


def planning(library: Library) -> Operation:
    """The planner's operation: its prompt names the operations of the library."""
    lines = [
        f"{op.name}({' or '.join(op.accepts)}{', several' if op.arity == 'many' else ''}) -> {op.produces}: "
        f"{op.semantics.strip()}"
        for op in library.values()
    ]
    return Operation(
        name=PLAN,
        kind=Kind.LLM,
        accepts=("task", "review", "answer"),
        produces="plan",
        prompt=PLANNING.format(most=MOST, join=JOIN_LINE, operations="\n".join(lines)),
        max_tokens=256,
    )


def write_plan(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The script in the planner's place; see `PLANS`."""
    return StepOutput(PLANS.get(task.kind, GENERATING))


def words_of(line: int, task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """What the arguments of a plan's line say in words, the first line being 1."""
    return StepOutput(parse_plan(inputs[0].text, MOST)[line - 1].words)


def _round(id: str) -> int:
    """Which plan a step belongs to."""
    return int(id.split("_")[1])
