"""The shipped planners write what methods ask: nearly all of it can be read, and what it leads to is served."""

from __future__ import annotations

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.engine.sandbox import Sandbox, SandboxConfig
from graphflow.experiment.baselines.proposals import readers_of
from graphflow.experiment.compose import compose
from graphflow.experiment.serve import House
from graphflow.paths import ASSETS
from tests.methods.served import KINDS, isolated

PLANNERS = sorted(folder.name for folder in ASSETS.glob("*-planner"))
TASKS = 4


@isolated
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
