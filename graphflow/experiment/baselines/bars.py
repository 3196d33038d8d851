"""What is asked of GraphFlow beside the baselines, set before anything was measured (the paper's own margins)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BASELINES = ("vanilla", "metagpt", "llmcompiler", "taskweaver", "agentkb", "autoflow", "aflow")
POINTS, FASTER, SMALLER = 4.95, 12.9, 4.0
"""Points over the best baseline, percent of P90 below AFlow, times less retained KV than AFlow."""


def bars(frame: Any) -> Iterator[dict[str, Any]]:
    """Every bar for every backbone: GraphFlow on differential state against baselines on stateful.

    Args:
        frame: Rows of `main_table`; those of the mean over benchmarks are read.

    Yields:
        A row a backbone and bar, with the baseline that it stands beside; none for a backbone without both.
    """
    means = frame[frame["benchmark"] == "mean"]
    for backbone, part in means.groupby("backbone", sort=False):
        own = part[(part["method"] == "graphflow") & (part["kv_mode"] == "differential")]
        theirs = part[part["method"].isin(BASELINES) & (part["kv_mode"] == "stateful")]
        if own.empty or theirs.empty:
            continue
        best = theirs.loc[theirs["metric"].idxmax()]
        least = POINTS if backbone == "qwen-mini" else 0.0
        rows = [("points over the best baseline", best["method"], least, *_points(best))]
        for _, aflow in theirs[theirs["method"] == "aflow"].iterrows():
            ours = own.iloc[0]
            state, text = ([row[name] for row in (aflow, ours)] for name in ("op_bytes", "text_bytes"))
            rows += [
                ("points over AFlow", "aflow", 0.0, *_points(aflow)),
                ("P90 below AFlow's, %", "aflow", FASTER, 100 * (1 - ours["p90_s"] / aflow["p90_s"])),
                (
                    "retained KV, times smaller than AFlow's",
                    "aflow",
                    SMALLER,
                    (state[0] + text[0]) / (state[1] + text[1]),
                ),
                ("retained operation state, times smaller than AFlow's", "aflow", SMALLER, state[0] / state[1]),
            ]
        for bar, beside, least, value, *around in rows:
            lo, hi = around or (None, None)
            found = {"least": least, "value": value, "lo": lo, "hi": hi, "met": "yes" if value >= least else "no"}
            yield {"backbone": backbone, "bar": bar, "beside": beside, **found}


def _points(row: Any) -> list[float]:
    """GraphFlow's gain over a row, in points, and its interval."""
    return [100 * float(row[name]) for name in ("gain", "gain_lo", "gain_hi")]
