"""`concurrency`: workflows in flight against resident KV and throughput, beside what one would take instead.

The same weights, tasks and workflows in one run on one machine: the engine in several state modes, `generate` of
transformers one by one and in padded batches, and its continuous batching with prefix sharing. All cells run once a
repeat, in an order that turns round from repeat to repeat, and ratios are of cells of the same repeat.

Resident KV is what is really held at its peak. Ours: the store, contexts of live tasks and the batch's caches. Padded
`generate`: its cache at the end of a batch, without the copy that it makes of a layer while that grows. Continuous
batching: the pages that were set aside, without its masks. A row whose server failed says why and has no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from graphflow.engine.failure import attempt
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.kv.study import Study
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.record import RunDir
from graphflow.experiment.run import run_cell
from graphflow.experiment.serving.bars import bars, ratios
from graphflow.experiment.serving.figures import draw_concurrency
from graphflow.experiment.serving.runs import Run, System, measures, names
from graphflow.experiment.serving.workload import fixed
from graphflow.kv import StateMode

SHOWN = ("label", "in_flight", "n_tasks", "tasks_s", "tokens_s", "p90_s", "ttft_s", "resident_mb", "operation_mb")


def concurrency(study: Study) -> pd.DataFrame:
    """Run what is left; write ``concurrency.csv``, its ratios, the bars, and the figure."""
    study = study.within("serving")
    planned = list(_planned(study))
    units = [Unit(f"{run.label} x{_flight(run)}, repeat {run.repeat}", run.tasks, run.label) for run in planned]
    reasons: list[str] = []
    with work_progress(units, study.console) as progress:
        for run, unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                job = run.job(study.house)
                if run.system is System.ENGINE:
                    run_cell(job, lambda _: progress.advance())
                    reasons.append("")
                else:
                    reasons.append(attempt(lambda job=job: run_cell(job, lambda _: progress.advance())))
                    if reasons[-1]:
                        progress.say(f"{unit.label}: {reasons[-1]}")
    frame = study.write("concurrency", _rows(study, planned, reasons))
    measured = frame[frame["failure"].isna()]
    study.write("concurrency_ratios", ratios(measured))
    held = study.write("concurrency_bars", bars(measured))
    study.say(*draw_concurrency(measured, study.figures))
    study.show(summary(measured), SHOWN, "Workflows in flight, median of repeats")
    study.show(held, ("backbone", "label", "bar", "needed", "measured", "lowest", "highest", "met"), "Bars")
    return frame


def summary(frame: Any) -> Any:
    """The median over repeats, a row a label and number of tasks in flight."""
    keys = ["backbone", "label", "in_flight"]
    return frame.groupby(keys, sort=False)[[name for name in SHOWN if name not in keys]].median().reset_index()


def _planned(study: Study) -> Iterator[Run]:
    """All cells repeat by repeat; those that are compared, of one number in flight, next to each other."""
    experiment = study.config.experiment
    known, flows = [system.value for system in System], fixed(study.house)
    found = []
    for cell, config in study.settings():
        artefact = cell.artefact.removesuffix(f"_{config.engine.concurrency}")
        if artefact not in known:
            raise ConfigError(f"experiment.grids.artefact must be one of {', '.join(known)}, got {artefact!r}")
        system = System(artefact)
        most = min(experiment.tasks, study.size("continuous") if system is System.CONTINUOUS else experiment.tasks)
        most = min(most, study.size("alone")) if config.engine.concurrency == 1 else most
        if system is not System.ENGINE and config.backbone.attention != "dense":
            raise ConfigError(f"backbone.attention must be dense in grid {artefact}, got {config.backbone.attention!r}")
        found.append((config, system, most))
    found.sort(key=lambda item: (item[0].backbone.name, _level(item[0]), item[0].backbone.attention))
    for repeat in range(1, study.size("repeats") + 1):
        for config, system, most in found if repeat % 2 else reversed(found):
            yield Run(config, system, tuple(experiment.benchmarks), most, flows, repeat)


def _level(config: Any) -> int:
    return config.engine.concurrency


def _flight(run: Run) -> int:
    return _level(run.config)


def _rows(study: Study, planned: Sequence[Run], reasons: Sequence[str]) -> list[dict[str, Any]]:
    """A row a run, those of every repeat in the order of the first."""
    said = {index: _texts(run.job(study.house).run_dir) for index, run in enumerate(planned) if not reasons[index]}
    rows = []
    for index, (run, reason) in enumerate(zip(planned, reasons, strict=True)):
        row = {**names(run), "tasks_asked": study.config.experiment.tasks, "n_tasks": 0}
        if not reason:
            row |= measures(run.job(study.house).run_dir)
            row |= {"equal_answers": None, "equal_outputs": None, "equal_to": ""}
            beside = _reference(planned, said, run)
            if beside is not None:
                other = f"{planned[beside].label} x{_flight(planned[beside])}"
                row |= {**equal(said[index], said[beside]), "equal_to": other}
        rows.append({**row, "failure": reason or None})
    order = {(row["label"], row["in_flight"]): place for place, row in reversed(list(enumerate(rows)))}
    return sorted(rows, key=lambda row: (row["backbone"], row["repeat"], order[row["label"], row["in_flight"]]))


def _reference(planned: Sequence[Run], said: dict[int, Any], run: Run) -> int | None:
    """The run that outputs are compared with: the plainest of the same repeat that has run, exact state one by one."""
    exact = [
        index
        for index in said
        if planned[index].repeat == run.repeat
        and planned[index].config.backbone.name == run.config.backbone.name
        and (planned[index].system is System.GENERATE or planned[index].config.kv.mode is StateMode.STATEFUL)
    ]
    return min(exact, key=lambda i: (planned[i].system is not System.GENERATE, _flight(planned[i])), default=None)


def _texts(run_dir: RunDir) -> dict[str, tuple[str, Any]]:
    """Answer and all outputs of every task."""
    return {
        episode.task_id: (episode.answer, sorted((step.step, step.texts) for step in episode.steps))
        for episode in run_dir.episodes()
    }


def equal(ours: dict[str, tuple[str, Any]], theirs: dict[str, tuple[str, Any]]) -> dict[str, float]:
    """Share of the tasks that both ran with the same answer, and with the same output of every step."""
    both = [task for task in ours if task in theirs]
    answers, outputs = (np.mean([ours[task][i] == theirs[task][i] for task in both]) for i in (0, 1))
    return {"equal_answers": float(answers), "equal_outputs": float(outputs)}
