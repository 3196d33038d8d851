"""The figures: drawn from result tables only, as PNG and SVG, in one style that colour-blind readers can read too.

Every series has its own colour (Okabe and Ito, 2008), marker and place, so that none of the three is needed alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from graphflow.experiment.tables import by_series, state_label

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Quantised states and the head's are light forms of their kin, with another marker.
STATE_COLOURS = (*COLOURS, "#66A9D9", "#A6CDE8", "#EFA97C", "#7FCDB4", "#00664B", "#999999")
STATE_MARKERS = (*MARKERS, "<", ">", "p", "d", "8", "h")
STATES = (
    "stateful",
    "stateless",
    "differential (path)",
    "differential (request)",
    "no pruning (path)",
    "prefix",
    "operation_first",
    "blend",
    "stateful_int8",
    "stateful_int4",
    "stateless (head)",
    "differential (path, text int4)",
    "differential (path, judges exact)",
)
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "svg.hashsalt": "graphflow",
    "svg.fonttype": "none",
    "figure.dpi": 110,
}


def draw_all(tables: dict[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Draw every figure that the tables have rows for.

    Args:
        tables: Result tables by artefact.
        folder: Where the figures go.

    Returns:
        The PNG files, in the order in which a report shows them; an SVG lies beside each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")  # files only, wherever this runs
    figures: list[tuple[str, Figure]] = []
    main, modes = tables.get("main_table"), tables.get("kv_modes")
    with plt.rc_context(STYLE):
        if main is not None and len(main):
            figures.append(("accuracy_by_method", accuracy_by_method(main)))
        if modes is not None and len(modes):
            figures.append(("kv_against_accuracy", kv_against_accuracy(modes)))
            figures.append(("kept_by_mode", kept_by_mode(modes)))
            figures.append(("p90_by_mode", p90_by_mode(modes)))
        flights = [frame for name, frame in tables.items() if name.startswith("concurrency_") and len(frame)]
        if flights:
            figures.append(("concurrency", concurrency(pd.concat(flights))))
        return [save(figure, folder / name) for name, figure in figures]


def save(figure: Figure, stem: Path) -> Path:
    """Write PNG and SVG and close the figure; the PNG's path."""
    figure.savefig(stem.with_suffix(".svg"), bbox_inches="tight", metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), bbox_inches="tight", dpi=150)
    plt.close(figure)
    return stem.with_suffix(".png")


def accuracy_by_method(frame: pd.DataFrame) -> Figure:
    """Metric of every method on every benchmark, with 95 % intervals."""
    benchmarks, series = _unique(frame, "benchmark"), _methods(frame)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(2.0 + 1.75 * len(benchmarks), 3.8))
        _dots(axes, frame, benchmarks, series)
        axes.set_ylim(-0.04, 1.04)
        axes.set_ylabel("accuracy, F1 or pass@1")
        axes.set_xticks(range(len(benchmarks)), [_tick(frame, name) for name in benchmarks])
        axes.set_title("Methods on the test split, mean and 95 % interval over tasks", pad=12)
        _legend_right(axes)
    return figure


def kv_against_accuracy(frame: pd.DataFrame) -> Figure:
    """Operation state kept a task against the metric, a panel a benchmark, a mark a mode: up and left is better."""
    benchmarks, series = _unique(frame, "benchmark"), _states(frame)
    with plt.rc_context(STYLE):
        columns = min(len(benchmarks), 3)
        rows = -(-len(benchmarks) // columns)
        size = (3.4 * columns, 2.7 * rows + 0.5)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
        panels = list(grid.flat)
        for axes, benchmark in zip(panels, benchmarks, strict=False):
            axes.set_title(benchmark)
            for label, group in series.items():
                row = group[group["benchmark"] == benchmark]
                if len(row):
                    _kept_mark(axes, row, label)
            axes.xaxis.set_tick_params(labelbottom=True)
        _kilobyte_axis(panels[0], frame)
        for axes in panels[len(benchmarks) :]:
            axes.set_axis_off()
        for axes in panels[::columns]:
            axes.set_ylabel("accuracy, F1 or pass@1")
        figure.supxlabel("operation state kept a task, kB (a request's own text comes on top of it)", fontsize=10)
        figure.tight_layout()
        handles, labels = panels[0].get_legend_handles_labels()
        title = "operation state"
        if len(panels) > len(benchmarks):
            panels[-1].legend(handles, labels, loc="center", title=title, alignment="left")
        else:
            figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), title=title, alignment="left")
    return figure


def kept_by_mode(frame: pd.DataFrame) -> Figure:
    """Retained KV a task by state mode and benchmark: operation state, with dynamic text on top of it."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=_wide(frame))
        for x, width, label, rows in _bars(axes, frame):
            colour, _ = look(label)
            kept = [rows[name] / rows["n_tasks"] / 1e3 for name in ("retained_op_bytes", "retained_dynamic_bytes")]
            axes.bar(x, kept[0], width, color=colour, label=label)
            axes.bar(x, kept[1], width, bottom=kept[0], color=colour, alpha=0.25)
        axes.bar(0, 0, color="#808080", alpha=0.35, label="dynamic text, on top")
        axes.set_ylabel("retained KV a task, kB")
        axes.set_title("Retained KV by operation state", pad=12)
        _legend_right(axes, "operation state")
    return figure


def p90_by_mode(frame: pd.DataFrame) -> Figure:
    """P90 latency of whole tasks by state mode and benchmark."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=_wide(frame))
        for x, width, label, rows in _bars(axes, frame):
            axes.bar(x, rows["p90_s"], width, color=look(label)[0], label=label)
        axes.set_ylabel("P90 latency of a task, s")
        axes.set_title(f"P90 latency by operation state ({frame['machine'].iloc[0]})", pad=12)
        _legend_right(axes, "operation state")
    return figure


def concurrency(frame: pd.DataFrame) -> Figure:
    """Resident KV peak and P90 latency against the number of workflows in flight."""
    frame = frame.assign(flight=frame["artefact"].str.rsplit("_", n=1).str[-1].astype(int))
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
        for label, rows in _states(frame).items():
            colour, marker = look(label)
            rows = rows.groupby("flight", as_index=False)[["resident_peak_bytes", "p90_s"]].mean()
            options = {"marker": marker, "color": colour, "label": label}
            left.plot(rows["flight"], rows["resident_peak_bytes"] / 1e6, **options)
            right.plot(rows["flight"], rows["p90_s"], **options)
        for axes, title in ((left, "resident KV peak, MB"), (right, "P90 latency of a task, s")):
            axes.set_title(title)
            axes.set_xlabel("workflows in flight")
            axes.set_ylim(bottom=0)
        _legend_right(right, "operation state")
        figure.tight_layout()
    return figure


def kept_per_task(row: Any) -> float:
    """Retained KV bytes a task, operation state and dynamic text together."""
    return float(row["retained_op_bytes"] + row["retained_dynamic_bytes"]) / float(row["n_tasks"])


def _methods(frame: pd.DataFrame) -> dict[str, Any]:
    """Rows by method; the state mode is named only where one method was run in several."""
    series = by_series(frame)
    states = Counter(method for method, _, _ in series)
    return {
        f"{method}, {state_label(mode, scope)}" if states[method] > 1 else method: rows
        for (method, mode, scope), rows in series.items()
    }


def _states(frame: pd.DataFrame) -> dict[str, Any]:
    labelled: dict[str, Any] = {}
    for (_, mode, scope), rows in by_series(frame).items():
        label = state_label(mode, scope)
        labelled[label] = pd.concat([labelled[label], rows]) if label in labelled else rows
    return labelled


def _dots(axes: Axes, frame: pd.DataFrame, benchmarks: Sequence[str], series: dict[str, Any]) -> None:
    step = 0.7 / max(len(series), 1)
    for place, (label, rows) in enumerate(series.items()):
        chosen = rows.set_index("benchmark").reindex(benchmarks).reset_index()
        x = np.arange(len(benchmarks)) + (place - (len(series) - 1) / 2) * step
        axes.errorbar(
            x,
            chosen["metric"],
            yerr=_error(chosen),
            fmt=MARKERS[place % len(MARKERS)],
            color=COLOURS[place % len(COLOURS)],
            markersize=7,
            elinewidth=1.4,
            label=label,
        )
    for edge in range(1, len(benchmarks)):
        axes.axvline(edge - 0.5, color="#E4E4E4", linewidth=0.8)
    axes.set_xlim(-0.5, len(benchmarks) - 0.5)
    axes.grid(axis="x", visible=False)


def _error(rows: Any) -> np.ndarray:
    below, above = rows["metric"] - rows["metric_lo"], rows["metric_hi"] - rows["metric"]
    return np.clip(np.array([below, above], dtype=np.float64), 0, None)


def _bars(axes: Axes, frame: pd.DataFrame) -> Iterator[tuple[np.ndarray, float, str, Any]]:
    """Places, width, label and rows (one a benchmark, in order) of each state mode's bars."""
    benchmarks, series = _unique(frame, "benchmark"), _states(frame)
    step = 0.8 / len(series)
    axes.set_xticks(range(len(benchmarks)), benchmarks)
    axes.grid(axis="x", visible=False)
    for place, (label, rows) in enumerate(series.items()):
        x = np.arange(len(benchmarks)) + (place - (len(series) - 1) / 2) * step
        yield x, step * 0.92, label, rows.set_index("benchmark").reindex(benchmarks).reset_index()


def _wide(frame: Any) -> tuple[float, float]:
    return 2.0 + 1.75 * frame["benchmark"].nunique(), 3.6


def _unique(frame: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(frame[column])]


def _tick(frame: Any, benchmark: str) -> str:
    rows = frame[frame["benchmark"] == benchmark]
    return f"{benchmark}\n{rows['metric_name'].iloc[0]}, n = {int(rows['n_tasks'].max())}"


def _kept_mark(axes: Axes, row: Any, label: str) -> None:
    item, (colour, marker) = row.iloc[0], look(label)
    kept = float(item["retained_op_bytes"]) / float(item["n_tasks"]) / 1e3
    options = {"fmt": marker, "color": colour, "markersize": 8, "elinewidth": 1.4, "label": label}
    axes.errorbar(kept, float(item["metric"]), yerr=_error(row), **options)


def look(label: str) -> tuple[str, str]:
    """Colour and marker of a state mode, the same in every figure."""
    place = STATES.index(label) if label in STATES else len(STATES)
    return STATE_COLOURS[place], STATE_MARKERS[place]


def _kilobyte_axis(axes: Axes, frame: Any) -> None:
    kept = (frame["retained_op_bytes"] / frame["n_tasks"] / 1e3).clip(lower=1e-3)
    axes.set_xscale("log")
    axes.set_xlim(kept.min() / 1.8, kept.max() * 1.8)
    decades = np.log10(kept.max() / kept.min())
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 1 else (1.0, 2.0, 5.0), numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(-0.04, 1.04)


def _legend_right(axes: Axes, title: str | None = None) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=title, alignment="left")
