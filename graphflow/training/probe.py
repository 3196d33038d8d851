"""How well a backbone in training does on the suite: one plain workflow a benchmark on validation tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.backbone.load import Backbone
from graphflow.backbone.turns import MINI, TurnFormat
from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.kv import KVConfig, StateMode
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow

WORKFLOWS = {
    "gsm8k": "program_run",
    "math": "program_else_cot",
    "hotpotqa": "lookup2_answer",
    "humaneval": "code",
    "mbpp": "code",
}


def suite_probe(
    tokenizer: Any,
    library: Library,
    workflows: dict[str, Workflow],
    tasks: int = 40,
    kv: KVConfig | None = None,
    turns: TurnFormat = MINI,
) -> Callable[[Any, int], dict[str, float]]:
    """A probe for `graphflow.training.loop.Training`.

    Args:
        tokenizer: The backbone's.
        library: Operations.
        workflows: Workflows by name; those of `WORKFLOWS` are run.
        tasks: Validation tasks a benchmark.
        kv: How operation state is kept; stateful where None.
        turns: Turn format of the backbone.

    Returns:
        A function of model and step that gives the mean score by benchmark; the model then attends as it did before.
    """
    benchmarks = {kind: build_benchmark(BenchmarkConfig(name=f"mini-{kind}")) for kind in WORKFLOWS}
    state = kv or KVConfig(StateMode.STATEFUL)

    def probe(model: Any, step: int) -> dict[str, float]:
        attention = model.config._attn_implementation
        try:
            return measured(Backbone("probe", model, tokenizer, turns))
        finally:
            model.set_attn_implementation(attention)

    def measured(backbone: Backbone) -> dict[str, float]:
        scores = {}
        for kind, benchmark in benchmarks.items():
            examples, workflow = benchmark.examples("validation", tasks), workflows[WORKFLOWS[kind]]
            executor = Executor(backbone, library, state, EngineConfig(concurrency=tasks))
            episodes = executor.run([e.task for e in examples], lambda a, chosen=workflow: [chosen] * len(a))
            answers = {episode.task_id: episode.answer for episode in episodes}
            found = benchmark.score_many(examples, [answers[e.task.id] for e in examples])
            scores[kind] = round(sum(found) / len(found), 4)
        return scores

    return probe
