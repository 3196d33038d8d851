"""The command `graphflow capacity`: plan every backbone, benchmark and state mode; write the table, draw, print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from graphflow.backbone.load import BackboneConfig
from graphflow.backbone.turns import turn_format
from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.engine.episode import Task
from graphflow.experiment.capacity.config import CapacityConfig
from graphflow.experiment.capacity.dry import DryWalk
from graphflow.experiment.capacity.figures import draw
from graphflow.experiment.capacity.replay import Footprint, Replay, Sizes, check_planned, evenly
from graphflow.experiment.capacity.shapes import kv_shape
from graphflow.experiment.capacity.table import COLUMNS, paper_gb, show, write
from graphflow.experiment.capacity.tokenizers import OWN, STAND_IN, counter
from graphflow.experiment.capacity.traffic import Request, measured
from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.record import RunDir, commit, provenance
from graphflow.experiment.run import scope_of
from graphflow.experiment.serve import House
from graphflow.kv import KVConfig, KVShape
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Workflow

RETAINED, RESIDENT = "retained", "resident"
AT_LEAST = 200  # requests that a figure of resident KV is the peak over, or ten times those in flight


@dataclass(frozen=True)
class Load:
    """What one backbone is asked to serve.

    Attributes:
        benchmark: Name of the benchmark.
        kind: Its kind.
        requests: The traffic, at its full size.
        rows: Tasks that were counted.
        prompts: Tokens of every operation's segment.
        tokenizer: What counted them.
        source: dry, or the run's id.
        workflows: Names of the workflows.
    """

    benchmark: str
    kind: str
    requests: list[Request]
    rows: int
    prompts: dict[str, int]
    tokenizer: str
    source: str
    workflows: str


class Planner:
    """Plans the capacity of backbones.

    Args:
        config: What is planned.
    """

    def __init__(self, config: CapacityConfig) -> None:
        self.config, self.house = config, House()
        self.tasks = cache(self._tasks)
        self._sizes: dict[tuple[str, KVShape], Sizes] = {}
        self.judges = [op.name for op in self.house.library.operations.values() if op.judge]
        self.kv: dict[str, KVConfig] = {name: evenly(compose([f"kv={name}"]).kv) for name in config.kv}
        for name, kv in self.kv.items():
            try:
                check_planned(kv)
            except ValueError as error:
                raise ConfigError(f"kv={name}: {error}") from None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row of the table, backbone by backbone; resident KV by concurrency on the first benchmark."""
        for name in self.config.backbones:
            backbone = compose([f"backbone={name}"]).backbone
            shape = kv_shape(backbone, self.config.kv_dtype)
            loads = [self.measured()] if self.config.run else [self.dry(backbone, b) for b in self.config.benchmarks]
            for load in loads:
                for mode, kv in self.kv.items():
                    yield self.row(RETAINED, name, load, mode, shape, self.serve(load, kv, shape, 16), 16)
            for mode, kv in self.kv.items():
                for flight in self.config.concurrency:
                    part = replace(loads[0], requests=loads[0].requests[: max(AT_LEAST, 10 * flight)])
                    found = self.serve(part, kv, shape, flight)
                    yield self.row(RESIDENT, name, part, mode, shape, found, flight)

    def serve(self, load: Load, kv: KVConfig, shape: KVShape, concurrency: int) -> Footprint:
        """Bytes that a load leaves, the store in its steady state."""
        key = (repr(kv), shape)
        replay = Replay(kv, shape, load.prompts, self.judges, concurrency, sizes=self._sizes.get(key))
        self._sizes[key] = replay.sizes
        if kv.learns_paths:
            replay.serve(load.requests[: self.config.warmup])
        return replay.serve(load.requests)

    def dry(self, backbone: BackboneConfig, benchmark: str) -> Load:
        """The traffic of a benchmark by a dry walk."""
        count = counter(self.config.tokenizer, backbone)
        walk = DryWalk(self.house.library, turn_format(backbone.turns), count, self.config.assumed)
        tasks = self.tasks(benchmark)
        workflows = self.workflows(tasks[0].kind)
        walked = cache(lambda task, flow: walk.request(tasks[task], workflows[flow]))
        total = self.config.tasks.get(tasks[0].kind, len(tasks))
        dealt = ((i % len(tasks), (i + i // len(tasks)) % len(workflows)) for i in range(total))
        own = {STAND_IN: f"{STAND_IN} ({backbone.turns})", OWN: backbone.name}
        return Load(
            benchmark,
            tasks[0].kind,
            [walked(*pair) for pair in dealt],
            min(total, len(tasks)),
            walk.prompts,
            own.get(self.config.tokenizer, self.config.tokenizer),
            "dry",
            ", ".join(workflow.name for workflow in workflows),
        )

    def measured(self) -> Load:
        """The traffic of a run."""
        path = Path(self.config.run)
        run = RunDir(path.parent, path.name)
        if not run.done:
            raise ConfigError(f"run must be the folder of a finished run, got {path}")
        config = run.record["config"]
        backbone = compose([f"backbone={config['backbone']['name']}"]).backbone
        backbone = replace(backbone, path=config["backbone"]["path"], turns=config["backbone"]["turns"])
        count, turns = counter(OWN, backbone), turn_format(backbone.turns)
        prompts = {
            op.name: count(turns.write_operation(op.prompt))
            for op in self.house.library.operations.values()
            if op.kind is Kind.LLM
        }
        episodes = run.episodes()
        try:
            requests = measured(episodes, prompts)
        except ValueError as error:
            raise ConfigError(f"run={path}: {error}") from None
        kind = config["benchmark"]["name"].removeprefix("mini-")
        total = self.config.tasks.get(kind, len(requests))
        names = ", ".join(sorted({episode.workflow for episode in episodes}))
        dealt = list(islice(cycle(requests), total))
        benchmark = config["benchmark"]["name"]
        return Load(benchmark, kind, dealt, len(requests), prompts, backbone.name, run.run_id, names)

    def workflows(self, kind: str) -> list[Workflow]:
        """The workflows that tasks of a kind are dealt."""
        if self.config.workflows != "all":
            if self.config.workflows not in self.house.workflows:
                raise ConfigError(f"workflows must be all or one of {', '.join(self.house.workflows)}")
            return [self.house.workflows[self.config.workflows]]
        return [workflow for workflow in self.house.workflows.values() if kind in workflow.kinds]

    def row(
        self, table: str, backbone: str, load: Load, mode: str, shape: KVShape, found: Footprint, flight: int
    ) -> dict[str, Any]:
        """One row of the table."""
        requests, kv = load.requests, self.kv[mode]
        paper, what = paper_gb(table, backbone, load.kind, kv.mode.value, scope_of(kv), flight)
        values = {
            "backbone": backbone,
            "table": table,
            "benchmark": load.benchmark,
            "kv": mode,
            "kv_mode": kv.mode.value,
            "kv_scope": scope_of(kv),
            "concurrency": flight,
            "n_tasks": len(requests),
            "rows_counted": load.rows,
            "source": load.source,
            "tokenizer": load.tokenizer,
            "workflows": load.workflows,
            "bytes_per_token": shape.bytes_per_token,
            "task_tokens": sum(request.task for request in requests) / len(requests),
            "prompt_tokens": sum(load.prompts[call.op] for request in requests for call in request.calls)
            / len(requests),
            "text_tokens": sum(request.text for request in requests) / len(requests),
            "output_tokens": sum(call.output for request in requests for call in request.calls) / len(requests),
            "prefill_tokens": found.prefill / len(requests),
            "reused_tokens": found.reused / len(requests),
            "store_bytes": found.store,
            "operation_bytes": found.operation,
            "text_bytes": found.text,
            "retained_bytes": found.retained,
            "resident_bytes": found.resident,
            "batch_bytes": found.batch,
            "paper_gb": paper,
            "paper_figure": what,
        }
        return values

    def _tasks(self, benchmark: str) -> list[Task]:
        """All tasks of a benchmark's test file."""
        made = build_benchmark(BenchmarkConfig(name=benchmark, data_dir=self.config.data_dir))
        parts = ["test"] if benchmark.startswith("mini-") else ["validation", "test"]
        return [example.task for part in parts for example in made.examples(part)]


def report(config: CapacityConfig, command: str, console: Console) -> pd.DataFrame:
    """Plan, write ``capacity.csv`` and its figure, print everything.

    Args:
        config: What is planned.
        command: The command, for the table.
        console: Where tables go.

    Returns:
        All rows.
    """
    if not config.run and not config.benchmarks:
        raise ConfigError("benchmarks must name at least one, or run a finished run")
    dirty = "-dirty" if provenance()["dirty"] else ""
    rows = [{**row, "command": command, "commit": commit() + dirty} for row in Planner(config).rows()]
    frame = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    folder = Path(config.results_dir)
    files = [write(frame, folder / "capacity.csv"), *draw(frame, folder / "figures")]
    show(frame, config, console)
    console.print("written: " + ", ".join(map(str, files)), highlight=False)
    return frame
