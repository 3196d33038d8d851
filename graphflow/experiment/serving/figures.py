"""Figures of the experiments on serving, from their tables alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphflow.experiment.plots import COLOURS, MARKERS, STYLE, look, save
from graphflow.experiment.serving.runs import System

RIVALS = {System.GENERATE.value: ("#000000", "X"), System.CONTINUOUS.value: ("#8C8C00", "*")}
NAMES = {"closed": "closed loop", "poisson": "Poisson arrivals", "bursts": "arrivals in bursts"}


def draw_concurrency(frame: Any, folder: Path) -> list[Path]:
    """Resident KV and tasks a second against workflows in flight: median of repeats, lowest to highest shaded.

    Dotted and hollow: attention that reads what contexts of a batch have in common once.
    """
    panels = {"resident_mb": "resident KV at its peak, MB", "tasks_s": "tasks a second"}

    def figure(part: Any) -> Figure:
        drawn, grid = plt.subplots(1, len(panels), figsize=(10.5, 4.0))
        for axes, (column, title) in zip(grid, panels.items(), strict=True):
            for label, rows in part.groupby("label", sort=False):
                _line(axes, rows, column, str(label))
            flights = sorted(set(part["in_flight"]))
            axes.set(title=title, xlabel="workflows in flight", ylim=(0, None), xlim=(0, max(flights) * 1.03))
            axes.set_xticks([flight for flight in flights if flight == 1 or flight % 10 == 0 or len(flights) < 6])
        drawn.tight_layout()
        handles, labels = grid[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return drawn

    return _by_backbone(frame, folder, "concurrency", figure)


def draw_scheduling(frame: Any, folder: Path) -> list[Path]:
    """P90 latency and tasks a second by scheduler, a column a kind of arrivals: every repeat, and the median."""
    panels = {"p90_s": "P90 latency of a task, s", "tasks_s": "tasks a second"}

    def figure(part: Any) -> Figure:
        kinds, schedulers = list(dict.fromkeys(part["arrivals"])), list(dict.fromkeys(part["scheduler"]))
        size = (2.2 + 3.4 * len(kinds), 5.6)
        drawn, grid = plt.subplots(len(panels), len(kinds), figsize=size, sharex=True, squeeze=False)
        for line, (column, title) in zip(grid, panels.items(), strict=True):
            for axes, kind in zip(line, kinds, strict=True):
                for place, scheduler in enumerate(schedulers):
                    own = part[(part["arrivals"] == kind) & (part["scheduler"] == scheduler)][column]
                    axes.plot([place] * len(own), own, "o", color=COLOURS[place], alpha=0.35, markersize=5)
                    axes.plot(place, own.median(), MARKERS[place], color=COLOURS[place], markersize=9)
                most = part[part["arrivals"] == kind][column].max()
                axes.set(ylim=(0, 1.12 * most), xlim=(-0.5, len(schedulers) - 0.5))
                names = [name.replace("_", "\n").replace(", ", "\n+ ") for name in schedulers]
                axes.set_xticks(range(len(schedulers)), names, fontsize=8)
                axes.grid(axis="x", visible=False)
            line[0].set_ylabel(title)
        for axes, kind in zip(grid[0], kinds, strict=True):
            axes.set_title(NAMES.get(kind, kind))
        drawn.align_ylabels(list(grid[:, 0]))
        drawn.tight_layout()
        return drawn

    return _by_backbone(frame, folder, "scheduling", figure)


def _line(axes: Axes, rows: Any, column: str, label: str) -> None:
    """One series, with what lies between its lowest and highest repeat."""
    system = rows["system"].iloc[0]
    colour, marker = RIVALS[system] if system in RIVALS else look(rows["state"].iloc[0])
    shared = rows["attention"].iloc[0] == "shared"
    by_flight = rows.groupby("in_flight")[column]
    middle, low, high = by_flight.median(), by_flight.min(), by_flight.max()
    style: dict[str, Any] = {"color": colour, "marker": marker, "fillstyle": "none" if shared else "full"}
    style["linestyle"] = ":" if shared else "--" if system in RIVALS else "-"
    axes.plot(middle.index, middle, label=label, markersize=6, linewidth=1.5, **style)
    axes.fill_between(middle.index, low, high, color=colour, alpha=0.12, linewidth=0)


def _by_backbone(frame: Any, folder: Path, name: str, figure: Callable[[Any], Figure]) -> list[Path]:
    """One figure a backbone, which is named above it, as PNG and SVG; the PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")  # files only, wherever this runs
    files = []
    with plt.rc_context(STYLE):
        for backbone, part in frame.groupby("backbone", sort=False):
            drawn = figure(part)
            title = f"{backbone} ({part['kind'].iloc[0]}), {part['machine'].iloc[0]}"
            drawn.suptitle(title, x=0.01, y=1.0, ha="left", va="bottom", fontsize=11)
            files.append(save(drawn, folder / f"{name}_{backbone}".replace(".", "_")))
    return files
