"""The bars that operation state is held to, each with what was measured; the bounds were set before anything was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from graphflow.experiment.kv.study import PLAIN, REUSE

PATH, ENCODED, REQUEST = "differential (path)", "differential (path, text int4)", "differential (request)"
FIXED, ANY = "best_fixed", "random"
POINTS = 100


@dataclass(frozen=True)
class Bar:
    """A least value of one measure in one state.

    Attributes:
        text: What is asked, in words.
        state: The state mode.
        measure: Column of the means; ``smaller`` with a column of bytes: stateful's over the state's.
        least: What is asked for.
        kinds: Kinds of backbone that it is asked of.
        method: Whose workflows: the best one of each benchmark, or any (where operations judge).
        unit: What one of the unit is in the table: 100 for points and percent, 1 for ratios.
    """

    text: str
    state: str
    measure: str
    least: float
    kinds: tuple[str, ...] = (PLAIN, REUSE)
    method: str = FIXED
    unit: float = POINTS


BARS = (
    Bar("request: points against stateful", REQUEST, "difference", -1.0),
    Bar("request: greedy agreement, %", REQUEST, "greedy_agreement", 95),
    Bar("request: judge agreement, %", REQUEST, "judge_agreement", 97, method=ANY),
    Bar("request: operation state, times smaller", REQUEST, "smaller op_bytes_a_task", 6, unit=1),
    Bar("path: points against stateful", PATH, "difference", -0.5, (REUSE,)),
    Bar("path: points against stateful", PATH, "difference", -3.0, (PLAIN,)),
    Bar("path: operation state, times smaller", PATH, "smaller op_bytes_a_task", 20, unit=1),
    Bar("path, 4 bits: points against stateful", ENCODED, "difference", -0.5, (REUSE,)),
    Bar("path, 4 bits: points against stateful", ENCODED, "difference", -3.0, (PLAIN,)),
    Bar("path, 4 bits: operation state, times smaller", ENCODED, "smaller op_bytes_a_task", 20, unit=1),
    Bar("path, 4 bits: everything, times smaller", ENCODED, "smaller bytes_a_task", 8, unit=1),
    Bar("path: prompt tokens never prefilled, %", PATH, "never_prefilled_share", 60),
    Bar("path: operation-prompt tokens never prefilled, %", PATH, "operation_reuse_share", 80),
    Bar("path: greedy agreement, %", PATH, "greedy_agreement", 90, (REUSE,)),
    Bar("path, 4 bits: greedy agreement, %", ENCODED, "greedy_agreement", 90, (REUSE,)),
)


def bars(means: Any) -> Iterator[dict[str, Any]]:
    """Every bar for every backbone.

    Args:
        means: Rows of `kv_modes` that are means over benchmarks.

    Yields:
        A row a backbone and bar; without a measurement the value is None and ``met`` says so.
    """
    for backbone, part in means.groupby("backbone", sort=False):
        kind = part["kind"].iloc[0]
        for bar in BARS:
            if kind in bar.kinds:
                rows = part[part["method"] == bar.method].set_index("state")
                value = _measured(rows, bar)
                met = "not measured" if value is None else "yes" if value >= bar.least else "no"
                around = [_at(rows, bar.state, f"{bar.measure}_{end}", bar.unit) for end in ("lo", "hi")]
                spread = dict(zip(("lo", "hi"), around, strict=True))
                yield {"backbone": backbone, "bar": bar.text, "least": bar.least, "value": value, **spread, "met": met}


def _measured(rows: Any, bar: Bar) -> float | None:
    kind, _, column = bar.measure.rpartition(" ")
    value = _at(rows, bar.state, column, bar.unit)
    if not kind:
        return value
    whole = _at(rows, "stateful", column, bar.unit)
    return whole / value if value and whole else None


def _at(rows: Any, state: str, column: str, unit: float) -> float | None:
    """One number of the table in the bar's unit; None where there is none."""
    if state not in rows.index or column not in rows.columns or pd.isna(rows.loc[state, column]):
        return None
    return unit * float(rows.loc[state, column])
