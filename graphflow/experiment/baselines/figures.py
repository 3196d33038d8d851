"""Figures of the main table: a row a method, a column a backbone; score with its interval, and P90 beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphflow.experiment.plots import STYLE, look, save

STATES = (("stateful", -0.16), ("differential (path)", 0.16))
"""State modes, and how far from a method's line their marks are."""


def draw_main_table(frame: Any, folder: Path) -> list[Path]:
    """Draw scores and P90 of the means over benchmarks.

    Args:
        frame: Rows of `main_table`.
        folder: Where the figures go.

    Returns:
        The PNG files; an SVG lies beside each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")
    means = frame[frame["benchmark"] == "mean"]
    return [save(scores(means), folder / "main_table"), save(latencies(means), folder / "p90")]


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
    """P90 latency of a task, in the mean over benchmarks."""
    backbones = _names(means, "backbone")
    timed = means[means["p90_s"].notna()]
    methods = _names(timed, "method")
    with plt.rc_context(STYLE):
        figure, panels = _panels(len(backbones), len(methods))
        for axes, backbone in zip(panels, backbones, strict=True):
            part = timed[timed["backbone"] == backbone]
            for label, shift in STATES:
                rows, y = _placed(part, label, methods, shift)
                axes.barh(y, rows["p90_s"], 0.3, color=look(label)[0], label=label)
            axes.set_title(backbone)
            axes.set_xlabel("P90 of a task, s")
        return _finished(figure, panels, methods, timed)


def _panels(columns: int, lines: int) -> tuple[Figure, list[Axes]]:
    size = (1.8 + 2.6 * columns, 1.4 + 0.34 * lines)
    figure, grid = plt.subplots(1, columns, figsize=size, sharey=True, squeeze=False)
    return figure, list(grid.flat)


def _placed(part: Any, label: str, methods: list[str], shift: float) -> tuple[Any, np.ndarray]:
    rows = part[part["state"] == label]
    return rows, np.array([methods.index(name) for name in rows["method"]]) + shift


def _finished(figure: Figure, panels: list[Axes], methods: list[str], means: Any) -> Figure:
    scripted = set(means[means["scripted"].fillna("") != ""]["method"])
    panels[0].set_yticks(range(len(methods)), [f"{name} *" if name in scripted else name for name in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    for axes in panels:
        axes.grid(axis="y", visible=False)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), title="operation state", alignment="left")
    if scripted:
        note = "* a script writes plans, edits or flows in place of the model"
        figure.text(0.01, -0.02, note, fontsize=8, ha="left", va="top")
    figure.tight_layout()
    return figure


def _names(frame: Any, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(frame[column])]
