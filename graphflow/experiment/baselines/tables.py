"""The main table for readers: what a backbone's methods score, what that costs, and the paper's figures beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from graphflow.experiment.baselines.bars import bars
from graphflow.experiment.baselines.figures import draw_main_table
from graphflow.experiment.paper import P90_S, paper_backbone, paper_value
from graphflow.experiment.sheet import Sheet

MEAN, PROPOSALS = "mean", "main_table_proposals.csv"
PUBLISHED = (("aflow", "stateful"), ("graphflow", "differential"))
"""Methods of which the paper gives figures that can be read off, and the state that it ran each on."""
SCORED = ("method", "state")
COST = (
    *("P50 s", "P90 s", "P99 s", "mean P90", "calls", "prefilled", "reused", "written", "op MB", "text MB"),
    *("fit tasks", "fit calls", "fit tokens"),
)
CELL = (
    *("benchmark", "method", "state", "tasks", "metric", "95 % interval", "paper", "deviation", "gain"),
    *("P50 s", "P90 s", "P99 s", "calls", "prefilled", "reused", "written", "op MB", "text MB"),
    *("fit tasks", "fit calls", "fit tokens", "scripted", "run", "commit"),
)
COST_NOTE = (
    "P50, P90 and P99 of the tasks of all benchmarks together; mean P90: of the benchmarks' P90s. Calls and tokens a "
    "task; MB retained by all tasks; what fitting has cost on tasks of these benchmarks, in executed tasks, calls and "
    "tokens."
)


@dataclass(frozen=True)
class Methods:
    """All methods beside each other, ready for the report.

    Attributes:
        sheets: Its tables.
        figures: Its PNG files.
    """

    sheets: Sequence[Sheet] = ()
    figures: Sequence[Path] = ()


def read_methods(folder: Path) -> Methods:
    """The tables of a results folder, figures drawn again; empty where the main table was not run."""
    file = folder / "main_table.csv"
    if not file.exists():
        return Methods()
    frame: Any = pd.read_csv(file, dtype={"commit": "str", "run_id": "str"})
    found = [*shown(frame), *asked(frame)]
    if (beside := folder / PROPOSALS).exists():
        found += [written(pd.read_csv(beside))]
    found += [_cells(backbone, part) for backbone, part in frame.groupby("backbone", sort=False)]
    return Methods(found, draw_main_table(frame, folder / "figures"))


def shown(frame: Any) -> Iterator[Sheet]:
    """For every backbone what methods score and what they cost.

    Args:
        frame: Rows of `main_table`.
    """
    for backbone, part in frame.groupby("backbone", sort=False):
        benchmarks = [name for name in dict.fromkeys(part["benchmark"]) if name != MEAN]
        means = part[part["benchmark"] == MEAN]
        yield _scores(str(backbone), benchmarks, part, means)
        yield _costs(str(backbone), means[means["p90_s"].notna()])


def asked(frame: Any) -> Iterator[Sheet]:
    """The bars, where there is one: what is asked, what was measured."""
    rows = [
        [
            *(str(bar[name]) for name in ("backbone", "bar", "beside")),
            f"{bar['least']:g}",
            f"{bar['value']:.2f}",
            "" if bar["lo"] is None else f"{bar['lo']:.1f} to {bar['hi']:.1f}",
            bar["met"],
        ]
        for bar in bars(frame)
    ]
    if rows:
        names = ("backbone", "bar", "beside", "asked", "measured", "95 % interval", "met")
        yield Sheet("What is asked of GraphFlow, on differential state, beside baselines on stateful", names, rows, 3)


def written(frame: Any) -> Sheet:
    """What models wrote for methods' own operations, a column a backbone.

    Args:
        frame: Rows of ``main_table_proposals.csv``.
    """
    backbones = [*dict.fromkeys(frame["backbone"])]
    rows = []
    for operation, part in frame.groupby("operation", sort=False):
        for column in ("read", "new"):
            shares = {row["backbone"]: row for _, row in part.iterrows() if not pd.isna(row[column])}
            if shares:
                own = {name: f"{_percent(row[column])} of {row['written']:,}" for name, row in shares.items()}
                title = str(operation) if column == "read" else f"{operation}, to a new workflow"
                rows.append([title, *(own.get(backbone, "") for backbone in backbones)])
    note = (
        "In percent, of all that was written with exact state: plans that compile, decisions in their block, cells "
        "that parse, suggestions that name a workflow, edits that could be applied, flows that could be executed."
    )
    title = "What models wrote for methods, and how much of it could be read"
    return Sheet(title, ("operation", *backbones), rows, 1, note)


def _scores(backbone: str, benchmarks: list[str], part: Any, means: Any) -> Sheet:
    rows = []
    for _, mean in means.iterrows():
        own = part[(part["method"] == mean["method"]) & (part["state"] == mean["state"])].set_index("benchmark")
        gain = ["" if pd.isna(mean[name]) else f"{100 * mean[name]:+.1f}" for name in ("gain", "gain_lo", "gain_hi")]
        rows.append(
            [
                _marked(mean),
                str(mean["state"]),
                *(_percent(own["metric"].get(name), 0) for name in benchmarks),
                _percent(mean["metric"]),
                f"{_percent(mean['metric_lo'])} to {_percent(mean['metric_hi'])}",
                gain[0],
                f"{gain[1]} to {gain[2]}" if gain[0] else "",
            ]
        )
    for method, mode in PUBLISHED:
        values = [paper_value("main_table", backbone, name, method, mode) for name in benchmarks]
        if any(value is not None for value in values):
            whole = [value for value in values if value is not None]
            mean = _percent(fmean(whole)) if len(whole) == len(values) else ""
            cells = [*(_percent(value, 1) for value in values), mean, "", "", ""]
            rows.append([method, f"the paper, {paper_backbone(backbone)}", *cells])
    names = [*(name.removeprefix("mini-") for name in benchmarks), MEAN, "95 % interval", "gain", "95 % interval"]
    tasks = int(means["n_tasks"].max()) if len(means) else 0
    note = (
        f"In percent, {tasks} tasks in all; gain: GraphFlow's on differential state over the row, in points, "
        f"paired by task.{_scripts(part)}"
    )
    return Sheet(f"{backbone}: what methods score", (*SCORED, *names), rows, len(SCORED), note)


def _costs(backbone: str, means: Any) -> Sheet:
    rows = []
    for _, row in means.iterrows():
        seconds = [_number(row.get(name), 2) for name in ("p50_all_s", "p90_all_s", "p99_all_s", "p90_s")]
        tokens = [_number(row[name], 0) for name in ("prefill_tokens", "reused_tokens", "output_tokens")]
        kept = [_number(row[name] / 1e6, 1) for name in ("op_bytes", "text_bytes")]
        fitting = [_number(row[name], 0) for name in ("fit_tasks", "fit_llm_calls", "fit_tokens")]
        cells = [*seconds, _number(row["llm_calls"], 1), *tokens, *kept, *fitting]
        rows.append([_marked(row), str(row["state"]), *cells])
    model = paper_backbone(backbone)
    for method, _ in PUBLISHED:
        if (model, method) in P90_S:
            seconds = ["", f"{P90_S[model, method]:.2f}"]
            rows.append([method, f"the paper, {model}", *seconds, *[""] * (len(COST) - len(seconds))])
    return Sheet(f"{backbone}: what that costs", (*SCORED, *COST), rows, len(SCORED), COST_NOTE)


def _cells(backbone: str, part: Any) -> Sheet:
    """Every cell of a backbone, for the report."""
    rows = []
    for _, row in part[part["benchmark"] != MEAN].iterrows():
        paper = row["paper_value"]
        rows.append(
            [
                *(str(row[name]) for name in ("benchmark", "method", "state", "n_tasks")),
                _number(row["metric"], 3),
                f"{row['metric_lo']:.3f} to {row['metric_hi']:.3f}",
                _number(paper, 3),
                "" if pd.isna(paper) else f"{row['metric'] - paper:+.3f}",
                _number(row["gain"], 3),
                *(_number(row[name], 2) for name in ("p50_s", "p90_s", "p99_s")),
                _number(row["llm_calls"], 1),
                *(_number(row[name], 0) for name in ("prefill_tokens", "reused_tokens", "output_tokens")),
                *(_number(row[name] / 1e6, 2) for name in ("op_bytes", "text_bytes")),
                *(_number(row[name], 0) for name in ("fit_tasks", "fit_llm_calls", "fit_tokens")),
                *("" if pd.isna(row[name]) else str(row[name]) for name in ("scripted", "run_id", "commit")),
            ]
        )
    return Sheet(f"{backbone}: every cell", CELL, rows, 3, folded=True)


def _marked(row: Any) -> str:
    return f"{row['method']} *" if _written(row["scripted"]) else str(row["method"])


def _scripts(part: Any) -> str:
    """Which operations a script writes, by method."""
    by_method = {row["method"]: str(row["scripted"]) for _, row in part.iterrows() if _written(row["scripted"])}
    said = "; ".join(f"{method}: {names.replace(' ', ', ')}" for method, names in by_method.items())
    roles = (part["method"] == "metagpt") & part["backbone"].str.contains("-mini")
    played = " metagpt's roles are played by operations of the library on mini backbones." if roles.any() else ""
    return played + (f" * A script writes in the model's place ({said})." if said else "")


def _written(scripted: Any) -> bool:
    return not pd.isna(scripted) and bool(scripted)


def _percent(value: Any, digits: int = 1) -> str:
    return "" if value is None or pd.isna(value) else f"{100 * value:.{digits}f}"


def _number(value: Any, digits: int) -> str:
    return "" if value is None or pd.isna(value) else f"{value:,.{digits}f}"
