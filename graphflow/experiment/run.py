"""One cell: a method on a benchmark with a backbone and a state mode, from config to table row.

Order: lock, record, compute, episodes as they come, scores, done-marker. Scoring waits until every task is served, so
that running hidden tests does not slow the tasks whose latency is being measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from graphflow.benchmarks.base import Example
from graphflow.engine.episode import Episode, Task
from graphflow.experiment.compose import resolved
from graphflow.experiment.config import Config
from graphflow.experiment.plan import SEARCHING, UNTAUGHT
from graphflow.experiment.record import RunDir, digest, machine_name, provenance
from graphflow.experiment.tables import CellNames, summarise
from graphflow.experiment.tracking import track
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.methods.trials import Spent


@dataclass
class Server:
    """What serves a cell's tasks; `graphflow.experiment.serve` makes the real one, tests make small ones.

    Attributes:
        examples: Tasks of the cell, in order.
        warmup: Tasks served before the measurement.
        run: Serves tasks, one episode each, in order of completion.
        score: Scores answers, in order.
        shared_bytes: Base and residual bytes of the store now.
        peak_bytes: Peak of resident KV so far.
        statistics: What scoring has counted so far, such as comparisons that were stopped at a limit.
        spent: What fitting the method has cost on tasks of the benchmark.
        scripted: Operations that a script wrote in place of the model.
    """

    examples: Sequence[Example]
    warmup: Sequence[Task]
    run: Callable[[Sequence[Task]], Iterator[Episode]]
    score: Callable[[Sequence[Example], Sequence[str]], list[float]]
    shared_bytes: Callable[[], int]
    peak_bytes: Callable[[], int]
    statistics: Callable[[], dict[str, int]] = dict
    spent: Spent = Spent()
    scripted: Sequence[str] = ()


@dataclass(frozen=True)
class Job:
    """How a cell is to be run: where it comes from and what makes its parts.

    Attributes:
        config: The cell.
        facts: What names in the config stand for (digests, versions): part of the run id and of the record.
        open: Makes the server; called once the record is written, and only if a task is left.
        metric_name: Name of the benchmark's metric.
    """

    config: Config
    facts: dict[str, Any]
    open: Callable[[], Server]
    metric_name: str

    @property
    def run_id(self) -> str:
        """Hash of all that determines the run: the config without folders and tracking, and the facts."""
        return digest({"config": identity(self.config), "facts": self.facts})

    @property
    def scoring(self) -> str:
        """Name and version of the scoring, as ``strict-3``; empty for a run that does not score one benchmark."""
        version = self.facts.get("benchmark_version")
        return f"{self.config.benchmark.scoring}-{version}" if version else ""

    @property
    def run_dir(self) -> RunDir:
        """Where the run is kept."""
        return RunDir(self.config.machine.runs_dir, self.run_id)


def identity(config: Config) -> dict[str, Any]:
    """The part of a config that determines a run."""
    plain = resolved(config)
    plain["backbone"] = config.backbone.identity()
    for name in ("tracking", "experiment"):
        plain.pop(name)
    for name in ("runs_dir", "results_dir", "name"):
        plain["machine"].pop(name)
    if config.method.name in UNTAUGHT:  # what others learn from does not make it another run
        plain.pop("fit")
    if config.method.name not in SEARCHING:
        plain.pop("trials")
    # Stateful mode keeps everything exactly unless text is encoded: no other setting of the store matters.
    if config.kv.mode is StateMode.STATEFUL and config.kv.dynamic_codec == "none":
        plain["kv"] = {"mode": StateMode.STATEFUL.value}
    return plain


def scope_of(kv: KVConfig) -> str:
    """Whose the residual is; ``none`` in the modes that have none, ``head`` for a bare base with exact first tokens.

    A codec of text is said with it, where the mode's name does not, and exact judges.
    """
    head = kv.mode is StateMode.STATELESS and kv.exact_head > 0
    parts = ["head" if head else kv.scope.value if kv.learns_paths else ""]
    if kv.dynamic_codec != "none" and not kv.mode.value.endswith(kv.dynamic_codec):
        parts.append(f"text {kv.dynamic_codec}")
    if kv.judges_exact:
        parts.append("judges exact")
    return ", ".join(filter(None, parts)) or "none"


def run_cell(job: Job, on_episode: Callable[[Episode], None] = lambda episode: None) -> RunDir:
    """Run what is left of a cell. A finished run is left alone; a killed one goes on at its next task.

    Args:
        job: The cell.
        on_episode: Called after each new episode is on disk.

    Raises:
        RunLockedError: Another process is running this cell.
    """
    run_dir = job.run_dir
    if run_dir.done:
        return run_dir
    with run_dir.locked():
        if run_dir.done:  # another process finished it while this one waited for nothing
            return run_dir
        earlier = run_dir.begin(_record(job))
        started = time.monotonic()
        server = job.open()
        finished = {episode.task_id for episode in earlier}
        left = [example.task for example in server.examples if example.task.id not in finished]
        if left and server.warmup:
            for _ in server.run(_rename(server.warmup)):
                pass
        for episode in server.run(left) if left else ():
            run_dir.append(episode, server.shared_bytes(), server.peak_bytes())
            on_episode(episode)
        _close(job, run_dir, server, len(earlier), time.monotonic() - started)
    return run_dir


def table_row(job: Job, artefact: str) -> dict[str, Any]:
    """The table row of a finished cell.

    Args:
        job: The cell.
        artefact: Table that the row is for.

    Raises:
        ValueError: The cell is not finished.
    """
    run_dir, config = job.run_dir, job.config
    done = run_dir.done
    if done is None:
        raise ValueError(f"run {job.run_id} is not finished: a row needs every episode")
    record = run_dir.record
    names = CellNames(
        artefact=artefact,
        backbone=config.backbone.name,
        benchmark=config.benchmark.name,
        method=config.method.name,
        kv_mode=config.kv.mode.value,
        kv_scope=scope_of(config.kv),
        metric_name=job.metric_name,
        scoring=job.scoring,
        run_id=job.run_id,
        commit=record["commit"] + ("-dirty" if record["dirty"] else ""),
        machine=record["machine_name"],
    )
    return summarise(names, run_dir.episodes(), done["shared_bytes"], done["peak_bytes"], seed=config.engine.seed)


def _record(job: Job) -> dict[str, Any]:
    config = job.config
    return {
        "config": resolved(config),
        "facts": job.facts,
        "scoring": job.scoring,
        "seeds": {"engine": config.engine.seed, "benchmark": config.benchmark.seed},
        "device": config.machine.device,
        "machine_name": config.machine.name or machine_name(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **provenance(),
    }


def _rename(tasks: Sequence[Task]) -> list[Task]:
    return [replace(task, id=f"warmup/{task.id}") for task in tasks]


def _close(job: Job, run_dir: RunDir, server: Server, resumed: int, seconds: float) -> None:
    """Score every episode, write the done-marker, report to tracking."""
    by_task = {episode.task_id: episode for episode in run_dir.episodes()}
    missing = [example.task.id for example in server.examples if example.task.id not in by_task]
    if missing:
        raise RuntimeError(f"the engine gave no episode for {len(missing)} tasks, the first is {missing[0]!r}")
    answers = [by_task[example.task.id].answer for example in server.examples]
    before = server.statistics()
    scores, lines = server.score(server.examples, answers), run_dir.lines()
    counted = {name: count - before.get(name, 0) for name, count in server.statistics().items()}
    run_dir.finish(
        {
            "scores": {example.task.id: score for example, score in zip(server.examples, scores, strict=True)},
            "scoring": counted,
            "fitting": asdict(server.spent),
            "scripted": list(server.scripted),
            "shared_bytes": lines[-1]["shared_bytes"],
            "peak_bytes": max(line["peak_bytes"] for line in lines),
            "resumed_episodes": resumed,
            "session_s": seconds,
        }
    )
    config = job.config
    name = f"{config.benchmark.name} {config.method.name} {config.kv.mode.value} {job.run_id}"
    with track(config.tracking, Path(config.machine.runs_dir), name, run_dir.record) as tracker:
        for episode in run_dir.episodes():
            tracker.episode(episode)
        tracker.summary(table_row(job, "single"))
