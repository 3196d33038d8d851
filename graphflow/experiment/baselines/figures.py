"""Figures of the main table: a row a method, a column a backbone; scores with intervals, and latency percentiles.

Latencies are of the tasks of all benchmarks together, which are as many of each: the paper gives one P90 for five
benchmarks. Which aggregate it took it does not say; the mean of the benchmarks' P90s is in the table as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphflow.experiment.plots import STYLE, look, save

STATES = (("stateful", -0.16), ("differential (path)", 0.16), ("differential (path, text int4)", 0.4))
"""State modes, and how far from a method's line their marks are."""


def draw_main_table(frame: Any, folder: Path, name: str = "main_table") -> list[Path]:
    """Draw scores and P90 of the means over benchmarks.

    Args:
        frame: Rows of `main_table`.
        folder: Where the figures go.
        name: Of the experiment; that of latencies ends in ``p90``.

    Returns:
        The PNG files; an SVG lies beside each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")
    means = frame[frame["benchmark"] == "mean"]
    p90 = "p90" if name == "main_table" else f"{name}_p90"
    return [save(scores(means), folder / name), save(latencies(means), folder / p90)]


def scores(means: Any) -> Figure:
    """Mean score of every method, with 95 % intervals over tasks; the paper's order, best of ours at the bottom."""
    backbones, methods = _names(means, "backbone"), _names(means, "method")
    with plt.rc_context(STYLE):
        figure, panels = _panels(len(backbones), len(methods))
        for axes, backbone in zip(panels, backbones, strict=True):
            part = means[means["backbone"] == backbone]
            for label, shift in STATES:
                rows, y = _placed(part, label, methods, shift)
                colour, marker = look(label)
                spread = [rows["metric"] - rows["metric_lo"], rows["metric_hi"] - rows["metric"]]
                values = (100 * rows["metric"], y, None, 100 * np.clip(np.array(spread, dtype=float), 0, None))
                axes.errorbar(*values, fmt=marker, color=colour, elinewidth=1.4, label=label)
            axes.set_title(backbone)
            axes.set_xlabel("score, %")
            axes.set_xlim(0, 100)
        return _finished(figure, panels, methods, means)


def latencies(means: Any) -> Figure:
    """Latency of a task: P90 as a mark, a line from P50 to P99, and how far AFlow's P90 on stateful reaches."""
    backbones = _names(means, "backbone")
    timed = means[means["p90_all_s"].notna()]
    methods = _names(timed, "method")
    with plt.rc_context(STYLE):
        figure, panels = _panels(len(backbones), len(methods))
        for axes, backbone in zip(panels, backbones, strict=True):
            part = timed[timed["backbone"] == backbone]
            for label, shift in STATES:
                rows, y = _placed(part, label, methods, shift)
                colour, marker = look(label)
                if {"p50_all_s", "p99_all_s"} <= set(rows.columns):
                    axes.hlines(y, rows["p50_all_s"], rows["p99_all_s"], color=colour, linewidth=1.4)
                axes.plot(rows["p90_all_s"], y, marker, color=colour, label=label)
            beside = part[(part["method"] == "aflow") & (part["state"] == "stateful")]["p90_all_s"]
            for seconds in beside:
                axes.axvline(
                    seconds, color="#808080", linewidth=1, linestyle=(0, (4, 3)), label="AFlow's P90, stateful"
                )
            axes.set_title(backbone)
            axes.set_xlabel("seconds a task")
            axes.set_xlim(left=0)
        return _finished(figure, panels, methods, timed, "Mark: P90 of a task over all benchmarks; line: P50 to P99.")


def _panels(columns: int, lines: int) -> tuple[Figure, list[Axes]]:
    size = (1.8 + 2.6 * columns, 1.4 + 0.34 * lines)
    figure, grid = plt.subplots(1, columns, figsize=size, sharey=True, squeeze=False)
    return figure, list(grid.flat)


def _placed(part: Any, label: str, methods: list[str], shift: float) -> tuple[Any, np.ndarray]:
    rows = part[part["state"] == label]
    return rows, np.array([methods.index(name) for name in rows["method"]]) + shift


def _finished(figure: Figure, panels: list[Axes], methods: list[str], means: Any, *notes: str) -> Figure:
    scripted = set(means[means["scripted"].fillna("") != ""]["method"])
    panels[0].set_yticks(range(len(methods)), [f"{name} *" if name in scripted else name for name in methods])
    panels[0].set_ylim(len(methods) - 0.4, -0.5)
    for axes in panels:
        axes.grid(axis="y", visible=False)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="operation state", alignment="left")
    said = [*notes, *(["* A script writes plans, edits or flows in the model's place."] if scripted else [])]
    figure.text(0.01, -0.02, "\n".join(said), fontsize=8, ha="left", va="top")
    figure.tight_layout()
    return figure


def _names(frame: Any, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(frame[column])]
