"""`steady_state` and `pruning`: a long stream of tasks, none twice, against one store, looked at window by window."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from graphflow.benchmarks.base import Example
from graphflow.engine.episode import Episode, Task
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.experiment.kv.contexts import server
from graphflow.experiment.kv.figures import draw_pruning, draw_stream
from graphflow.experiment.kv.fixed import dealt, open_executor
from graphflow.experiment.kv.measures import fallback_rate, tokens
from graphflow.experiment.kv.study import Study, names_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.run import Job, Server, run_cell
from graphflow.experiment.serve import use_threads
from graphflow.experiment.stats import bootstrap, percentile
from graphflow.kv import StateMode

SHOWN = (
    "backbone",
    "label",
    "phase",
    "last_episode",
    "operation_reuse_share",
    "fallback_rate",
    "store_bytes_max",
    "budget_bytes",
    "p90_s",
)
CATEGORIES = "store.jsonl"
"""In a run directory: bytes of the store by category after every window."""
KINDS = ("base", "residual", "statistics", "workspace", "prompts", "text")
BACK = 0.9
"""Reuse is back when a window reaches this share of what the phase ends with."""


@dataclass(frozen=True)
class Stream:
    """Tasks in order of arrival.

    Attributes:
        phases: Names of the benchmarks that are mixed in each phase.
        tasks: In all phases together.
        window: Episodes that are looked at together.
    """

    phases: tuple[tuple[str, ...], ...]
    tasks: int
    window: int

    def phase_of(self, episode: int) -> int:
        """Phase, from 1, of an episode, from 0."""
        return min(episode * len(self.phases) // self.tasks, len(self.phases) - 1) + 1


def steady_state(study: Study) -> pd.DataFrame:
    """One phase, all benchmarks mixed, a byte budget; write ``steady_state.csv`` and its figure."""
    stream = Stream((tuple(study.config.experiment.benchmarks),), study.config.experiment.tasks, study.size("window"))
    frame = study.write("steady_state", _served(study, stream))
    study.say(*draw_stream(frame, "steady_state", study.figures))
    study.show(frame, SHOWN, "Reuse and bytes along a stream of ever-new tasks")
    _say_steady(study, frame)
    return frame


def pruning(study: Study) -> pd.DataFrame:
    """Two phases, the second with other benchmarks; write ``pruning.csv``, ``pruning_stream.csv`` and figures."""
    names = study.config.experiment.benchmarks
    if len(names) < 2:
        raise ConfigError(f"experiment.benchmarks must name 2 or more, for a shift half way, got {list(names)}")
    half = (len(names) + 1) // 2
    phases = (tuple(names[:half]), tuple(names[half:]))
    stream = Stream(phases, study.config.experiment.tasks, study.size("window"))
    windows = study.write("pruning_stream", _served(study, stream))
    frame = study.write("pruning", phases_of(windows))
    study.say(*draw_stream(windows, "pruning_stream", study.figures), *draw_pruning(frame, study.figures))
    shown = (
        "backbone",
        "label",
        "phase",
        "own_op_bytes_a_task",
        "residual_bytes",
        "statistics_bytes",
        "fallback_rate",
        "operation_reuse_share",
        "p90_s",
    )
    study.show(frame, (*shown, "episodes_to_reuse"), "Coverage threshold, each phase's second half")
    return frame


def phases_of(windows: Any) -> list[dict[str, Any]]:
    """Each phase's second half, when the store has settled, and how many episodes it took until reuse was there."""
    means = ("own_op_bytes_a_task", "fallback_rate", "operation_reuse_share", "reuse_share", "p90_s", "metric")
    kept = ("backbone", "label", "state", "kv_mode", "kv_scope", "coverage", "phase", "benchmark", "run_id")
    rows = []
    for _, part in windows.groupby(["backbone", "label", "phase"], sort=False):
        settled = part.tail(max(1, len(part) // 2))
        last = part.iloc[-1]
        before = int(part["last_episode"].iloc[0] - part["n_tasks"].iloc[0])
        reached = part[part["operation_reuse_share"] >= BACK * settled["operation_reuse_share"].mean()]
        rows.append(
            {
                **{name: last[name] for name in kept},
                "n_tasks": int(settled["n_tasks"].sum()),
                **{name: settled[name].mean() for name in means},
                "store_bytes": int(last["store_bytes"]),
                **{f"{kind}_bytes": last[f"{kind}_bytes"] for kind in KINDS},
                "episodes_to_reuse": int(reached["last_episode"].iloc[0]) - before,
            }
        )
    return rows


def _served(study: Study, stream: Stream) -> list[dict[str, Any]]:
    """A row a cell and window."""
    first = study.config.experiment.benchmarks[0]  # every benchmark is in the stream: one cell a setting, not one each
    configs = [config for _, config in study.cells() if config.benchmark.name == first]
    planned = [(config, _job(study, config, stream)) for config in configs]
    units = [Unit(_label(config), stream.tasks, config.kv.mode.value) for config, _ in planned]
    rows = []
    with work_progress(units, study.console) as progress:
        for (config, job), unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                run_cell(job, lambda _: progress.advance())
            rows += _windows(config, job, stream)
    return rows


def _job(study: Study, config: Config, stream: Stream) -> Job:
    """The stream as one run; a killed one goes on with the store as it was saved, where the mode can save one."""
    house, names = study.house, sorted({name for phase in stream.phases for name in phase})
    benchmarks = {name: house.benchmark(replace(config.benchmark, name=name, limit=0)) for name in names}
    versions = {name: benchmark.version for name, benchmark in benchmarks.items()}
    facts = {**house.facts(config), "stream": vars(stream), "benchmark_versions": versions, "workflows": "dealt"}

    def open_server() -> Server:
        use_threads(config)
        sandbox = Sandbox(config.engine.sandbox)
        for benchmark in benchmarks.values():
            benchmark.sandbox = sandbox
        store = str(job.run_dir.path.absolute() / "store") if config.kv.has_bases else ""
        executor = open_executor(house, replace(config, kv=replace(config.kv, store=store)), sandbox)
        split = config.split.value
        arriving = _interleaved(stream, lambda name, count: benchmarks[name].examples(split, count))
        made = server(
            executor, arriving, (), dealt(house).build, benchmarks, shared_bytes=lambda: executor.store_bytes().total
        )

        def run(tasks: Sequence[Task]) -> Iterator[Episode]:
            for start in range(0, len(tasks), stream.window):  # the store is saved at the end of each
                part = tasks[start : start + stream.window]
                yield from executor.run(part, dealt(house).build)
                line = {"tasks": [task.id for task in part], **vars(executor.store_bytes())}
                with (job.run_dir.path / CATEGORIES).open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(line) + "\n")

        return replace(made, run=run)

    job = Job(config, facts, open_server, "score")
    return job


def _interleaved(stream: Stream, examples: Any) -> list[Example]:
    """The tasks in order: within a phase its benchmarks take turns, and no task comes twice."""
    taken: dict[str, int] = {}
    order = []
    for episode in range(stream.tasks):
        phase = stream.phases[stream.phase_of(episode) - 1]
        name = phase[episode % len(phase)]
        order.append((name, taken.get(name, 0)))
        taken[name] = taken.get(name, 0) + 1
    held = {name: examples(name, count) for name, count in taken.items()}
    for name, count in taken.items():
        if len(held[name]) < count:
            raise ConfigError(f"experiment.tasks needs {count} tasks of {name}, which has {len(held[name])}")
    return [held[name][place] for name, place in order]


def _windows(config: Config, job: Job, stream: Stream) -> Iterator[dict[str, Any]]:
    lines, scores = job.run_dir.lines(), (job.run_dir.done or {})["scores"]
    held = {task: line for line in _categories(job) for task in line["tasks"]}
    phase_length = -(-len(lines) // len(stream.phases))
    for phase in range(len(stream.phases)):
        own = range(phase * phase_length, min((phase + 1) * phase_length, len(lines)))
        for start in range(own.start, own.stop, stream.window):
            part = lines[start : min(start + stream.window, own.stop)]
            episodes = [Episode.from_dict(line["episode"]) for line in part]
            metric = bootstrap([scores[episode.task_id] for episode in episodes])
            yield {
                **names_of(config),
                "benchmark": "+".join(stream.phases[phase]),
                "label": _label(config),
                "coverage": config.kv.coverage if config.kv.mode is StateMode.DIFFERENTIAL else 1.0,
                "phase": phase + 1,
                "last_episode": start + len(part),
                "n_tasks": len(part),
                "metric": metric.mean,
                "metric_lo": metric.low,
                "metric_hi": metric.high,
                **tokens(episodes),
                "fallback_rate": fallback_rate(episodes),
                "p90_s": percentile([episode.latency_s for episode in episodes], 90),
                "own_op_bytes_a_task": sum(episode.op_bytes for episode in episodes) / len(episodes),
                "own_text_bytes_a_task": sum(episode.dynamic_bytes for episode in episodes) / len(episodes),
                "store_bytes": part[-1]["shared_bytes"],
                **{f"{name}_bytes": held.get(episodes[-1].task_id, {}).get(name) for name in KINDS},
                "store_bytes_max": max(line["shared_bytes"] for line in part),
                "budget_bytes": config.kv.store_bytes,
                "run_id": job.run_id,
            }


def _categories(job: Job) -> list[dict[str, Any]]:
    file = job.run_dir.path / CATEGORIES
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _label(config: Config) -> str:
    """The state, with the coverage where it says something."""
    state = names_of(config)["state"]
    return f"{state}, coverage {config.kv.coverage:g}" if config.kv.mode is StateMode.DIFFERENTIAL else state


def _say_steady(study: Study, frame: Any) -> None:
    """In one line each: whether bytes stayed within the budget, and whether reuse did not decay."""
    for (backbone, label), part in frame.groupby(["backbone", "label"], sort=False):
        budget, most = int(part["budget_bytes"].iloc[0]), int(part["store_bytes_max"].max())
        half = part.tail(max(2, len(part) // 2))
        middle = max(1, len(half) // 2)
        early, late = (values["operation_reuse_share"].mean() for values in (half.head(middle), half.tail(middle)))
        within = f", {'within' if most <= budget else 'OVER'} the budget of {budget:,}" if budget else ""
        study.console.print(
            f"{backbone}, {label}: at most {most:,} bytes{within}; reuse of operation prompts {early:.3f} in the third "
            f"quarter, {late:.3f} in the last",
            highlight=False,
        )
