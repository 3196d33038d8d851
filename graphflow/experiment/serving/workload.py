"""Tasks of several benchmarks mixed, and the workflow that each of them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.benchmarks.base import Benchmark, Example
from graphflow.engine.episode import Task
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.kv.fixed import Flows
from graphflow.experiment.serve import House
from graphflow.wgraph.workflow import Workflow

FLOWS = {
    "gsm8k": "cot_review_revise",
    "math": "cot_judge_program",
    "hotpotqa": "lookup_answer",
    "humaneval": "code_reflect_fix",
    "mbpp": "code_tests_fix",
}
"""A workflow for every kind of task: greedy, without samples or branches, so that a server without a graph answers the
same, and N tasks in flight are N requests at most. Between them they have guards, tools and two to four calls."""


def fixed(house: House) -> Flows:
    """Every task gets the workflow of its kind."""

    def build(tasks: Sequence[Task]) -> list[Workflow]:
        return [house.workflows[FLOWS[task.kind]] for task in tasks]

    return Flows("fixed " + " ".join(f"{kind}:{name}" for kind, name in FLOWS.items()), build)


def mixed(benchmarks: Mapping[str, Benchmark], split: str, count: int) -> list[Example]:
    """Tasks of some benchmarks in turns, none twice.

    Raises:
        ConfigError: One of them has too few.
    """
    each = -(-count // len(benchmarks))
    held = [benchmark.examples(split, each) for benchmark in benchmarks.values()]
    for name, found in zip(benchmarks, held, strict=True):
        if len(found) < each:
            raise ConfigError(f"experiment.tasks needs {each} {split} tasks of {name}, which has {len(found)}")
    return [example for turn in zip(*held, strict=True) for example in turn][:count]
