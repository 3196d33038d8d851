"""Tools: the operations that need no language model, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from graphflow.engine.episode import StepOutput
from graphflow.engine.tools.python import run_python
from graphflow.engine.tools.retrieve import retrieve
from graphflow.engine.tools.tests import run_tests
from graphflow.engine.tools.toolbox import Call, CodeTool, Tool, ToolBox
from graphflow.engine.tools.vote import extract_answer, first_nonempty, vote

__all__ = ["TOOLS", "Tool", "ToolBox", "ToolError", "get_tool", "run_batch"]

TOOLS: dict[str, Tool] = {
    "run_python": run_python,
    "run_tests": run_tests,
    "retrieve": retrieve,
    "vote": vote,
    "first_nonempty": first_nonempty,
    "extract_answer": extract_answer,
}


class ToolError(KeyError):
    """A tool was named that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


def get_tool(op: str) -> Tool:
    """The tool of an operation.

    Raises:
        ToolError: If there is none of that name.
    """
    if op not in TOOLS:
        near = difflib.get_close_matches(op, TOOLS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ToolError(f"tool must be one of {', '.join(TOOLS)}, got {op!r}{hint}")
    return TOOLS[op]


def run_batch(op: str, calls: Sequence[Call], toolbox: ToolBox) -> list[StepOutput]:
    """Runs one tool on many (task, inputs) pairs, in order; the programs of code tools in one sandbox batch.

    Raises:
        ToolError: If there is no such tool.
    """
    tool = toolbox.tools.get(op) or get_tool(op)
    if isinstance(tool, CodeTool):
        return tool.batch(calls, toolbox)
    return [tool(task, inputs, toolbox) for task, inputs in calls]
