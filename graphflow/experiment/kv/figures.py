"""Figures of the experiments on operation state, from their tables alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from graphflow.experiment.plots import (
    COLOURS,
    MARKERS,
    STYLE,
    kept_by_mode,
    kv_against_accuracy,
    look,
    p90_by_mode,
    save,
)

FLOOR = 1e-8
"""Divergences below this, rounding of exact state, are drawn at it."""


def draw_modes(frame: Any, folder: Path) -> list[Path]:
    """Bytes against accuracy, what is kept, and P90, for every backbone; methods beyond the first have their own.

    Bytes are those of a task where as many requests share the store as the table says.
    """
    kinds = {"kv_modes": kv_against_accuracy, "kv_modes_kept": kept_by_mode, "kv_modes_p90": p90_by_mode}
    files = []
    frame = frame.assign(retained_op_bytes=(frame["op_bytes_a_task"] * frame["n_tasks"]).clip(lower=1))
    for place, (method, part) in enumerate(frame.groupby("method", sort=False)):
        for name, figure in kinds.items():
            files += _by_backbone(part, folder, f"{name}_{method}" if place else name, figure)
    return files


def draw_codecs(frame: Any, folder: Path) -> list[Path]:
    """Operation bytes a task against divergence and agreement, a curve a codec; one figure a backbone.

    A control that had nothing to serve ran every prompt exactly: its point, that of exact state, is left out.
    """
    frame = frame[(frame["control"] == "none") | (frame["fallback_rate"] < 1)]

    def figure(part: Any) -> Figure:
        benchmarks = list(dict.fromkeys(part["benchmark"]))
        size = (5.0 * len(benchmarks) + 3.4, 7.0)
        drawn, grid = plt.subplots(2, len(benchmarks), figsize=size, squeeze=False, sharex=True)
        labels = list(dict.fromkeys(part["label"]))
        for column, benchmark in enumerate(benchmarks):
            own = part[part["benchmark"] == benchmark]
            for place, label in enumerate(labels):
                rows = own[own["label"] == label].sort_values("op_bytes_a_task")
                kilobytes = rows["op_bytes_a_task"] / 1e3
                grid[0][column].plot(kilobytes, rows["kl_mean"].clip(lower=FLOOR), label=label, **_cycle(place))
                grid[1][column].plot(kilobytes, rows["greedy_agreement"], label=label, **_cycle(place))
            grid[0][column].set(title=benchmark, xscale="log", yscale="log", ylabel="KL from exact state, nats")
            requests = "operation state a task, kB"
            lowest = float(part["greedy_agreement"].min())
            grid[1][column].set(ylabel="greedy agreement", xlabel=requests, ylim=(max(0.0, lowest - 0.05), 1.02))
            for axes in (grid[0][column], grid[1][column]):
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
                axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
        return _legend(drawn, grid[0][-1])

    return _by_backbone(frame, folder, "kv_codecs", figure)


def draw_similarity(frame: Any, positions: Any, shares: list[str], folder: Path) -> list[Path]:
    """Share of entries below a threshold, residual by layer, and energy by token; one figure a backbone."""

    def figure(part: Any) -> Figure:
        drawn, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 3.8))
        for place, ((side, frame_name), rows) in enumerate(part.groupby(["side", "frame"], sort=False)):
            if side == "V" and frame_name == "in place":
                continue  # values have no position
            whole, layers = rows[rows["layer"] == "all"].iloc[0], rows[rows["layer"] != "all"]
            label, style = f"{side}, {frame_name}", _cycle(place)
            left.plot([float(name.removeprefix("below_")) for name in shares], whole[shares], label=label, **style)
            value = layers["relative_norm"].astype(float)
            around = [value - layers["relative_lo"], layers["relative_hi"] - value]
            middle.errorbar(layers["layer"].astype(int), value, yerr=np.clip(around, 0, None), label=label, **style)
        own = positions[positions["backbone"] == part["backbone"].iloc[0]]
        for place, (side, rows) in enumerate(own.groupby("side", sort=False)):
            right.plot(rows["position"], rows["energy_share"], label=side, **_cycle(place))
        left.axhline(0.75, linestyle=":", color="#000000", linewidth=1, label="paper: K above .75, V above .70")
        left.set(xscale="log", ylim=(0, 1.02), xlabel="threshold / RMS of the base", ylabel="share of entries below")
        middle.set(xlabel="layer", ylabel="norm of residual / norm of base", ylim=(0, None))
        middle.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(xlabel="token of the prompt", ylabel="share of the residual's energy (moved)", ylim=(0, None))
        for axes in (left, middle, right):
            axes.legend(fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
        drawn.tight_layout()
        return drawn

    return _by_backbone(frame, folder, "similarity", figure)


def draw_stream(frame: Any, name: str, folder: Path) -> list[Path]:
    """Reuse, fallbacks, bytes and P90 along a stream, a line a setting; one figure a backbone."""
    panels: dict[str, tuple[str, float]] = {
        "operation_reuse_share": ("operation-prompt tokens reused", 1),
        "fallback_rate": ("steps that ran exactly", 1),
        "store_bytes_max": ("store at its fullest, MB", 1e6),
        "p90_s": ("P90 latency, s", 1),
    }

    def figure(part: Any) -> Figure:
        drawn, grid = plt.subplots(2, 2, figsize=(11, 6.2), sharex=True)
        for axes, (column, (title, unit)) in zip(grid.flat, panels.items(), strict=True):
            for place, (label, rows) in enumerate(part.groupby("label", sort=False)):
                axes.plot(rows["last_episode"], rows[column] / unit, label=label, **_cycle(place))
            axes.set_title(title)
            axes.set_ylim(0, 1.02 if column in ("operation_reuse_share", "fallback_rate") else None)
            _shifts(axes, part)
        budgets = [value for value in dict.fromkeys(part["budget_bytes"]) if value > 0]
        for budget in budgets:
            grid[1][0].axhline(budget / 1e6, linestyle="--", color="#000000", linewidth=1)
        for axes in grid[1]:
            axes.set_xlabel("episodes served")
        return _legend(drawn, grid[0][1])

    return _by_backbone(frame, folder, name, figure)


def draw_pruning(frame: Any, folder: Path) -> list[Path]:
    """Coverage threshold against bytes, fallback rate and P90 in the settled half of each phase."""
    columns: dict[str, tuple[str, float]] = {
        "residual_bytes": ("residuals stored, kB", 1e3),
        "own_op_bytes_a_task": ("requests' own operation state a task, kB", 1e3),
        "fallback_rate": ("steps that ran exactly", 1),
        "p90_s": ("P90 latency of a task, s", 1),
    }

    def figure(part: Any) -> Figure:
        drawn, grid = plt.subplots(1, len(columns), figsize=(15, 3.4))
        for axes, (column, (title, unit)) in zip(grid, columns.items(), strict=True):
            for place, (phase, rows) in enumerate(part.groupby("phase", sort=False)):
                axes.plot(rows["coverage"], rows[column] / unit, label=f"phase {phase}", **_cycle(place))
            axes.set(title=title, xlabel="coverage threshold (1: no pruning)", ylim=(0, None))
        return _legend(drawn, grid[-1])

    return _by_backbone(frame, folder, "pruning", figure)


def draw_horizon(frame: Any, folder: Path) -> list[Path]:
    """Divergence, agreement and bytes against the operations in a chain, a line a state mode.

    Chains whose contexts are longer than those that the backbone was trained on are shaded.
    """
    panels = {
        "kl_at_end": ("KL over the last operations, nats", 1.0),
        "agreement_at_end": ("greedy agreement over the last operations", 1.0),
        "op_bytes_a_task": ("operation state a task, kB", 1e3),
    }

    def figure(part: Any) -> Figure:
        drawn, grid = plt.subplots(1, 3, figsize=(13, 3.8))
        for axes, (column, (title, unit)) in zip(grid, panels.items(), strict=True):
            for label, rows in part.groupby("state", sort=False):
                colour, marker = look(str(label))
                values = rows[column].clip(lower=FLOOR) if column == "kl_at_end" else rows[column] / unit
                axes.plot(rows["length"], values, color=colour, marker=marker, label=label)
            axes.set(title=title, xlabel="operations in the chain", xscale="log")
            if (beyond := part[part["context_tokens"] > part["longest_context"]])["length"].any():
                start = (beyond["length"].min() * part[part["length"] < beyond["length"].min()]["length"].max()) ** 0.5
                axes.axvspan(start, axes.get_xlim()[1], color="#dddddd", zorder=0, label="beyond trained contexts")
            axes.set_xticks(lengths := sorted(set(part["length"])), [str(length) for length in lengths])
            axes.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
        grid[0].set_yscale("log")
        grid[2].set_yscale("log")
        grid[1].set_ylim(-0.02, 1.02)
        return _legend(drawn, grid[2])

    return _by_backbone(frame, folder, "long_horizon", figure)


def draw_layouts(frame: Any, crossings: Any, name: str, folder: Path) -> list[Path]:
    """Tokens, bytes and P90 against the text's tokens, a panel a number of calls, a line a state mode.

    Dotted lines stand where a mode and operation first are equal.
    """
    panels = {
        "prefill_tokens": ("tokens prefilled a task", 1.0),
        "op_bytes_a_task": ("of prompts alone, kB", 1e3),
        "bytes_a_task": ("KV retained a task, kB", 1e3),
        "p90_s": ("P90 latency of a task, s", 1.0),
    }
    places: Any = pd.to_numeric(crossings["crossing"], errors="coerce")

    def figure(part: Any) -> Figure:
        counts = sorted(set(part["calls"]))
        size = (3.6 * len(counts) + 2, 2.7 * len(panels))
        drawn, grid = plt.subplots(len(panels), len(counts), figsize=size, sharex=True, sharey="row", squeeze=False)
        for line, (column, (title, unit)) in zip(grid, panels.items(), strict=True):
            for axes, calls in zip(line, counts, strict=True):
                for place, (label, rows) in enumerate(part[part["calls"] == calls].groupby("state", sort=False)):
                    colour, marker = look(str(label))
                    sizes = {"linewidth": max(1.0, 4 - 0.6 * place), "markersize": max(4, 10 - place)}  # many coincide
                    style = {"color": colour, "marker": marker, "label": label, **sizes}
                    axes.plot(rows["text_tokens"], rows[column] / unit, **style)
                    same = (crossings["backbone"] == part["backbone"].iloc[0]) & (crossings["calls"] == calls)
                    same &= (crossings["state"] == label) & (crossings["measure"] == column)
                    for equal in places[same].dropna():
                        axes.axvline(equal, linestyle=":", color=colour, linewidth=1.2)
                axes.set(xscale="log", yscale="log")
                axes.set_xticks(texts := sorted(set(part["text_tokens"])), [str(text) for text in texts])
                axes.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
            line[0].set_ylabel(title)
        for axes, calls in zip(grid[0], counts, strict=True):
            axes.set_title(f"{calls} calls")
        for axes in grid[-1]:
            axes.set_xlabel("tokens of the task's text")
        return _legend(drawn, grid[0][-1])

    return _by_backbone(frame[frame["skipped"].isna()], folder, name, figure)


def _by_backbone(frame: Any, folder: Path, name: str, figure: Callable[[Any], Figure]) -> list[Path]:
    """One figure a backbone, which is named above it with its kind."""

    def titled(part: Any) -> Figure:
        drawn, title = figure(part), f"{part['backbone'].iloc[0]} ({part['kind'].iloc[0]})"
        if "requests" in part:
            title += f", the store shared by {int(part['requests'].iloc[0]):,} requests"
        drawn.suptitle(title, x=0.01, y=1.0, ha="left", va="bottom", fontsize=11)
        return drawn

    return [
        file
        for backbone, part in frame.groupby("backbone", sort=False)
        for file in _drawn(folder, f"{name}_{backbone}", lambda part=part: titled(part))
    ]


def _drawn(folder: Path, stem: str, figure: Callable[[], Figure]) -> list[Path]:
    """Draw one figure as PNG and SVG; the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")  # files only, wherever this runs
    with plt.rc_context(STYLE):
        return [save(figure(), folder / stem.replace(".", "_"))]


def _cycle(place: int) -> dict[str, Any]:
    """Colour and marker of a curve; after all colours the line style changes too."""
    styles = ("-", "--", ":")
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
        "linestyle": styles[place // len(COLOURS) % len(styles)],
        "markersize": 5,
        "linewidth": 1.3,
    }


def _shifts(axes: Axes, part: Any) -> None:
    """A line where the workload changes."""
    ends = part.groupby("phase", sort=False)["last_episode"].max().tolist()
    for end in ends[:-1]:
        axes.axvline(end, linestyle=":", color="#808080", linewidth=1)


def _legend(figure: Figure, axes: Axes) -> Figure:
    figure.tight_layout()
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return figure
