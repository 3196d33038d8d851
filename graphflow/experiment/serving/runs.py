"""One measured run: tasks served by the engine or by a rival, timed whole, and what a table says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from graphflow.benchmarks.base import Benchmark
from graphflow.engine.episode import Episode, Task
from graphflow.engine.sandbox import Sandbox
from graphflow.engine.tools import ToolBox
from graphflow.experiment.config import Config
from graphflow.experiment.kv.contexts import server
from graphflow.experiment.kv.fixed import Flows
from graphflow.experiment.kv.study import names_of
from graphflow.experiment.record import RunDir, file_digest
from graphflow.experiment.run import Job, Server
from graphflow.experiment.serve import House, use_threads
from graphflow.experiment.serving.continuous import Continuous
from graphflow.experiment.serving.measured import Measured
from graphflow.experiment.serving.rival import Generate, Rival
from graphflow.experiment.serving.workload import mixed
from graphflow.experiment.stats import percentile

TIMES = "times.jsonl"
"""In a run directory: when every task ended, and peaks until then."""
CODE = [Path(__file__).with_name(f"{name}.py") for name in ("continuous", "measured", "rival", "runs", "workload")]
"""What runs are made by: a change in it makes another run."""
WARM = 2
"""Tasks served ahead where nothing is learned: the first forward passes and the first sandbox are slower."""
WARMING = 16
"""Tasks in flight at least while a store learns, which is not measured."""


class System(Enum):
    """What serves the tasks; the name of a grid (``artefact``) says which."""

    ENGINE = "engine"
    """Ours."""
    GENERATE = "generate"
    """`generate` of transformers: one by one, or in padded batches."""
    CONTINUOUS = "continuous"
    """Continuous batching of transformers."""


@dataclass(frozen=True)
class Run:
    """One run to measure.

    Attributes:
        config: Settings; ``engine.concurrency`` tasks are in flight at most.
        system: What serves.
        names: Benchmarks that tasks come from, in turns.
        tasks: How many.
        flows: Gives workflows.
        repeat: Which of several equal runs, from 1.
    """

    config: Config
    system: System
    names: tuple[str, ...]
    tasks: int
    flows: Flows
    repeat: int

    @property
    def label(self) -> str:
        """What serves, in words; the same at any number of tasks in flight."""
        match self.system:
            case System.ENGINE:
                return f"{names_of(self.config)['state']}, {self.config.backbone.attention}"
            case System.GENERATE:
                return "HF generate, padded"
            case System.CONTINUOUS:
                return "HF continuous batching"

    def job(self, house: House) -> Job:
        """The run, ready to run."""
        config = self.config
        benchmarks = {
            name: house.benchmark(replace(config.benchmark, name=name, limit=0)) for name in dict.fromkeys(self.names)
        }
        facts = {
            **house.facts(config),
            "benchmark_versions": {name: benchmark.version for name, benchmark in benchmarks.items()},
            "serving": file_digest(*CODE),
            "workflows": self.flows.name,
            "tasks": self.tasks,
            "system": self.system.value,
            "repeat": self.repeat,
        }

        def open_server() -> Server:
            return self._open(house, benchmarks, job.run_dir)

        job = Job(config, facts, open_server, "score")
        return job

    def _open(self, house: House, benchmarks: dict[str, Benchmark], run_dir: RunDir) -> Server:
        use_threads(self.config)
        sandbox = Sandbox(self.config.engine.sandbox)
        for benchmark in benchmarks.values():
            benchmark.sandbox = sandbox
        executor, config = self._executor(house, ToolBox(sandbox=sandbox)), self.config
        learns = self.system is System.ENGINE and config.kv.learns_paths
        ahead = config.warmup if learns else min(WARM, config.warmup)
        warmup = mixed(benchmarks, config.fit.split.value, ahead) if ahead else []
        arriving = mixed(benchmarks, config.split.value, self.tasks)
        made = server(executor, arriving, warmup, self.flows.build, benchmarks)
        measured = executor.config

        def run(tasks: Sequence[Task]) -> Iterator[Episode]:
            if tasks[0].id.startswith("warmup/"):
                flight = max(WARMING, measured.concurrency) if learns else measured.concurrency
                executor.config = replace(measured, arrivals="closed", concurrency=flight)
                yield from executor.run(tasks, self.flows.build)
                return
            executor.config = measured
            executor.peak_bytes = executor.peak_operation_bytes = 0
            began, session = executor.clock(), len(run_dir.lines())
            for episode in executor.run(tasks, self.flows.build):
                line = {
                    "task": episode.task_id,
                    "session": session,
                    "ended_s": executor.clock() - began,
                    "operation_bytes": executor.peak_operation_bytes,
                    "setup_s": executor.setup_s,
                }
                with (run_dir.path / TIMES).open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(line) + "\n")
                yield episode

        return replace(made, run=run)

    def _executor(self, house: House, toolbox: ToolBox) -> Measured:
        backbone, config = house.backbone(self.config), self.config
        match self.system:
            case System.ENGINE:
                return Measured(backbone, house.library, config.kv, config.engine, toolbox, house.allowed)
            case System.GENERATE:
                return Rival(Generate, backbone, house.library, config.engine, toolbox)
            case System.CONTINUOUS:
                return Rival(Continuous, backbone, house.library, config.engine, toolbox)


def names(run: Run) -> dict[str, Any]:
    """Columns that say what a run is."""
    engine, own = run.config.engine, names_of(run.config)
    ours = run.system is System.ENGINE
    return {
        "backbone": own["backbone"],
        "benchmark": "+".join(dict.fromkeys(run.names)),
        "label": run.label,
        "system": run.system.value,
        "state": own["state"] if ours else "",
        "kv_mode": own["kv_mode"] if ours else "",
        "attention": run.config.backbone.attention,
        "dtype": run.config.backbone.dtype,
        "kv_dtype": engine.kv_dtype if ours else run.config.backbone.dtype,
        "in_flight": engine.concurrency,
        "repeat": run.repeat,
    }


def times(run_dir: RunDir) -> dict[str, dict[str, Any]]:
    """When every task ended, by task."""
    lines = (run_dir.path / TIMES).read_text(encoding="utf-8").splitlines()
    return {line["task"]: line for line in map(json.loads, lines)}


def measures(run_dir: RunDir) -> dict[str, Any]:
    """What a finished run measured.

    Returns:
        Tasks and output tokens a second of its whole time, from the first arrival to the last answer; latency of tasks;
        seconds until a task's first token (``ttft_s``, waiting included) and until a step's (from when it joined the
        batch); peaks of all resident KV and of operation state, MB. A run that was stopped and went on is timed without
        the pause.
    """
    episodes, done, ended = run_dir.episodes(), run_dir.done or {}, times(run_dir)
    sessions: dict[int, float] = {}
    for line in ended.values():
        sessions[line["session"]] = max(line["ended_s"], sessions.get(line["session"], 0.0))
    seconds, latency = sum(sessions.values()), [episode.latency_s for episode in episodes]
    calls = [[step for step in episode.steps if step.output_tokens] for episode in episodes]
    first = [min(step.start_s + step.first_token_s for step in own) for own in calls if own]
    steps = [step.first_token_s for own in calls for step in own]
    return {
        "n_tasks": len(episodes),
        "failed": sum(bool(episode.error) for episode in episodes),
        "seconds": seconds,
        "setup_s": max(line["setup_s"] for line in ended.values()),
        "tasks_s": len(episodes) / seconds,
        "tokens_s": sum(episode.total("output_tokens") for episode in episodes) / seconds,
        "p50_s": percentile(latency, 50),
        "p90_s": percentile(latency, 90),
        "p99_s": percentile(latency, 99),
        "waited_s": mean([episode.waited_s for episode in episodes]),
        "ttft_s": mean(first),
        "step_ttft_s": mean(steps),
        "resident_mb": done["peak_bytes"] / 1e6,
        "operation_mb": max(line["operation_bytes"] for line in ended.values()) / 1e6,
        "prefill_tokens": mean([episode.total("prefill_tokens") for episode in episodes]),
        "output_tokens": mean([episode.total("output_tokens") for episode in episodes]),
        "metric": mean(list(done["scores"].values())),
        "run_id": run_dir.run_id,
    }


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
