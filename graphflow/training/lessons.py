"""What methods ask of a model besides answers, as traces to train on (our choice; the suite's own are in its traces).

An operation that a backbone has never read tells nothing about the method that needs it. These traces teach the form
and what a good text holds; that they are written well in a search or for a task is left to the model.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from graphflow.benchmarks.mini.traces import Stage, Trace, make_problems
from graphflow.methods import agentkb, llmcompiler, taskweaver
from graphflow.methods.aflow import EDIT
from graphflow.methods.autoflow import FLOW
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.training.plans import compiled, looked_up, workflow_names, woven
from graphflow.training.searches import SearchTraces
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Operation
from graphflow.wgraph.workflow import Workflow

# Shares of draws, not of tokens. Edits are most of them: of all that is asked for they were the least often readable.
LESSONS = {"llmcompiler": 1.0, "taskweaver": 1.0, "agentkb": 0.5, "aflow": 3.0, "autoflow": 0.6}
TASKS = {"gsm8k": 1.0, "math": 1.0, "hotpotqa": 1.3, "humaneval": 0.6, "mbpp": 0.6}


def asked_operations(library: Library) -> list[Operation]:
    """The operations that methods have a model write."""
    return [
        *(llmcompiler.planning(library), llmcompiler.JOIN, llmcompiler.FINISH),
        *(taskweaver.PLAN, taskweaver.CELL, taskweaver.OBSERVE, taskweaver.CONCLUDE),
        *(agentkb.REASON.operation, agentkb.REFINE.operation, FLOW, EDIT),
    ]


class Lessons:
    """Traces of methods' own operations.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.

    Attributes:
        prompts: Static prompt of each operation that is taught.
    """

    def __init__(self, library: Library, workflows: Mapping[str, Workflow]) -> None:
        self.workflows = dict(workflows)
        self.compiler = LLMCompiler(library, workflows)
        self.searches = SearchTraces(library, self.workflows)
        self.prompts = {operation.name: operation.prompt for operation in asked_operations(library)}

    def trace(self, rng: random.Random, stage: Stage) -> Trace:
        """One more trace.

        Args:
            rng: Source of randomness.
            stage: How hard its task is; pages of searches show tasks of all levels.
        """
        lesson = rng.choices(list(LESSONS), list(LESSONS.values()))[0]
        kind = rng.choices(list(TASKS), list(TASKS.values()))[0]
        match lesson:
            case "aflow":
                return self.searches.edits(kind, rng)
            case "autoflow":
                return self.searches.flows(kind, rng)
        problem = rng.choice(make_problems(kind, rng, "train", stage)[1])
        match lesson:
            case "llmcompiler":
                branches = compiled(problem, kind, self.compiler, rng)
            case "taskweaver":
                branches = woven(problem, kind, rng)
            case _:
                branches = looked_up(problem, kind, workflow_names([*self.workflows.values()], kind), rng)
        return Trace(problem.text, branches)
