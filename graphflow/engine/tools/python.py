"""``run_python``: runs a program that defines ``solve()`` and hands on what it returns."""

from __future__ import annotations

import ast

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.sandbox import Job, Status, Verdict
from graphflow.engine.tools.text import extract_code
from graphflow.engine.tools.toolbox import CodeTool

LONGEST_ERROR = 200


def reason(verdict: Verdict) -> str:
    """Why a program failed, in one short line: "NameError: name 'x' is not defined", "timeout", "memory", "killed"."""
    if verdict.status is not Status.ERROR:
        return verdict.status.value
    first = verdict.value.strip().split("\n")[0]
    return first[:LONGEST_ERROR]


def text_value(verdict: Verdict) -> str:
    """The text that a call returned; its ``repr`` where that was cut at the output limit."""
    try:
        return str(ast.literal_eval(verdict.value))
    except (SyntaxError, ValueError):
        return verdict.value


def prepare(task: Task, text: str) -> Job:
    """The program of a text; see `CodeTool`."""
    return Job(extract_code(text), "str(solve())")


def read(verdict: Verdict) -> StepOutput:
    """``str(solve())``, or "error: ..." with the field ``failed``; returning None is an error too."""
    value = text_value(verdict) if verdict.ok else ""
    if verdict.ok and value != "None":
        return StepOutput(value, {"failed": False})
    return StepOutput(f"error: {'solve() returned nothing' if verdict.ok else reason(verdict)}", {"failed": True})


run_python = CodeTool(prepare, read)
