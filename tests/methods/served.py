"""Serving methods on tiny backbones; what a model would write is said by the test."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from graphflow.engine.episode import Episode, StepOutput, Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.engine.parse import parse_output
from graphflow.engine.sandbox import Sandbox, SandboxConfig, bubblewrap_problem
from graphflow.engine.tools import ToolBox
from graphflow.kv import KVConfig, StateMode
from graphflow.methods import Method
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from graphflow.wgraph.operation import Kind, Operation
from tests.tiny import tiny_backbone

REPOSITORY = load_operations(CONF / "operations")
WORKFLOWS = load_workflows(CONF / "workflows", REPOSITORY)
KINDS = ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp")
PROBLEM = bubblewrap_problem(shutil.which("bwrap") or "")
isolated = pytest.mark.skipif(bool(PROBLEM), reason=f"programs cannot be isolated here: {PROBLEM}")


def task(kind: str, text: str = "solve one two", **fields: Any) -> Task:
    return Task("t/0", "tiny", kind, text, **fields)


class Said:
    """A model in the test's hands: what each operation writes, call by call, the last text over and over.

    Attributes:
        read: What each operation was given, call by call.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]]) -> None:
        self.texts = {op: list(given) for op, given in texts.items()}
        self.read: dict[str, list[list[str]]] = {op: [] for op in texts}

    def tool(self, operation: Operation) -> Any:
        """What writes in place of an operation; its output is read as the operation declares."""

        def say(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
            self.read[operation.name].append([output.text for output in inputs])
            texts = self.texts[operation.name]
            return parse_output(operation, texts.pop(0) if len(texts) > 1 else texts[0])[0]

        return say


def serve(method: Method, asked: Task, said: Said | None = None, **engine: Any) -> Episode:
    """One task, served by a method; operations in ``said`` are not called but said."""
    texts = said.texts if said else {}
    library = method.asking.library(REPOSITORY)
    spoken = {op: said.tool(library[op]) for op in texts} if said else {}
    operations = [replace(op, kind=Kind.TOOL, prompt="") if op.name in texts else op for op in library.values()]
    toolbox = ToolBox(Sandbox(SandboxConfig(cpu_s=1, wall_s=10, workers=1)) if not PROBLEM else None)
    toolbox.tools = {**method.tools, **spoken}
    config = EngineConfig(**{"kv_dtype": "float32", "max_tokens_scale": 0.03, **engine})
    executor = Executor(tiny_backbone(), Library(operations), KVConfig(StateMode.STATEFUL), config, toolbox)
    (episode,) = executor.run([method.asking.ask(asked)], method.build_many, method.grow)
    return episode


def ran(episode: Episode) -> list[str]:
    """The steps that ran, in the order in which they ended."""
    return [record.step for record in episode.steps if record.step != "task"]
