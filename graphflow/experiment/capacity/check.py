"""The planner against the engine: tasks are served in every state mode, and what it kept is set beside the plan.

The plan knows the tokens of the stateful run alone. In other modes the engine may write other outputs, of other
lengths: that shows in the text of requests, and where it changes who comes before a path is learned, in their operation
state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from graphflow.engine.config import EngineConfig
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.capacity.config import load
from graphflow.experiment.capacity.replay import Replay, evenly
from graphflow.experiment.capacity.traffic import measured
from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.config import Config
from graphflow.experiment.run import scope_of
from graphflow.experiment.serve import House, use_threads
from graphflow.experiment.tables import state_label
from graphflow.kv import KVConfig

CATEGORIES = ("store", "operation", "text")
SCHEDULE = ("scheduler", "prefill_chunk", "memory_bytes", "arrivals")
"""Settings of the engine that `graphflow.experiment.capacity.order` knows at their defaults alone."""


@dataclass(frozen=True)
class Checked:
    """One state mode.

    Attributes:
        state: The mode in words.
        planned: Bytes by category.
        measured: The same of the engine.
    """

    state: str
    planned: dict[str, int]
    measured: dict[str, int]

    def deviation(self, category: str) -> float:
        """Planned over measured, minus 1; 0 where both are 0."""
        planned, real = self.planned[category], self.measured[category]
        return planned / real - 1 if real else float(bool(planned))


def check(config: Config, workflow: str, states: Sequence[KVConfig]) -> list[Checked]:
    """Serves the benchmark's first tasks by one workflow in every state, the stateful one first.

    Args:
        config: Backbone, benchmark (with its limit) and engine.
        workflow: Name of the workflow.
        states: State modes; the first must be stateful.

    Raises:
        ConfigError: Settings of the engine under which steps join in another order than the planner's.
    """
    for name in SCHEDULE:
        given, allowed = getattr(config.engine, name), getattr(EngineConfig(), name)
        if given != allowed:
            raise ConfigError(f"engine.{name} must be {allowed!r} to check capacity, got {given!r}")
    house, found = House(), []
    use_threads(config)
    chosen, tasks = house.workflows[workflow], [example.task for example in house.examples(config)]
    requests = []
    for kv in states:
        executor = house.local(config, kv, Sandbox(config.engine.sandbox))
        episodes = list(executor.run(tasks, lambda arriving: [chosen] * len(arriving)))
        prompts = {name: len(prompt) for name, prompt in executor.prompts.items()}
        place = {task.id: number for number, task in enumerate(tasks)}
        requests = requests or measured(sorted(episodes, key=lambda episode: place[episode.task_id]), prompts)
        judges = [op.name for op in house.library.operations.values() if op.judge]
        engine = config.engine
        replay = Replay(kv, executor.store.shape, prompts, judges, engine.concurrency, engine.max_batch, engine.gather)
        planned, held = replay.serve(requests), executor.store_bytes()
        real = {
            "store": held.base + held.residual,
            "operation": sum(episode.op_bytes for episode in episodes),
            "text": sum(episode.dynamic_bytes for episode in episodes),
        }
        state = state_label(kv.mode.value, scope_of(kv))
        found.append(Checked(state, {name: getattr(planned, name) for name in CATEGORIES}, real))
    return found


def report_check(workflow: str, words: Sequence[str], console: Console) -> list[Checked]:
    """Check the states of `conf/capacity.yaml` and print a table."""
    config = compose(words)
    states = [evenly(compose([f"kv={name}"]).kv) for name in load([]).kv]
    rows = check(config, workflow, states)
    title = f"Planned against measured KV, {config.backbone.name}, {config.benchmark.name}, {workflow}, kB"
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("state", no_wrap=True)
    for name in CATEGORIES:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            f"{row.planned[name] / 1e3:,.1f} / {row.measured[name] / 1e3:,.1f} ({row.deviation(name):+.2%})"
            for name in CATEGORIES
        ]
        table.add_row(row.state, *cells)
    console.print(table)
    return rows
