"""The command `graphflow suite report`: measure what is left, write the table and figures, print everything."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from graphflow.backbone.load import training_record
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.compose import ConfigError, compose, resolved
from graphflow.experiment.config import Config
from graphflow.experiment.fit import Repertoire
from graphflow.experiment.progress import Unit, clock, work_progress
from graphflow.experiment.record import commit, digest, file_digest, machine_name, provenance, write_json
from graphflow.experiment.serve import House, taught
from graphflow.experiment.suite.choice import best_workflow, rows_of
from graphflow.experiment.suite.facts import suite_rows
from graphflow.experiment.suite.figures import draw_suite
from graphflow.experiment.suite.ledger import Ledger
from graphflow.experiment.suite.operations import Part
from graphflow.experiment.suite.overall import rows_over_all, state_rows
from graphflow.experiment.suite.probes import LAYOUTS, probes_of
from graphflow.experiment.suite.rows import MEAN, NO_MODEL, Row, merge_rows, read_rows, to_frame, write_rows
from graphflow.experiment.suite.show import show_suite
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Workflow

TABLE = "mini_suite.csv"


@dataclass
class SuiteReport:
    """What is reported on.

    Attributes:
        backbones: Names in conf/backbone; rows are filed under them.
        tasks: Test tasks and held-out tasks a benchmark that workflows run on, 1 or more.
        problems: Problems a kind that operations are measured on, 1 or more.
        overrides: Further overrides, for example ``machine.results_dir=elsewhere``.
        configs: The configuration of each backbone.

    Raises:
        ConfigError: A number is out of range, or a benchmark is not of the embedded suite.
    """

    backbones: list[str] = field(default_factory=lambda: ["qwen-mini"])
    tasks: int = 200
    problems: int = 60
    overrides: list[str] = field(default_factory=list)
    configs: dict[str, Config] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("tasks", "problems"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more, got {getattr(self, name)}")
        # a wrong name is found before anything is measured
        self.configs = {name: compose([*self.overrides, f"backbone={name}"]) for name in self.backbones}
        for name in self.configs[self.backbones[0]].experiment.benchmarks:
            if not name.startswith("mini-"):
                raise ConfigError(f"experiment.benchmarks must be of the embedded suite (mini-...), got {name!r}")


def report(wanted: SuiteReport, console: Console) -> pd.DataFrame:
    """Measure, write and print everything.

    Args:
        wanted: What is reported on.
        console: Where progress and tables go.

    Returns:
        All rows of the table, those of other backbones too.
    """
    house, started, config = House(), time.monotonic(), wanted.configs[wanted.backbones[0]]
    folder = Path(config.machine.results_dir)
    frame = read_rows(folder / TABLE)
    dirty = "-dirty" if provenance()["dirty"] else ""
    where = (commit() + dirty, config.machine.name or machine_name())
    frame = merge_rows(frame, to_frame(suite_part(house, config, console), NO_MODEL, *where))
    write_rows(folder / TABLE, frame)
    for backbone in wanted.backbones:
        console.print(f"measuring [bold]{backbone}[/bold] ...", highlight=False)
        frame = merge_rows(frame, to_frame(Measuring(house, wanted, backbone).run(console), backbone, *where))
        write_rows(folder / TABLE, frame)
    records = {name: training_record(name) for name in dict.fromkeys(frame["backbone"]) if name != NO_MODEL}
    files = draw_suite(frame, folder / "figures", records, console)
    show_suite(frame, wanted.backbones, console)
    console.print("written: " + ", ".join(map(str, (folder / TABLE, *files))), highlight=False)
    console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return frame


def suite_part(house: House, config: Config, console: Console) -> list[Row]:
    """Facts, shortcuts and prompt lengths, kept by what determines them."""
    own = file_digest(Path(__file__).with_name("facts.py"))
    files = {}
    for name in config.experiment.benchmarks:
        key = digest({"benchmark": asdict(taught(config.benchmark, name)), "code": [house.repository, own]})
        files[name] = Path(config.machine.runs_dir) / f"suite-facts-{key}" / "rows.json"
    units = [Unit(f"{name} facts and shortcuts", 1, name) for name, file in files.items() if not file.exists()]
    with work_progress(units, console) as progress:
        for unit in units:
            with progress.working_on(unit):
                rows = suite_rows(taught(config.benchmark, unit.benchmark), Sandbox(config.engine.sandbox))
                files[unit.benchmark].parent.mkdir(parents=True, exist_ok=True)
                write_json(files[unit.benchmark], [asdict(row) for row in rows])
                progress.advance()
    rows = [Row(**row) for file in files.values() for row in json.loads(file.read_text(encoding="utf-8"))]
    prompts = {
        operation.name: len(operation.prompt.split()) for operation in house.library.values() if operation.prompt
    }
    return [*rows, *(Row("prompts", MEAN, name, "words", words) for name, words in prompts.items())]


class Measuring:
    """Everything about one backbone.

    Args:
        house: Operations, workflows, benchmarks and the backbone.
        wanted: What is reported on.
        backbone: Its name in conf/backbone.
    """

    def __init__(self, house: House, wanted: SuiteReport, backbone: str) -> None:
        self.house, self.config, self.tasks = house, wanted.configs[backbone], wanted.tasks
        self.names = self.config.experiment.benchmarks
        stateless = compose([*wanted.overrides, f"backbone={backbone}", "kv=stateless"]).kv
        self.exact = Ledger(house, self.config, KVConfig(mode=StateMode.STATEFUL))
        self.bare = Ledger(house, self.config, stateless)
        code = file_digest(*(Path(__file__).with_name(f"{name}.py") for name in ("probes", "competence")))
        facts = {"code": code, "problems": wanted.problems, "engine": resolved(self.config)["engine"]}
        self.parts = [
            Part(
                kind,
                layout,
                wanted.problems,
                self.exact.run_dir.path / f"operations-{digest(facts)}-{kind}-{layout}.json",
            )
            for kind in (name.removeprefix("mini-") for name in self.names)
            for layout in LAYOUTS
        ]

    def workflows(self, name: str) -> list[Workflow]:
        """The repository's workflows for a benchmark."""
        return [one for one in self.house.workflows.values() if name.removeprefix("mini-") in one.kinds]

    def multi_step(self, name: str) -> list[str]:
        """Those of them with two language-model steps or more."""
        library = self.house.library
        return [
            one.name for one in self.workflows(name) if sum(library[step.op].kind is Kind.LLM for step in one.steps) > 1
        ]

    def run(self, console: Console) -> list[Row]:
        """Measure what is left and give all rows."""
        console.print("planning ...", highlight=False)
        asked = {part: self._unit(part) for part in self.parts}
        served = {name: Unit(f"{name} workflows", self._left(name), name, "workflows") for name in self.names}
        after = {
            (name, what): Unit(f"{name} {what}", self.tasks, name, "workflows")
            for name in self.names
            for what in ("heldout", "stateless")
        }
        rows: list[Row] = []
        with work_progress([*asked.values(), *served.values(), *after.values()], console) as progress:

            def one(_: Any) -> None:
                progress.advance()

            for part, unit in asked.items():
                with progress.working_on(unit):
                    part.measure(self.house, self.config, progress.advance)
                rows += part.rows()
            frames: dict[str, pd.DataFrame] = {}
            for name, unit in served.items():
                with progress.working_on(unit):
                    frames[name] = self.exact.run(name, "test", self.tasks, _all(self.workflows(name)), one)
                rows += rows_of(name, frames[name], self.multi_step(name))
            held, bare = {}, {}
            for (name, what), unit in after.items():
                best = [self.house.workflows[best_workflow(frames[name])]]
                with progress.working_on(unit):
                    if what == "heldout":
                        held[name] = self.exact.run(name, what, self.tasks, _all(best), one)
                    else:
                        bare[name] = self.bare.run(name, "test", self.tasks, _all(best), one)
        return [*rows, *self._later_rows(frames, held, bare)]

    def _unit(self, part: Part) -> Unit:
        seed = self.config.engine.seed
        calls = 0 if part.file.exists() else len(probes_of(part.kind, part.problems, seed))
        return Unit(f"mini-{part.kind} operations, {part.layout}", calls, f"mini-{part.kind}", "operations")

    def _left(self, name: str) -> int:
        return self.exact.left(self.exact.examples(name, "test", self.tasks), _all(self.workflows(name)))

    def _later_rows(
        self, frames: dict[str, pd.DataFrame], held: dict[str, pd.DataFrame], bare: dict[str, pd.DataFrame]
    ) -> list[Row]:
        best = {name: best_workflow(frame) for name, frame in frames.items()}
        chosen: Any = {name: frame[frame["workflow"] == best[name]] for name, frame in frames.items()}
        rows = rows_over_all(frames, {name: self.multi_step(name) for name in frames})
        for name, frame in held.items():
            rows.append(Row.of("choice", name, best[name], "best fixed", frame["metric"].tolist(), "heldout"))
        groups = [frame["metric"].tolist() for frame in held.values()]
        rows.append(Row.of_groups("choice", MEAN, "", "best fixed", groups, "heldout"))
        exact, stateless = (
            {name: dict(zip(frame["task_id"], frame["metric"], strict=True)) for name, frame in part.items()}
            for part in (chosen, bare)
        )
        return [*rows, *state_rows(exact, stateless)]


def _all(workflows: Sequence[Workflow]) -> Repertoire:
    """These workflows, whatever the task."""
    return lambda task: workflows
