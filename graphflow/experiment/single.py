"""The commands for one thing at a time: one cell, the generator, the wGraph."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from graphflow.experiment.config import Config
from graphflow.experiment.plan import SEARCHING, UNTAUGHT
from graphflow.experiment.progress import Unit, WorkProgress, work_progress
from graphflow.experiment.run import run_cell, table_row
from graphflow.experiment.search import Search
from graphflow.experiment.serve import House
from graphflow.experiment.tables import COLUMNS, write_csv
from graphflow.methods import NAMES, Method, MethodError
from graphflow.methods.found import Found
from graphflow.methods.notation import write_workflow
from graphflow.wgraph.draw import draw


def run_single(config: Config, console: Console) -> dict[str, Any]:
    """Run one cell, with what its method has to learn first; print and return its row."""
    house = House()
    job = house.job(config)
    cell = Unit(f"{config.benchmark.name} {config.method.name}", house.tasks_left(job), config.benchmark.name)
    learning = [] if job.run_dir.done else fitting_units(house, config)
    with work_progress([*learning, cell], console) as progress:
        learn(house, config, learning, progress)
        with progress.working_on(cell):
            run_cell(job, lambda _: progress.advance())
    row = table_row(job, "single")
    write_csv(job.run_dir.path / "row.csv", [row])
    console.print(_vertical(row))
    console.print(f"run: {job.run_dir.path}", highlight=False)
    return row


def train(config: Config, console: Console) -> dict[str, Any]:
    """Fill the outcome table, train the generator, print and return what training measured."""
    house = House()
    units = learning_units(house, config)
    epochs = Unit("generator", config.generator.epochs, method="generator")
    with work_progress([*units, epochs], console) as progress:
        learn(house, config, units, progress)
        table = house.outcomes(config)
        with progress.working_on(epochs):
            generator = house.generator(config, table, lambda _: progress.advance())
    console.print(_vertical(generator.report))
    console.print(f"kept in: {house.fit_dir(config).path}", highlight=False)
    return generator.report


def fit(config: Config, console: Console) -> Method:
    """Fit a method, print what it found and what that has cost; runs of the same settings find it done.

    Raises:
        MethodError: The method learns nothing.
    """
    house, name = House(), config.method.name
    if name in UNTAUGHT and name not in SEARCHING:
        allowed = ", ".join(sorted(set(NAMES) - set(UNTAUGHT) | set(SEARCHING)))
        raise MethodError(f"method.name: {name} learns nothing; methods that can be fitted are {allowed}")
    units = fitting_units(house, config)
    with work_progress(units, console) as progress:
        learn(house, config, units, progress)
        method = house.method(config)
    if isinstance(method, Found):
        place = Search(house, config).folder
        for benchmark, workflow in method.best.items():
            console.print(f"{benchmark}: {workflow.name}", highlight=False)
            console.print(write_workflow(workflow), highlight=False, markup=False)
    else:
        place = house.fit_dir(config).path
    console.print(_vertical({"on tasks of": config.benchmark.name, **asdict(method.spent)}))
    console.print(f"kept in: {place}", highlight=False)
    return method


def show_wgraph(folder: Path, console: Console) -> list[Path]:
    """Print the merged graph and draw it as ``wgraph.svg`` and ``wgraph.png``."""
    wgraph = House().wgraph
    console.print(wgraph.describe(), highlight=False)
    folder.mkdir(parents=True, exist_ok=True)
    files = [draw(wgraph, folder / f"wgraph.{suffix}") for suffix in ("svg", "png")]
    console.print("drawn: " + ", ".join(map(str, files)), highlight=False)
    return files


def learning_units(house: House, config: Config) -> list[Unit]:
    """The training executions that are left, one unit a benchmark."""
    left = house.executions_left(config)
    return [Unit(f"{name} training", count, name, "training") for name, count in left.items() if count]


def fitting_units(house: House, config: Config) -> list[Unit]:
    """The executions that are left before the method can be fitted; those of a search at most."""
    name, benchmark = config.method.name, config.benchmark.name
    if name in SEARCHING:
        left = house.search_left(config)
        return [Unit(f"{benchmark} {name} search", left, benchmark, name)] if left else []
    return [] if name in UNTAUGHT else learning_units(house, config)


def learn(house: House, config: Config, units: list[Unit], progress: WorkProgress) -> None:
    """Work the executions off."""
    for unit in units:
        with progress.working_on(unit):
            if unit.method in SEARCHING:
                house.method(config, lambda _: progress.advance())
            else:
                house.outcomes(config, lambda _: progress.advance(), only=unit.benchmark)


def _vertical(row: dict[str, Any]) -> Table:
    table = Table(show_header=False)
    for name in (*(column for column in COLUMNS if column in row), *(key for key in row if key not in COLUMNS)):
        value = row[name]
        missing = value is None or (isinstance(value, float) and pd.isna(value))
        table.add_row(name, "" if missing else f"{value:.6g}" if isinstance(value, float) else str(value))
    return table
