"""The shipped planners write what methods ask: nearly all of it can be read, and what it leads to is served."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.engine.episode import Task
from graphflow.engine.sandbox import Sandbox, SandboxConfig
from graphflow.experiment.baselines.proposals import readers_of
from graphflow.experiment.compose import compose
from graphflow.experiment.fit import PairRunner
from graphflow.experiment.serve import House
from graphflow.methods import Method
from graphflow.methods.aflow import EDIT, AFlow
from graphflow.methods.autoflow import FLOW, Attempt, AutoFlow
from graphflow.methods.core_language import write_flow
from graphflow.methods.edits import apply_edit
from graphflow.methods.search_tree import Node
from graphflow.paths import ASSETS
from graphflow.wgraph.workflow import Step, Workflow, WorkflowError
from tests.methods.served import KINDS, isolated

PLANNERS = sorted(folder.name for folder in ASSETS.glob("*-planner"))
TASKS, DRAWS = 4, 3


def test_there_are_planners() -> None:
    assert PLANNERS == ["gemma-mini-planner", "llama-mini-planner", "qwen-mini-planner"]


@isolated
@pytest.mark.slow
@pytest.mark.parametrize("name", ["llmcompiler", "taskweaver"])
@pytest.mark.parametrize("planner", PLANNERS)
def test_plans_and_decisions_can_be_read(planner: str, name: str) -> None:
    house, config = House(), compose([f"backbone={planner}", f"method={name}", "kv=stateful"])
    method, readers = house.unfitted(config), readers_of(house)
    assert not method.scripted
    executor = house.local(config, config.kv, Sandbox(SandboxConfig(workers=1)), method)
    tasks, by_id = [], {}
    for kind in KINDS:
        benchmark = build_benchmark(BenchmarkConfig(name=f"mini-{kind}"))
        examples = benchmark.examples("validation", TASKS)
        tasks += [method.asking.ask(example.task) for example in examples]
        by_id |= {example.task.id: (benchmark, example) for example in examples}
    read, right = [], 0.0
    for episode in executor.run(tasks, method.build_many, method.grow):
        assert not episode.error
        read += [readers[step.op](text) for step in episode.steps for text in step.texts if step.op in readers]
        benchmark, example = by_id[episode.task_id]
        if "humaneval" not in benchmark.name and "mbpp" not in benchmark.name:
            right += benchmark.score_many([example], [method.asking.read(example.task, episode.answer)])[0]
    assert len(read) >= 2 * len(tasks), "a plan and a decision a task at least"
    assert sum(read) >= 0.9 * len(read)
    assert right >= 0.25 * 3 * TASKS, "chance gives nothing here"


@isolated
@pytest.mark.slow
@pytest.mark.parametrize("planner", PLANNERS)
def test_edits_and_flows_can_be_read(planner: str) -> None:
    """On the pages that searches begin with; several draws of each."""
    house, read = House(), {"aflow": [], "autoflow": []}
    for name, made in read.items():
        config = compose([f"backbone={planner}", f"method={name}", "kv=stateful"])
        method = house.unfitted(config)
        executor = house.local(config, config.kv, Sandbox(SandboxConfig(workers=1)), method)
        asked, readers = {}, {}
        for kind in KINDS:
            task = Task(
                "",
                "mini",
                kind,
                build_benchmark(BenchmarkConfig(name=f"mini-{kind}")).examples("validation", 1)[0].task.text,
            )
            page, operation, reader = _begun(method, task)
            workflow = Workflow(operation, (), (Step(operation, operation, ("task",)),), operation)
            for draw in range(DRAWS):
                asked[f"{kind}/{draw}"] = (Task(f"{kind}/{draw}", "", "", page), workflow)
                readers[f"{kind}/{draw}"] = reader
        run = PairRunner(executor)
        for episode in run([(method.asking.ask(task), workflow) for task, workflow in asked.values()]):
            try:
                readers[episode.task_id](episode.answer)
                made.append(True)
            except WorkflowError:
                made.append(False)
    assert len(read["aflow"]) == len(read["autoflow"]) == DRAWS * len(KINDS)
    assert sum(read["autoflow"]) >= 0.7 * DRAWS * len(KINDS)
    assert sum(read["aflow"]) >= 0.5 * DRAWS * len(KINDS)


def _begun(method: Method, task: Task) -> tuple[str, str, Callable[[str], object]]:
    """The page that a search begins with, the operation that reads it, and what reads that."""
    if isinstance(method, AFlow):
        first = method.first(task)
        page = method.page(task.kind, Node(0, first, 0.5), [], [])
        return page, EDIT.name, lambda text: apply_edit(first, text, method.library, method.max_llm_calls)
    assert isinstance(method, AutoFlow)
    begun = [Attempt(0, write_flow(method.first(task)), 0.5)]
    return method.page([task], begun, begun), FLOW.name, method.read
