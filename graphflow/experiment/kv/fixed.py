"""Cells on fixed contexts: one stateful run that writes, and runs of any state mode that read what it wrote."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from graphflow.engine.executor import Executor
from graphflow.engine.fidelity import Remembered
from graphflow.engine.gate import Build
from graphflow.engine.sandbox import Sandbox
from graphflow.engine.tools import ToolBox
from graphflow.experiment.config import Config
from graphflow.experiment.kv.contexts import OUTPUTS, Recorder, Replayer, read_outputs, server, use
from graphflow.experiment.record import RunDir, digest
from graphflow.experiment.run import Job, Server, identity, run_cell
from graphflow.experiment.serve import House, use_threads
from graphflow.kv import KVConfig, StateMode
from graphflow.wgraph.workflow import Workflow

EXACT = Remembered()
"""Cells that read one reference are compared with exact state on the same tokens: it is computed once."""


@dataclass(frozen=True)
class Flows:
    """How tasks get their workflows.

    Attributes:
        name: Part of what determines a run.
        build: Gives the workflows.
        closed: True if only transitions of the wGraph occur.
    """

    name: str
    build: Build
    closed: bool = True


def dealt(house: House) -> Flows:
    """Every task gets one of the repository's workflows of its kind, by its id: all paths are used, none by choice."""

    def build(tasks: Sequence) -> list[Workflow]:
        chosen = []
        for task in tasks:
            own = [flow for flow in house.workflows.values() if task.kind in flow.kinds]
            chosen.append(own[zlib.crc32(task.id.encode()) % len(own)])
        return chosen

    return Flows("dealt", build)


def reference(house: House, config: Config, flows: Flows) -> RunDir:
    """The stateful run whose outputs are read again; runs what is left of it."""
    own = replace(
        config, kv=KVConfig(mode=StateMode.STATEFUL), engine=replace(config.engine, fidelity=0, kv_dtype="float32")
    )

    def recorded(job: Job, executor: Executor) -> Executor:
        return use(executor, Recorder(executor.decoder, job.run_dir.path / OUTPUTS))

    return run_cell(_job(house, own, flows, {"writes": True}, recorded))


def replay(house: House, config: Config, flows: Flows, written: RunDir) -> Job:
    """A cell on what a `reference` wrote, ready to run."""

    def replayed(_: Job, executor: Executor) -> Executor:
        executor.calls.exact = EXACT
        return use(executor, Replayer(executor.decoder, read_outputs(written.path / OUTPUTS)))

    return _job(house, config, flows, {"reads": written.run_id}, replayed)


def _job(house: House, config: Config, flows: Flows, more: dict, decoding: Callable[[Job, Executor], Executor]) -> Job:
    benchmark = house.benchmark(config.benchmark)
    facts = {**house.facts(config), "benchmark_version": benchmark.version, "workflows": flows.name, **more}

    def open_server() -> Server:
        use_threads(config)
        sandbox = benchmark.sandbox = Sandbox(config.engine.sandbox)
        executor = decoding(job, open_executor(house, config, sandbox, flows.closed))
        warmup = benchmark.examples(config.fit.split.value, config.warmup) if config.warmup else []
        return server(executor, house.examples(config), warmup, flows.build, {benchmark.name: benchmark})

    job = Job(config, facts, open_server, benchmark.metric_name)
    return job


def open_executor(house: House, config: Config, sandbox: Sandbox, closed: bool = True) -> Executor:
    """An executor; without limits on transitions where they are not the wGraph's."""
    if closed:
        return house.local(config, config.kv, sandbox)
    return Executor(house.backbone(config), house.library, config.kv, config.engine, ToolBox(sandbox=sandbox))


def key_of(config: Config) -> str:
    """What cells that read the same reference have in common."""
    plain = identity(config)
    engine = {name: value for name, value in plain["engine"].items() if name not in ("fidelity", "kv_dtype")}
    same = {name: plain[name] for name in ("backbone", "benchmark", "split")}
    return digest({**same, "engine": engine})
