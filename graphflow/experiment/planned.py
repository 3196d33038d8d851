"""The cells of an experiment, ready to run, with what their methods have to learn first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from graphflow.experiment.compose import compose
from graphflow.experiment.config import Config
from graphflow.experiment.plan import SEARCHING, Cell, cells
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.run import Job, run_cell
from graphflow.experiment.serve import House
from graphflow.experiment.single import fitting_units, learn


@dataclass(frozen=True)
class Learning:
    """Executions on one benchmark that fit a method, shared by every cell that learns from them."""

    config: Config
    unit: Unit


@dataclass(frozen=True)
class Planned:
    """A cell, ready to run. Cells that are one run share one unit of work."""

    cell: Cell
    job: Job
    unit: Unit


def plan(house: House, config: Config, overrides: Sequence[str]) -> tuple[list[Learning], list[Planned]]:
    """Everything that is to be done, checked before any of it begins."""
    units: dict[str, Unit] = {}
    planned, teachers = [], {}
    for cell in cells(config.experiment):
        own = compose([*cell.overrides, *overrides, f"tracking.group={config.experiment.name}"])
        job = house.job(own)
        unit = units.get(job.run_id) or Unit(cell.label, house.tasks_left(job), own.benchmark.name, own.method.name)
        units[job.run_id] = unit
        planned.append(Planned(cell, job, unit))
        if own.method.name in SEARCHING:
            teachers.setdefault(job.facts["search"], own)
        elif cell.needs_fit:
            teachers.setdefault(house.fit_dir(own).run_id, own)
    return [Learning(own, unit) for own in teachers.values() for unit in fitting_units(house, own)], planned


def run_planned(house: House, learning: Sequence[Learning], planned: Sequence[Planned], console: Console) -> None:
    """Fit the methods, run what is left of every cell."""
    with work_progress(units_of(learning, planned), console) as progress:
        for item in learning:
            learn(house, item.config, [item.unit], progress)
        for item in planned:
            with progress.working_on(item.unit):
                run_cell(item.job, lambda _: progress.advance())


def units_of(learning: Sequence[Learning], planned: Sequence[Planned]) -> list[Unit]:
    """Every unit of work once."""
    return list({id(item.unit): item.unit for item in (*learning, *planned)}.values())


def scores_of(planned: Sequence[Planned]) -> dict[str, float]:
    """Scores by task of some finished cells of one backbone."""
    return {task: score for item in planned for task, score in (item.job.run_dir.done or {})["scores"].items()}
