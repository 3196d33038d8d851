"""How much of what models write for methods can be read: counted in the cells and the searches of the main table.

A method that a small model cannot serve fails here first: its plans name no operation, its decisions stand in no block.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools import ToolBox
from graphflow.engine.tools.text import extract_code
from graphflow.experiment.kv.study import backbone_of
from graphflow.experiment.plan import SEARCHING
from graphflow.experiment.planned import Planned
from graphflow.experiment.search import Search
from graphflow.experiment.serve import House
from graphflow.kv import StateMode
from graphflow.methods import agentkb, llmcompiler, taskweaver
from graphflow.methods.aflow import EDIT, KNOWN
from graphflow.methods.autoflow import FLOW
from graphflow.methods.edits import SAME
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.methods.planning import block, numbered

Reader = Callable[[str], bool]


def proposals(house: House, planned: Sequence[Planned]) -> Iterator[dict[str, Any]]:
    """What was written for each operation of a method's own, with exact state, and how much of it was read.

    Args:
        house: Operations, workflows, benchmarks.
        planned: Finished cells of the main table. What scripts write is passed over.

    Yields:
        A row a backbone and operation: how many texts, and the shares of them that could be read and, of edits, that
        gave a workflow not known before.
    """
    readers = readers_of(house)
    for backbone in dict.fromkeys(backbone_of(item.job.config) for item in planned):
        found: dict[str, list[tuple[bool, bool]]] = {}
        for item in planned:
            config = item.job.config
            if backbone_of(config) != backbone or config.kv.mode is not StateMode.STATEFUL or _scripted(item):
                continue
            if config.method.name in SEARCHING:
                for operation, read, new in _searched(Search(house, config)):
                    found.setdefault(operation, []).append((read, new))
                continue
            for episode in item.job.run_dir.episodes():
                for record in episode.steps:
                    if record.op in readers:
                        found.setdefault(record.op, []).extend(
                            (readers[record.op](text), True) for text in record.texts
                        )
        for operation, both in found.items():
            readable, fresh = (sum(column) / len(both) for column in zip(*both, strict=True))
            own = {"backbone": backbone, "operation": operation, "written": len(both), "read": readable}
            yield {**own, "new": fresh if operation == EDIT.name else None}


def _scripted(item: Planned) -> bool:
    done = item.job.run_dir.done
    assert done is not None, f"{item.job.run_id} is not finished"
    return bool(done["scripted"])


def readers_of(house: House) -> dict[str, Reader]:
    """What tells whether a method could read what was written for an operation."""
    compiler, names = LLMCompiler(house.library, house.workflows), frozenset(house.workflows)
    nobody = Task("", "", "", "")

    def compiles(text: str) -> bool:
        return compiler.problem(nobody, [StepOutput(text)], ToolBox()).text == llmcompiler.VALID

    def in_block(*blocks: str) -> Reader:
        return lambda text: any(block(text, name) is not None for name in blocks)

    return {
        llmcompiler.PLAN: compiles,
        llmcompiler.JOIN.name: in_block("answer", "replan"),
        llmcompiler.FINISH.name: in_block("answer"),
        taskweaver.PLAN.name: lambda text: 1 <= len(numbered(text)) <= taskweaver.CELLS,
        taskweaver.CELL.name: _parses,
        taskweaver.OBSERVE.name: in_block("answer", "next"),
        taskweaver.CONCLUDE.name: in_block("answer"),
        agentkb.REASON.name: lambda text: bool(text.strip()),
        agentkb.REFINE.name: lambda text: (
            text.startswith("Nothing has solved") or bool(set(re.findall(r"\w+", text)) & names)
        ),
    }


def _searched(search: Search) -> Iterator[tuple[str, bool, bool]]:
    """What was written in a search: of edits whether they could be applied and were new, of flows whether they ran."""
    file = search.folder / f"{search.benchmark.name}.json"
    tried = json.loads(file.read_text(encoding="utf-8"))
    if search.config.method.name == "autoflow":
        yield from ((FLOW.name, not attempt["error"], True) for attempt in tried[1:])
        return
    for node in tried:
        yield from ((EDIT.name, refused["error"].startswith((KNOWN, SAME)), False) for refused in node["refused"])
    yield from ((EDIT.name, True, True) for _ in tried[1:])


def _parses(text: str) -> bool:
    """Whether a cell is Python that defines a function."""
    try:
        tree = ast.parse(extract_code(text))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
