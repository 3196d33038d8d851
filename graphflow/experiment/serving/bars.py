"""Ratios of ours to the others within a repeat, and the bars that were set before anything was measured."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

from graphflow.experiment.serving.runs import System

RATIOS = ("tasks_s", "tokens_s", "p90_s", "resident_mb")
SIGNS = {"<=": operator.le, ">=": operator.ge, ">": operator.gt}
OURS = "ours"
Place = tuple[str, int]
"""A label (`OURS` for the one that a bar is for, another state or attention by name) and tasks in flight."""


@dataclass(frozen=True)
class Bar:
    """A bound on one number over another.

    Attributes:
        name: What is asked for, in words.
        measure: Column.
        over: Where the numerator stands.
        under: Where the denominator stands.
        sign: Between ratio and bound.
        bound: The bound.
    """

    name: str
    measure: str
    over: Place
    under: Place
    sign: str
    bound: float


STATEFUL, GENERATE, CONTINUOUS = "stateful, dense", "HF generate, padded", "HF continuous batching"
DENSE, SHARED = ", dense", ", shared"
BARS = (
    Bar("operation state at 50 in flight over that at 10", "operation_mb", (OURS, 50), (OURS, 10), "<=", 1.1),
    Bar("resident KV of stateful over ours at 50", "resident_mb", (STATEFUL, 50), (OURS, 50), ">=", 4.0),
    Bar("tasks a second at 32 over one at a time", "tasks_s", (OURS, 32), (OURS, 1), ">=", 4.0),
    Bar("tasks a second over padded generate at 32", "tasks_s", (OURS, 32), (GENERATE, 32), ">=", 1.5),
    Bar("tasks a second over continuous batching at 32", "tasks_s", (OURS, 32), (CONTINUOUS, 32), ">", 1.0),
    Bar("P90 of padded generate over ours at 32", "p90_s", (GENERATE, 32), (OURS, 32), ">=", 1.5),
)
ATTENTION = (
    Bar("tasks a second, shared over dense, at 8", "tasks_s", (SHARED, 8), (DENSE, 8), ">=", 1.0),
    Bar("tasks a second, shared over dense, at 32", "tasks_s", (SHARED, 32), (DENSE, 32), ">", 1.0),
)


def ratios(frame: Any) -> list[dict[str, Any]]:
    """Ours over each of the others at the same number in flight, repeat by repeat; a row a pair and measure."""
    rows = []
    for (backbone, flight), part in frame.groupby(["backbone", "in_flight"], sort=False):
        series = dict(iter(part.groupby("label", sort=False)))
        ours = [label for label, own in series.items() if own["system"].iloc[0] == System.ENGINE.value]
        for label, other, measure in product(ours, series, RATIOS):
            if other == label or (other in ours and other != STATEFUL):
                continue
            found = paired(frame, backbone, measure, (label, flight), (other, flight))
            if not found:
                continue
            rows.append(
                {
                    "backbone": backbone,
                    "label": label,
                    "beside": other,
                    "in_flight": flight,
                    "measure": measure,
                    **spread(found),
                    "n_tasks": int(series[label]["n_tasks"].min()),
                    "n_tasks_beside": int(series[other]["n_tasks"].min()),
                }
            )
    return rows


def bars(frame: Any) -> list[dict[str, Any]]:
    """Every bar for each of our differential settings, the two of attention for each that ran with both."""
    rows = []
    for backbone, part in frame.groupby("backbone", sort=False):
        ours = list(dict.fromkeys(part[part["kv_mode"] == "differential"]["label"]))
        for label in ours:
            rows += [_row(part, backbone, label, bar, {OURS: label}) for bar in BARS]
        for state in dict.fromkeys(label.rpartition(", ")[0] for label in ours):
            both = {DENSE: state + DENSE, SHARED: state + SHARED}
            rows += [_row(part, backbone, state, bar, both) for bar in ATTENTION if set(both.values()) <= {*ours}]
    return rows


def _row(frame: Any, backbone: str, label: str, bar: Bar, names: dict[str, str]) -> dict[str, Any]:
    over, under = ((names.get(name, name), flight) for name, flight in (bar.over, bar.under))
    found = paired(frame, backbone, bar.measure, over, under)
    met = ("yes" if SIGNS[bar.sign](median(found), bar.bound) else "no") if found else "not measured"
    needed = f"{bar.sign} {bar.bound:g}"
    return {"backbone": backbone, "label": label, "bar": bar.name, "needed": needed, **spread(found), "met": met}


def paired(frame: Any, backbone: str, measure: str, over: Place, under: Place) -> list[float]:
    """A measure at one place over that at another, for every repeat that has both."""

    def values(place: Place) -> dict[int, float]:
        rows = frame[(frame["backbone"] == backbone) & (frame["label"] == place[0]) & (frame["in_flight"] == place[1])]
        return dict(zip(rows["repeat"], rows[measure], strict=True))

    ours, theirs = values(over), values(under)
    return [ours[repeat] / theirs[repeat] for repeat in ours if theirs.get(repeat, 0) > 0]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest over repeats, and how many there were."""
    if not values:
        return {"measured": None, "lowest": None, "highest": None, "repeats": 0}
    return {"measured": median(values), "lowest": min(values), "highest": max(values), "repeats": len(values)}
