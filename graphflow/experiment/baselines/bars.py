"""What is asked of GraphFlow beside the baselines, set before anything was measured (the paper's own margins)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TIE = 1e-7  # points: means of the same scores may differ in their last digits
TEXT = "text int4)"  # how the state of cells with encoded text ends
BASELINES = ("vanilla", "metagpt", "llmcompiler", "taskweaver", "agentkb", "autoflow", "aflow")
POINTS, FASTER, SMALLER = 4.95, 12.9, 4.0
"""Points over the best baseline, percent of P90 below AFlow, times less retained KV than AFlow."""


def bars(frame: Any) -> Iterator[dict[str, Any]]:
    """Every bar for every backbone: GraphFlow on differential state against baselines on stateful.

    P90 is that of the tasks of all benchmarks together and, beside it, the mean of each benchmark's: the paper has one
    figure for five benchmarks and does not say which of the two. Being faster counts at no lower score alone.

    Args:
        frame: Rows of `main_table`; those of the mean over benchmarks are read.

    Yields:
        A row a backbone and bar, with the baseline that it stands beside; none for a backbone without both.
    """
    means = frame[frame["benchmark"] == "mean"]
    for backbone, part in means.groupby("backbone", sort=False):
        own = part[(part["method"] == "graphflow") & (part["kv_mode"] == "differential")]
        encoded, own = (own[own["state"].str.endswith(TEXT) == found] for found in (True, False))
        theirs = part[part["method"].isin(BASELINES) & (part["kv_mode"] == "stateful")]
        if own.empty or theirs.empty:
            continue
        held = [*_held(own.iloc[0], theirs, str(backbone).startswith("qwen-mini"))]
        held += [] if encoded.empty else _smaller(encoded.iloc[0], theirs)
        for bar, beside, least, value, met, *around in held:
            lo, hi = around or (None, None)
            found = {"least": least, "value": value, "lo": lo, "hi": hi, "met": "yes" if met else "no"}
            yield {"backbone": backbone, "bar": bar, "beside": beside, **found}


def _held(ours: Any, theirs: Any, by_points: bool) -> Iterator[tuple[Any, ...]]:
    """Name, baseline, what is asked, what was measured, whether it is met, and an interval where there is one."""
    best = theirs.loc[theirs["metric"].idxmax()]
    gain, least = _points(best), POINTS if by_points else 0.0
    yield "points over the best baseline", best["method"], least, gain[0], gain[0] > 0 and gain[0] >= least, *gain[1:]
    for _, aflow in theirs[theirs["method"] == "aflow"].iterrows():
        gain = _points(aflow)
        yield "points over AFlow", "aflow", 0.0, gain[0], gain[0] >= -TIE, *gain[1:]
        for bar, column in (("P90 of all tasks", "p90_all_s"), ("mean of the benchmarks' P90s", "p90_s")):
            faster = 100 * (1 - ours[column] / aflow[column])
            met = faster >= FASTER and gain[0] >= -TIE
            yield f"{bar}, % below AFlow's at no lower score", "aflow", FASTER, faster, met
        whole = _kept(aflow) / _kept(ours)
        yield "retained KV, times smaller than AFlow's", "aflow", SMALLER, whole, whole >= SMALLER
        state = aflow["op_bytes"] / ours["op_bytes"]
        yield "retained operation state, times smaller than AFlow's", "aflow", SMALLER, state, state >= SMALLER


def _smaller(ours: Any, theirs: Any) -> Iterator[tuple[Any, ...]]:
    """As `_held`, of GraphFlow with encoded text: what AFlow keeps is not encoded."""
    for _, aflow in theirs[theirs["method"] == "aflow"].iterrows():
        whole, gain = _kept(aflow) / _kept(ours), 100 * float(ours["metric"] - aflow["metric"])
        met = whole >= SMALLER and gain >= -TIE
        yield "retained KV with 4-bit text, times smaller than AFlow's at no lower score", "aflow", SMALLER, whole, met


def _kept(row: Any) -> float:
    return float(row["op_bytes"] + row["text_bytes"])


def _points(row: Any) -> list[float]:
    """GraphFlow's gain over a row, in points, and its interval."""
    return [100 * float(row[name]) for name in ("gain", "gain_lo", "gain_hi")]
