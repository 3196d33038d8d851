"""MBPP, sanitized: a sentence that asks for a function (Austin et al. 2021).

The task shows the sentence and the signature (hidden tests call by name and position). It shows no test, unless
``show_first_assert`` reproduces AFlow's setting, in which the first hidden assert is visible to the workflow.
"""

from __future__ import annotations

import ast

from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.code import CodeBenchmark
from graphflow.benchmarks.loading import Row, Source, place, python, required, texts
from graphflow.engine.episode import Task

FORMAT = "Answer with the whole program in one ```python block."
REVISION = "4bb6404fdc6cacfda99d4ac4205087b89d32030c"


def asked_function(code: str, tests: list[str]) -> tuple[str, str]:
    """Name and signature of the function that the tests call; two empty texts if there is none."""
    defined = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    for test in tests:
        for node in ast.walk(ast.parse(test)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in defined:
                name = node.func.id
                return name, f"def {name}({ast.unparse(defined[name].args)}):"
    return "", ""


class MBPP(CodeBenchmark):
    """All sanitized problems are carved into validation and test; the training split is the validation split."""

    name, kind = "mbpp", "mbpp"
    aflow_sizes = (86, 341)

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        files, splits = ("mbpp/sanitized-mbpp.json",), ("test", "train", "validation", "prompt")
        return {"test": Source(files, "google-research-datasets/mbpp", ("sanitized",), splits, REVISION)}

    def order(self, row: Row) -> int | None:
        """See `FileBenchmark.order`; the hub cuts the one file into four splits."""
        number = row.get("task_id")
        return number if isinstance(number, int) else None

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        sentence, code = required(row, source, index, prompt=str, code=str)
        imports, tests = (texts(row, source, index, field) for field in ("test_imports", "test_list"))
        python(code, source, index, "code")
        for field, lines in (("test_imports", imports), ("test_list", tests)):
            for line in lines:
                python(line, source, index, field)
        entry_point, signature = asked_function(code, tests)
        if not entry_point:
            raise BenchmarkError(f"{place(source, index)}: no test calls a function of field 'code'")
        shown = tuple(tests[:1]) if self.config.show_first_assert else ()
        parts = [sentence.strip(), f"The function starts with: {signature}", *shown, FORMAT]
        task = Task(
            id=f"{self.name}/{row.get('task_id', index)}",
            benchmark=self.name,
            kind=self.kind,
            text="\n\n".join(parts),
            entry_point=entry_point,
            visible_tests=shown,
        )
        return Example(task, code, (*imports, *tests))
