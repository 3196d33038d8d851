"""``run_tests``: runs a program against the tests that its task shows, and reports the first one that fails."""

from __future__ import annotations

import ast

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.sandbox import Job, Verdict
from graphflow.engine.tools.python import reason, text_value
from graphflow.engine.tools.text import complete_program
from graphflow.engine.tools.toolbox import CodeTool

LONGEST_VALUE = 200
COMPARISON = """\
    try:
        value = {left}
        right = value == ({right})
    except Exception as error:
        return "failed: " + {left_text} + " raised " + type(error).__name__
    if not right:
        return "failed: " + {left_text} + " gave " + repr(value)[:{longest}] + ", expected " + {right_text}
"""
CONDITION = """\
    try:
        right = {test}
    except Exception as error:
        return "failed: " + {test_text} + " raised " + type(error).__name__
    if not right:
        return "failed: assert " + {test_text}
"""


def check_source(tests: tuple[str, ...], task_id: str) -> str:
    """Statements that evaluate to "passed" or to a sentence about the first test that fails.

    Raises:
        ValueError: If a test is not Python.
    """
    lines = ["def _first_failure():"]
    for test in tests:
        try:
            statements = ast.parse(test).body
        except SyntaxError as error:
            raise ValueError(f"{task_id}: visible test is not Python: {test!r}") from error
        lines += [statement_source(statement) for statement in statements]
    return "\n".join([*lines, '    return "passed"', "_first_failure()"])


def statement_source(statement: ast.stmt) -> str:
    """One statement of a test as part of the checking function."""
    if not isinstance(statement, ast.Assert):
        return "\n".join(f"    {line}" for line in ast.unparse(statement).splitlines())
    test = statement.test
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        left, right = ast.unparse(test.left), ast.unparse(test.comparators[0])
        texts = {"left_text": repr(left), "right_text": repr(right)}
        return COMPARISON.format(left=left, right=right, longest=LONGEST_VALUE, **texts)
    source = ast.unparse(test)
    return CONDITION.format(test=source, test_text=repr(source))


def prepare(task: Task, text: str) -> Job | StepOutput:
    """The program of a text and the check of the task's tests; see `CodeTool`."""
    if not task.visible_tests:
        return StepOutput("no tests", {"failed": False})
    return Job(complete_program(task, text), check_source(task.visible_tests, task.id))


def read(verdict: Verdict) -> StepOutput:
    """The sentence of the check, or why it was not reached; the field ``failed`` unless it is "passed"."""
    text = text_value(verdict) if verdict.ok else f"failed: {reason(verdict)}"
    return StepOutput(text, {"failed": text != "passed"})


run_tests = CodeTool(prepare, read)
