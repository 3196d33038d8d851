"""`scheduling`: schedulers under three kinds of arrivals, on tasks of all benchmarks with workflows of every length.

The rate of the open loops is a share (``sizes.load``, percent) of the tasks a second that the closed loop served in
order of readiness (fifo) in the first repeat. All runs of one kind of arrivals have the same tasks at the same times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from graphflow.engine.arrivals import Arrivals
from graphflow.engine.schedule import Schedule
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.experiment.kv.fixed import dealt
from graphflow.experiment.kv.study import Study
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.run import run_cell
from graphflow.experiment.serving.bars import paired, spread
from graphflow.experiment.serving.figures import draw_scheduling
from graphflow.experiment.serving.runs import Run, System, measures, names, times
from graphflow.experiment.serving.timeline import draw_timeline

SHOWN = ("arrivals", "scheduler", "rate", "n_tasks", "tasks_s", "p50_s", "p90_s", "p99_s", "ttft_s", "resident_mb")
RATIOS = ("p50_s", "p90_s", "p99_s", "ttft_s", "tasks_s")
CLOSED, FIFO = Arrivals.CLOSED.value, Schedule.FIFO.value


def scheduling(study: Study) -> pd.DataFrame:
    """Run what is left; write ``scheduling.csv``, its ratios to fifo, the figure and the timeline of one run."""
    study = study.within("serving")
    settings, repeats = _settings(study), study.size("repeats")
    units = [[Unit(_label(config), study.config.experiment.tasks) for config in settings] for _ in range(repeats)]
    done, rate = list[tuple[int, Run]](), 0.0
    with work_progress([unit for own in units for unit in own], study.console) as progress:
        for repeat, own in enumerate(units, 1):
            places = range(len(settings))
            for place in places if repeat % 2 else reversed(places):
                run = _run(study, settings[place], rate, repeat)
                with progress.working_on(own[place]):
                    run_cell(run.job(study.house), lambda _: progress.advance())
                done.append((place, run))
                if not rate:  # the first of all is the closed loop in order of readiness
                    served = measures(run.job(study.house).run_dir)["tasks_s"]
                    rate = float(f"{study.size('load') / 100 * served:.3g}")
    runs = [run for _, run in sorted(done, key=lambda item: (item[1].repeat, item[0]))]
    frame = study.write("scheduling", [_row(study, run) for run in runs])
    study.write("scheduling_ratios", beside_fifo(frame))
    study.say(*draw_scheduling(frame, study.figures), _timeline(study, runs))
    middle = frame.groupby(["arrivals", "scheduler"], sort=False)[list(SHOWN[2:])].median().reset_index()
    study.show(middle, SHOWN, "Schedulers, median of repeats")
    return frame


def _settings(study: Study) -> list[Config]:
    """Every scheduler under every kind of arrivals, the closed loop in order of readiness first.

    Raises:
        ConfigError: It is missing, or there is more than one backbone.
    """
    experiment = study.config.experiment
    if len(experiment.backbones) != 1:
        raise ConfigError(f"experiment.backbones must name one backbone, got {list(experiment.backbones)}")
    configs = [config for _, config in study.settings()]
    configs.sort(key=lambda config: _kind(config) != (CLOSED, FIFO))  # stable: the others stay in order
    if not configs or _kind(configs[0]) != (CLOSED, FIFO):
        raise ConfigError("experiment.grids must have engine.arrivals=closed with engine.scheduler=fifo, for the rate")
    return configs


def _kind(config: Config) -> tuple[str, str]:
    """Arrivals, and the scheduler with what it decodes ahead."""
    engine = config.engine
    ahead = f", prefetch {engine.prefetch}" if engine.prefetch else ""
    return engine.arrivals, engine.scheduler + ahead


def _label(config: Config) -> str:
    return " ".join(_kind(config))


def _run(study: Study, config: Config, rate: float, repeat: int) -> Run:
    """A setting at a rate, which a closed loop does not have."""
    if config.engine.arrivals != CLOSED:
        config = replace(config, engine=replace(config.engine, rate=rate))
    experiment = study.config.experiment
    flows = dealt(study.house)
    return Run(config, System.ENGINE, tuple(experiment.benchmarks), experiment.tasks, flows, repeat)


def _row(study: Study, run: Run) -> dict[str, Any]:
    engine = run.config.engine
    own = {"arrivals": engine.arrivals, "scheduler": _kind(run.config)[1], "prefetch": engine.prefetch}
    rate = None if engine.arrivals == CLOSED else engine.rate
    return {**names(run), **own, "rate": rate, **measures(run.job(study.house).run_dir)}


def beside_fifo(frame: Any) -> list[dict[str, Any]]:
    """Every scheduler over fifo under the same arrivals, repeat by repeat; a row a pair and measure."""
    rows = []
    for arrivals, part in frame.groupby("arrivals", sort=False):
        part = part.assign(label=part["scheduler"])
        for scheduler in [name for name in dict.fromkeys(part["scheduler"]) if name != FIFO]:
            for measure in RATIOS:
                backbone, flight = part["backbone"].iloc[0], int(part["in_flight"].iloc[0])
                found = paired(part, backbone, measure, (scheduler, flight), (FIFO, flight))
                names = {"backbone": backbone, "arrivals": arrivals, "scheduler": scheduler, "measure": measure}
                rows.append({**names, **spread(found), "n_tasks": int(part["n_tasks"].min())})
    return rows


def _timeline(study: Study, runs: Sequence[Run]) -> Path:
    """The first run under Poisson arrivals, or the first of all."""
    run = next((run for run in runs if run.config.engine.arrivals == Arrivals.POISSON.value), runs[0])
    run_dir = run.job(study.house).run_dir
    ended = {task: line["ended_s"] for task, line in times(run_dir).items()}
    title = f"{_label(run.config)}, {names(run)['backbone']}, {run.label}, {run.config.engine.concurrency} in flight"
    return draw_timeline(run_dir.episodes(), ended, study.size("shown"), title, study.figures)
