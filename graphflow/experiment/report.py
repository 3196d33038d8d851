"""One self-contained HTML file: tables and figures, what made each number, and the paper's figures beside them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from graphflow.experiment.baselines.tables import Methods
from graphflow.experiment.paper import CLAIMS
from graphflow.experiment.plots import kept_per_task
from graphflow.experiment.stats import Interval
from graphflow.experiment.tables import by_series, state_label

TITLE = "GraphFlow: an independent reproduction"
LEAD = (
    "Workflows picked from one graph of operations, and operation state shared as base and residual "
    "(arXiv 2605.22566), measured by the command below."
)
DEVIATION = (
    "The paper measured backbones of 7 to 9 billion parameters on the full benchmarks. Rows of a mini backbone come "
    "from a model of a few million parameters on generated tasks of the same kinds: the paper's value stands beside "
    "them for orientation, and the deviation says how far apart the two settings are. Wall times "
    "hold only beside each other, from one machine."
)
CAPTIONS = {
    "accuracy_by_method": "Metric of every method on every benchmark, mean and 95 % bootstrap interval over tasks.",
    "kv_against_accuracy": "Operation state kept a task against the metric: up and left is better.",
    "kept_by_mode": "Retained KV a task: operation state, and on top of it the request's own text.",
    "p90_by_mode": "P90 latency of whole tasks, workflow construction, exact fallbacks and tools included.",
    "methods_main_table": "Score of every method in the mean over benchmarks, with 95 % intervals over tasks.",
    "methods_p90": "Latency of a task, over the tasks of all benchmarks: P90, and a line from P50 to P99.",
    "concurrency": "Resident KV peak and P90 latency against the number of workflows in flight.",
}
SHOWN = (
    "backbone",
    "benchmark",
    "method",
    "state",
    "tasks",
    "metric",
    "scoring",
    "95 % interval",
    "paper",
    "deviation",
    "P50, s",
    "P90, s",
    "P99, s",
    "LLM calls",
    "prefilled",
    "reused",
    "generated",
    "operation KV, kB",
    "dynamic KV, kB",
    "resident peak, MB",
    "fallbacks",
    "KL, nats",
    "agreement",
    "run",
    "commit",
)
TEXT = ("backbone", "benchmark", "method", "state", "scoring", "run", "commit")


@dataclass(frozen=True)
class Difference:
    """A paired difference of two series of cells."""

    ours: str
    theirs: str
    tasks: int
    interval: Interval


def write_report(
    path: Path,
    tables: Mapping[str, pd.DataFrame],
    figures: Sequence[Path],
    command: str,
    differences: Sequence[Difference] = (),
    methods: Methods | None = None,
) -> Path:
    """Write the report.

    Args:
        path: The HTML file.
        tables: Result tables by artefact.
        figures: PNG files, in order.
        command: What made the tables.
        differences: Paired differences to show.
        methods: All methods beside each other, where they were run.

    Returns:
        ``path``.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graphflow.experiment"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    first, methods = next(iter(tables.values())), methods or Methods()
    html = environment.get_template("report.html.j2").render(
        title=TITLE,
        lead=LEAD,
        facts=_facts(tables, command),
        benchmarks=list(dict.fromkeys(first["benchmark"])),
        headline=_headline(first),
        differences=[_difference(item) for item in differences],
        figures=[_figure(file) for file in figures],
        tables=[_table(name, frame, command) for name, frame in tables.items()],
        sheets=methods.sheets,
        pictures=[_figure(file, "methods_") for file in methods.figures],
        deviation=DEVIATION,
        claims=CLAIMS,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(html, encoding="utf-8")
    partial.replace(path)
    return path


def _facts(tables: Mapping[str, pd.DataFrame], command: str) -> list[tuple[str, str]]:
    every = pd.concat(list(tables.values()))
    named = [("command", command)]
    for title, column in (("backbone", "backbone"), ("machine", "machine"), ("commit", "commit")):
        named.append((title, "; ".join(str(value) for value in dict.fromkeys(every[column]))))
    return [*named, ("runs", str(every["run_id"].nunique())), ("tasks a cell", str(max(every["n_tasks"])))]


def _headline(frame: pd.DataFrame) -> list[dict[str, Any]]:
    benchmarks, rows = list(dict.fromkeys(frame["benchmark"])), []
    for (method, mode, scope), part in by_series(frame).items():
        metric = part.drop_duplicates("benchmark").set_index("benchmark")["metric"].reindex(benchmarks)
        rows.append(
            {
                "method": method,
                "state": state_label(mode, scope),
                "cells": [_number(value) for value in metric],
                "mean": _number(metric.mean()),
                "p90": _number(part["p90_s"].mean(), 2),
                "kept": _number(part.apply(kept_per_task, axis=1).mean() / 1e3, 1),
            }
        )
    return rows


def _difference(item: Difference) -> dict[str, Any]:
    interval = item.interval
    return {
        "ours": item.ours,
        "theirs": item.theirs,
        "n": item.tasks,
        "mean": f"{interval.mean:+.3f}",
        "interval": f"{interval.low:+.3f} to {interval.high:+.3f}",
    }


def _figure(file: Path, area: str = "") -> dict[str, str]:
    return {
        "caption": CAPTIONS.get(area + file.stem, file.stem.replace("_", " ")),
        "data": base64.b64encode(file.read_bytes()).decode(),
    }


def _table(name: str, frame: pd.DataFrame, command: str) -> dict[str, Any]:
    rows, previous = [], None
    for _, row in frame.iterrows():
        values = dict(zip(SHOWN, _cells(row), strict=True))
        cells = [{"value": value, "text": column in TEXT} for column, value in values.items()]
        rows.append({"first": row["benchmark"] != previous, "cells": cells})
        previous = row["benchmark"]
    columns = [{"name": column, "text": column in TEXT} for column in SHOWN]
    return {"name": name, "command": command, "columns": columns, "rows": rows}


def _cells(row: Any) -> list[str]:
    tasks = float(row["n_tasks"])
    deviation = "" if pd.isna(row["paper_value"]) else f"{row['metric'] - row['paper_value']:+.3f}"
    return [
        str(row["backbone"]),
        str(row["benchmark"]),
        str(row["method"]),
        state_label(str(row["kv_mode"]), str(row["kv_scope"])),
        str(int(tasks)),
        f"{_number(row['metric'])} {row['metric_name']}",
        "" if pd.isna(row["scoring"]) else str(row["scoring"]),
        f"{row['metric_lo']:.3f} to {row['metric_hi']:.3f}",
        _number(row["paper_value"]),
        deviation,
        *(_number(row[name], 2) for name in ("p50_s", "p90_s", "p99_s")),
        _number(row["llm_calls"], 1),
        *(_number(row[name], 0) for name in ("prefill_tokens", "reused_tokens", "output_tokens")),
        _number(row["retained_op_bytes"] / tasks / 1e3, 1),
        _number(row["retained_dynamic_bytes"] / tasks / 1e3, 1),
        _number(row["resident_peak_bytes"] / 1e6, 1),
        *(_number(row[name]) for name in ("fallback_rate", "kl_mean", "greedy_agreement")),
        str(row["run_id"]),
        str(row["commit"]),
    ]


def _number(value: Any, digits: int = 3) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
