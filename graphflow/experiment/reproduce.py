"""The whole experiment of a profile: learn, run every cell, write tables, figures and the report.

Experiments that a profile names come after its cells, and into its report. Whatever is finished already is read and not
run again: it can be stopped at any time and goes on with the same command.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from graphflow.experiment.baselines.tables import read_methods
from graphflow.experiment.compose import resolved
from graphflow.experiment.config import Config
from graphflow.experiment.experiments import SHORT, experiment, settings
from graphflow.experiment.planned import Planned, plan, run_planned, scores_of, units_of
from graphflow.experiment.plots import draw_all
from graphflow.experiment.progress import clock
from graphflow.experiment.report import Difference, write_report
from graphflow.experiment.run import scope_of, table_row
from graphflow.experiment.serve import House
from graphflow.experiment.stats import Interval, paired_difference
from graphflow.experiment.tables import headline, is_result_table, read_csv, state_label, write_csv
from graphflow.experiment.tracking import TrackingMode, track

DIFFERENCES = "differences"
PAIRS = (
    (("graphflow", "differential", "path"), ("vanilla", "stateful", "none")),
    (("graphflow", "differential", "path"), ("best_fixed", "stateful", "none")),
    (("graphflow", "differential", "path"), ("retrieve_top1", "stateful", "none")),
    (("graphflow", "differential", "path"), ("graphflow", "stateful", "none")),
    (("graphflow", "stateful", "none"), ("vanilla", "stateful", "none")),
    (("graphflow", "stateful", "none"), ("best_fixed", "stateful", "none")),
    (("graphflow", "stateful", "none"), ("retrieve_top1", "stateful", "none")),
    (("best_fixed", "stateless", "none"), ("best_fixed", "stateful", "none")),
    (("best_fixed", "stateless", "head"), ("best_fixed", "stateful", "none")),
    (("best_fixed", "differential", "path"), ("best_fixed", "stateless", "head")),
    (("best_fixed", "differential", "path"), ("best_fixed", "stateful", "none")),
    (("best_fixed", "differential", "request"), ("best_fixed", "stateful", "none")),
)


def results_folder(config: Config) -> Path:
    """Where tables go: the results folder itself for the default profile, a folder inside it for any other."""
    base, name = Path(config.machine.results_dir), config.experiment.name
    return base if name == "default" else base / name


def reproduce(config: Config, overrides: Sequence[str], command: str, console: Console) -> Path:
    """Run what is left of an experiment and write its results.

    Args:
        config: The profile's configuration.
        overrides: What else was given on the command line: it holds for every cell, and for the experiments that come
            after the profile's cells; of the keys of the experiment, `SHORT` do.
        command: The command, for the report.
        console: Where progress and the headline go.

    Returns:
        The folder of the results.

    Raises:
        ConfigError: A setting is wrong, or there is no experiment of a name in ``config.experiment.also``.
    """
    house, started = House(), time.monotonic()
    words = [word for word in overrides if not word.startswith("experiment")]
    narrowed = [word for word in overrides if word.partition("=")[0] in {f"experiment.{name}" for name in SHORT}]
    for name in config.experiment.also:  # what is wrong is said before anything runs
        settings(name, [*words, *narrowed])
    console.print(f"planning profile [bold]{config.experiment.name}[/bold] ...", highlight=False)
    learning, planned = plan(house, config, words)
    left = sum(unit.amount for unit in units_of(learning, planned))
    finished = sum(bool(item.job.run_dir.done) for item in planned)
    console.print(f"{len(planned)} cells ({finished} finished before), {left} task executions left", highlight=False)
    run_planned(house, learning, planned, console)
    if not left:  # nothing new to report: what is tracked is tracked once
        config = replace(config, tracking=replace(config.tracking, mode=TrackingMode.NONE))
    folder, names = results_folder(config), {item.job.config.backbone.name: None for item in planned}
    for name in names:  # one set of tables a backbone; in a folder of its own where there are several
        part = [item for item in planned if item.job.config.backbone.name == name]
        write_results(config, part, folder / name if len(names) > 1 else folder, command, console)
    for name in config.experiment.also:
        experiment(name, [*words, *narrowed], command, console, house)
    if config.experiment.also and len(names) == 1:  # the report again, with what came after it
        write_pictures(folder, command)
    console.print(f"all done in {clock(time.monotonic() - started)}", highlight=False)
    return folder


def write_results(config: Config, planned: Sequence[Planned], folder: Path, command: str, console: Console) -> None:
    """Tables, figures and report of one backbone's finished cells, printed and tracked."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for item in planned:
        rows.setdefault(item.cell.artefact, []).append(table_row(item.job, item.cell.artefact))
    for artefact, part in rows.items():
        write_csv(folder / f"{artefact}.csv", part)
    differences = compare(planned)
    _write_differences(folder, differences)
    files = write_pictures(folder, command)
    with track(
        config.tracking, Path(config.machine.runs_dir), f"profile {config.experiment.name}", resolved(config)
    ) as tracker:
        for artefact, part in rows.items():
            tracker.table(artefact, part)
        tracker.figures(files)
    show(folder, console)


def write_pictures(folder: Path, command: str) -> list[Path]:
    """Figures and report from the tables of a results folder, and from nothing else.

    Tables of all methods that lie in the folder ``methods`` inside it are in the report too.

    Raises:
        ValueError: The folder holds no table.
    """
    tables = read_tables(folder)
    files = draw_all(tables, folder / "figures")
    methods = read_methods(folder / "methods")
    write_report(folder / "report.html", tables, files, command, _read_differences(folder), methods)
    return files


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """The result tables of a folder, the main table first.

    Raises:
        ValueError: The folder holds none.
    """
    files = sorted(folder.glob("*.csv"), key=lambda file: (file.stem != "main_table", file.stem))
    tables = {file.stem: read_csv(file) for file in files if is_result_table(file)}
    if not tables:
        raise ValueError(f"{folder} holds no result tables; `graphflow reproduce` writes them")
    return tables


def show(folder: Path, console: Console) -> None:
    """Print the headline and where everything is."""
    for name, frame in read_tables(folder).items():
        console.print(headline(frame, name))
    files = (*sorted(folder.glob("*.csv")), folder / "figures", folder / "report.html")
    console.print("written: " + ", ".join(str(file) for file in files), highlight=False)


def compare(planned: Sequence[Planned]) -> list[Difference]:
    """Paired differences of the pairs of series that were both run, over all benchmarks together."""
    scores: dict[tuple[str, str, str], dict[str, float]] = {}
    for item in planned:
        config = item.job.config
        key = (config.method.name, config.kv.mode.value, scope_of(config.kv))
        run = {f"{config.backbone.name} {name}": score for name, score in scores_of([item]).items()}
        scores.setdefault(key, {}).update(run)
    found = []
    for ours, theirs in PAIRS:
        if ours in scores and theirs in scores and set(scores[ours]) & set(scores[theirs]):
            shared = len(set(scores[ours]) & set(scores[theirs]))
            interval = paired_difference(scores[ours], scores[theirs])
            found.append(Difference(_label(ours), _label(theirs), shared, interval))
    return found


def _label(key: tuple[str, str, str]) -> str:
    return f"{key[0]}, {state_label(key[1], key[2])}"


def _write_differences(folder: Path, differences: Sequence[Difference]) -> None:
    rows = [
        {"ours": d.ours, "theirs": d.theirs, "tasks": d.tasks, **{k: round(v, 6) for k, v in vars(d.interval).items()}}
        for d in differences
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(["ours", "theirs", "tasks", "mean", "low", "high"]))
    partial = folder / f"{DIFFERENCES}.csv.partial"
    frame.to_csv(partial, index=False)
    partial.replace(folder / f"{DIFFERENCES}.csv")


def _read_differences(folder: Path) -> list[Difference]:
    file = folder / f"{DIFFERENCES}.csv"
    if not file.exists():
        return []
    rows = pd.read_csv(file).to_dict("records")
    return [Difference(r["ours"], r["theirs"], int(r["tasks"]), Interval(r["mean"], r["low"], r["high"])) for r in rows]
