"""metagpt: a fixed procedure of roles that hand documents on, with a review that ends when it approves.

Original (geekan/MetaGPT, ``metagpt/actions/write_code_review.py`` and ``roles/qa_engineer.py`` at 00dbe555,
``roles/engineer.py`` at 00a212b5): a product manager writes requirements, an architect a design, a project manager a
task list, an engineer the files of a repository; ``WriteCodeReview`` reviews each and rewrites it, at most k times,
and stops at "LGTM"; a QA engineer writes tests, runs them and debugs, at most 5 rounds.

Kept: the order of the roles, the review loop (k = 2) that stops at approval, tests that the model writes itself from
what it wrote, run in the sandbox, repair where they fail (2 rounds). The procedure never changes, so that it is one
workflow whose loops are written out behind guards.

Left out: messages and subscriptions (the order is the same), several files, incremental mode and code summaries (a task
is one function or one value), competitive analysis and diagrams in the documents, the choice whether code or test is
at fault (only code counts here, so that only code is repaired). Tests that assert nothing count as no tests. Questions
over passages have nothing to test: their answer is reviewed and revised, and there is no QA engineer.

Roles of the mini backbones are the nearest operations that they know, so that nothing is scripted. Numbers: decompose
(product manager, architect), generate_cot (engineer, since review and revise know worked solutions), then program and
run_python as the QA engineer's test, and ensemble_select where it gave a value. Questions: answer_generate, judge as
the review (it knows answers that were given at once), extract_facts and answer_generate to revise. Code: code_generate
(it reads the task alone), the task's own tests with reflect as the review, run_tests with fix_program as QA.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools.python import run_python
from graphflow.engine.tools.tests import check_source, read
from graphflow.engine.tools.text import complete_program, extract_code
from graphflow.engine.tools.toolbox import ToolBox
from graphflow.methods.base import Method, MethodError
from graphflow.methods.proposing import MoreOperations
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Convention, Kind, Operation
from graphflow.wgraph.workflow import Workflow

REVIEWS = 2
DEBUGS = 2
NUMBERS, QUESTIONS, CODE = ("gsm8k", "math"), ("hotpotqa",), ("humaneval", "mbpp")

REQUIREMENTS = Operation(
    "metagpt_requirements",
    Kind.LLM,
    ("task",),
    "plan",
    max_tokens=256,
    prompt=(
        "You are the product manager. Write the requirements that a solution of the task above must meet: what is "
        "given, what is asked for, in which form the result must be, and which special cases there are. Be brief, use "
        "a numbered list, and do not solve the task."
    ),
)
DESIGN = Operation(
    "metagpt_design",
    Kind.LLM,
    ("plan",),
    "plan",
    max_tokens=256,
    prompt=(
        "You are the architect. Design a solution that meets the requirements above: its data, its functions with "
        "arguments and results, or the chain of facts that leads to the answer. Be brief and do not write the solution."
    ),
)
TASKS = Operation(
    "metagpt_tasks",
    Kind.LLM,
    ("plan",),
    "plan",
    max_tokens=192,
    prompt=(
        "You are the project manager. Break the design above into a numbered list of tasks for the engineer, in the "
        "order in which they must be done. One short line each."
    ),
)
IMPLEMENT = Operation(
    "metagpt_implement",
    Kind.LLM,
    ("plan",),
    "code",
    convention=Convention.CODE,
    max_tokens=512,
    prompt=(
        "You are the engineer. Do the tasks above: write the Python code. If the task asks for a function, give it the "
        "name and the arguments that are asked for. If it asks for a number or an expression, define solve() without "
        "arguments that returns it. Write one fenced block of code that prints nothing."
    ),
)
REPLY = Operation(
    "metagpt_reply",
    Kind.LLM,
    ("plan",),
    "answer",
    max_tokens=128,
    prompt=(
        "You are the engineer. Do the tasks above and answer the question from the passages. Write a few words only, "
        "or yes or no."
    ),
)
REVIEW = Operation(
    "metagpt_review",
    Kind.LLM,
    ("code", "answer"),
    "review",
    fields=("issues",),
    judge=True,
    max_tokens=256,
    prompt=(
        "You are the reviewer. Check what the engineer wrote against the requirements, the design and the task list: "
        "is all of it done, and is it correct in every case? Begin with LGTM if nothing has to change. Otherwise begin "
        "with LBTM, and then list what is wrong and what to do about it."
    ),
)
REWRITE = Operation(
    "metagpt_rewrite",
    Kind.LLM,
    ("review",),
    "code",
    requires=("code",),
    convention=Convention.CODE,
    max_tokens=512,
    prompt=(
        "You are the engineer. Write the code again so that every point of the review above is met. Write all of it, "
        "in one fenced block."
    ),
)
TESTS = Operation(
    "metagpt_tests",
    Kind.LLM,
    ("code", "answer"),
    "code",
    requires=("code",),
    convention=Convention.CODE,
    max_tokens=384,
    prompt=(
        "You are the QA engineer. Write tests for the code above: assert statements alone, one a line, in one fenced "
        "block. Take the values that you expect from the task, not from the code. Leave out what you are not sure of."
    ),
)
RUN = Operation("metagpt_run", Kind.TOOL, ("code", "answer"), "result", fields=("failed",), arity="many")
VALUE = Operation("metagpt_value", Kind.TOOL, ("code", "answer"), "result", fields=("failed",))
DEBUG = Operation(
    "metagpt_debug",
    Kind.LLM,
    ("code", "result"),
    "code",
    requires=("code", "result"),
    convention=Convention.CODE,
    arity="many",
    max_tokens=512,
    prompt=(
        "You are the engineer. A test of the code has failed, as the result above says. Find the reason and write all "
        "of the code again, repaired, in one fenced block."
    ),
)
ROLES = (REQUIREMENTS, DESIGN, TASKS, IMPLEMENT, REPLY, REVIEW, REWRITE, TESTS, RUN, DEBUG, VALUE)

DOCUMENTS = {
    "requirements": {"op": "metagpt_requirements", "in": ["task"]},
    "design": {"op": "metagpt_design", "in": ["requirements"]},
    "tasks": {"op": "metagpt_tasks", "in": ["design"]},
}
ENGINEERING = {
    **DOCUMENTS,
    "code": {"op": "metagpt_implement", "in": ["tasks"]},
    "review": {"op": "metagpt_review", "in": ["code"]},
    "rewrite": {"op": "metagpt_rewrite", "in": ["review"], "when": "review.issues"},
    "reviewed": {"op": "first_nonempty", "in": ["rewrite", "code"]},
    "tests": {"op": "metagpt_tests", "in": ["reviewed"]},
    "run": {"op": "metagpt_run", "in": ["reviewed", "tests"]},
    "debug": {"op": "metagpt_debug", "in": ["tests", "run"], "when": "run.failed"},
    "run_2": {"op": "metagpt_run", "in": ["debug", "tests"], "when": "run.failed"},
    "debug_2": {"op": "metagpt_debug", "in": ["run_2"], "when": "run_2.failed"},  # it has the tests before it already
    "tested": {"op": "first_nonempty", "in": ["debug_2", "debug", "reviewed"]},
}
REWRITTEN = {"body": ["review", "rewrite"], "while": "review.issues", "max_unroll": REVIEWS}

COMPANY: tuple[Mapping[str, Any], ...] = (
    {"kinds": CODE, "steps": ENGINEERING, "loops": [REWRITTEN], "answer": "tested"},
    {
        "kinds": NUMBERS,
        "steps": {**ENGINEERING, "value": {"op": "metagpt_value", "in": ["tested"]}},
        "loops": [REWRITTEN],
        "answer": "value",
    },
    {
        "kinds": QUESTIONS,
        "steps": {
            **DOCUMENTS,
            "reply": {"op": "metagpt_reply", "in": ["tasks"]},
            "review": {"op": "metagpt_review", "in": ["reply"]},
            "revise": {"op": "revise", "in": ["review"], "when": "review.issues"},
            "reviewed": {"op": "first_nonempty", "in": ["revise", "reply"]},
        },
        "loops": [{"body": ["review", "revise"], "while": "review.issues", "max_unroll": REVIEWS}],
        "answer": "reviewed",
    },
)
MINI_COMPANY: tuple[Mapping[str, Any], ...] = (
    {
        "kinds": NUMBERS,
        "steps": {
            "tasks": {"op": "decompose", "in": ["task"]},
            "solution": {"op": "generate_cot", "in": ["tasks"]},
            "review": {"op": "review", "in": ["solution"]},
            "revise": {"op": "revise", "in": ["review"], "when": "review.issues"},
            "reviewed": {"op": "first_nonempty", "in": ["revise", "solution"]},
            "test": {"op": "program", "in": ["tasks"]},
            "run": {"op": "run_python", "in": ["test"]},
            "select": {"op": "ensemble_select", "in": ["run", "reviewed"], "when": "not run.failed"},
            "tested": {"op": "first_nonempty", "in": ["select", "reviewed"]},
        },
        "loops": [{"body": ["review", "revise"], "while": "review.issues", "max_unroll": REVIEWS}],
        "answer": "tested",
    },
    {
        "kinds": QUESTIONS,
        "steps": {
            "reply": {"op": "answer_generate", "in": ["task"]},
            "review": {"op": "judge", "in": ["reply"]},
            "facts": {"op": "extract_facts", "in": ["review"], "when": "review.wrong"},
            "revise": {"op": "answer_generate", "in": ["facts"]},
            "reviewed": {"op": "first_nonempty", "in": ["revise", "reply"]},
        },
        "loops": [{"body": ["review", "facts", "revise"], "while": "review.wrong", "max_unroll": REVIEWS}],
        "answer": "reviewed",
    },
    {
        "kinds": CODE,
        "steps": {
            "code": {"op": "code_generate", "in": ["task"]},
            "check": {"op": "run_tests", "in": ["code"]},
            "review": {"op": "reflect", "in": ["check"], "when": "check.failed"},
            "rewrite": {"op": "fix_program", "in": ["review"]},
            "reviewed": {"op": "first_nonempty", "in": ["rewrite", "code"]},
            "tests": {"op": "run_tests", "in": ["reviewed"]},
            "debug": {"op": "fix_program", "in": ["tests"], "when": "tests.failed"},
            "tested": {"op": "first_nonempty", "in": ["debug", "reviewed"]},
        },
        "loops": [
            {"body": ["check", "review", "rewrite"], "while": "check.failed", "max_unroll": REVIEWS},
            {"body": ["tests", "debug"], "while": "tests.failed", "max_unroll": DEBUGS},
        ],
        "answer": "tested",
    },
)


class MetaGPT(Method):
    """One workflow a kind of task.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.
        mini: Have the roles played by the operations that the mini backbones know.
    """

    name = "metagpt"

    def __init__(self, library: Library, workflows: Mapping[str, Workflow], mini: bool = False) -> None:
        super().__init__(library, workflows)
        # A method's own, though without operations of its own: no graph says which of them follow each other here.
        self.asking = MoreOperations(() if mini else ROLES)
        self.tools = {} if mini else {RUN.name: run_own_tests, VALUE.name: run_python}
        self.procedures = {
            kind: Workflow.from_dict({"name": self.name, **procedure, "kinds": list(procedure["kinds"])})
            for procedure in (MINI_COMPANY if mini else COMPANY)
            for kind in procedure["kinds"]
        }

    def build(self, task: Task) -> Workflow:
        """See `Method.build`.

        Raises:
            MethodError: There is no procedure for the task's kind.
        """
        if task.kind not in self.procedures:
            raise MethodError(
                f"method 'metagpt' has procedures for {', '.join(self.procedures)}, not for the kind {task.kind!r}"
            )
        return self.procedures[task.kind]


def run_own_tests(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """Runs code on the tests that a model wrote for it.

    Args:
        task: The task; it may show what stands above the code.
        inputs: Code, tests.
        toolbox: Has the sandbox.

    Returns:
        "passed", or the first test that fails, and the field ``failed``; "no tests" where they assert nothing.
    """
    code, tests = (output.text for output in inputs)
    source = extract_code(tests)
    try:
        asserts = any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):  # ValueError: null bytes
        asserts = False
    if not asserts:
        return StepOutput("no tests", {"failed": False})
    return read(toolbox.runner().run(complete_program(task, code), check_source((source,), task.id)))
