"""HumanEval: a signature and a docstring, to be completed (Chen et al. 2021).

The docstring's own examples are the only tests that a workflow may run.
"""

from __future__ import annotations

import ast
import doctest
import re

from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.code import CodeBenchmark
from graphflow.benchmarks.loading import Row, Source, place, python, required
from graphflow.engine.episode import Task

FORMAT = "Complete this Python function. Answer with the whole program in one ```python block."
REVISION = "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544"


def docstring_tests(prompt: str, entry_point: str) -> tuple[str, ...]:
    """The examples of a docstring as assert statements.

    Doctest examples (``>>> f(1)`` above ``2``) are read, and lines like ``f(1) == 2`` or ``f(1) => 2``; what does
    not parse as a call and a literal is left out.
    """
    pairs = []
    try:
        pairs = [(test.source, test.want) for test in doctest.DocTestParser().get_examples(prompt)]
    except ValueError:  # a docstring that doctest finds ill-formed
        pass
    arrow = re.compile(rf"(?:>>>)?\s*({re.escape(entry_point)}\(.*\))\s*(?:==|=>|->|\u279e|\u2192|=|returns?)\s*(.+)")
    for line in prompt.splitlines():
        match = arrow.fullmatch(line.strip())
        if match:
            pairs.append((match.group(1), match.group(2)))
    tests = (as_assert(call.strip(), value.strip(), entry_point) for call, value in pairs)
    return tuple(dict.fromkeys(test for test in tests if test))


def as_assert(call: str, value: str, entry_point: str) -> str:
    """``assert call == value``; empty unless it is a call of the function on plain values that gives a literal."""
    try:
        expression = ast.parse(call, mode="eval").body
        ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return ""
    names = [node.id for node in ast.walk(expression) if isinstance(node, ast.Name)]
    plain = isinstance(expression, ast.Call) and names == [entry_point] and isinstance(expression.func, ast.Name)
    return f"assert {call} == {value}" if plain else ""


def defines(module: ast.Module, name: str) -> bool:
    """Whether a module defines a function of that name."""
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in module.body)


class HumanEval(CodeBenchmark):
    """All problems are carved into validation and test; the training split is the validation split."""

    name, kind = "humaneval", "humaneval"
    aflow_sizes = (33, 131)

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        files = ("humaneval/HumanEval.jsonl", "humaneval/HumanEval.jsonl.gz")
        return {"test": Source(files, "openai/openai_humaneval", (), ("test",), REVISION)}

    def order(self, row: Row) -> int | None:
        """See `FileBenchmark.order`."""
        number = re.fullmatch(r"HumanEval/(\d+)", str(row.get("task_id")))
        return int(number[1]) if number else None

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        prompt, entry_point, test = required(row, source, index, prompt=str, entry_point=str, test=str)
        (solution,) = required(row, source, index, canonical_solution=str)
        if not entry_point.isidentifier():
            raise BenchmarkError(
                f"{place(source, index)}: field 'entry_point' must be the name of a function, got {entry_point!r:.60}"
            )
        if not defines(python(test, source, index, "test"), "check"):
            raise BenchmarkError(f"{place(source, index)}: field 'test' must define the function 'check'")
        python(prompt + solution, source, index, "canonical_solution")
        task = Task(
            id=f"{self.name}/{source.split}/{index}",
            benchmark=self.name,
            kind=self.kind,
            text=f"{FORMAT}\n\n```python\n{prompt.strip()}\n```",
            entry_point=entry_point,
            visible_tests=docstring_tests(prompt, entry_point),
        )
        return Example(task, prompt + solution, (f"{test.strip()}\n\ncheck({entry_point})",))
