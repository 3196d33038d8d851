"""Tables: one row a cell, made from episodes and never from logs; written as CSV by temp file and rename.

Definitions: ``metric`` is the mean score with its bootstrap interval over tasks; ``scoring`` is what gave the score,
name and version (``strict-3``), and metrics of different ones are not comparable; latency quantiles are of whole tasks,
from arrival to answer; ``retained_op_bytes`` is what keeping the operation state of every served request holds after
the run (shared base and residuals once, plus each request's own), ``retained_dynamic_bytes`` the same for requests' own
text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from graphflow.engine.episode import Episode, StepRecord
from graphflow.experiment.paper import paper_value
from graphflow.experiment.stats import bootstrap, percentile

COLUMNS = (
    "artefact",
    "backbone",
    "benchmark",
    "method",
    "kv_mode",
    "kv_scope",
    "n_tasks",
    "metric_name",
    "scoring",
    "metric",
    "metric_lo",
    "metric_hi",
    "p50_s",
    "p90_s",
    "p99_s",
    "llm_calls",
    "prefill_tokens",
    "reused_tokens",
    "output_tokens",
    "retained_op_bytes",
    "retained_dynamic_bytes",
    "resident_peak_bytes",
    "fallback_rate",
    "kl_mean",
    "greedy_agreement",
    "run_id",
    "commit",
    "machine",
    "paper_value",
)


@dataclass(frozen=True)
class CellNames:
    """What names a row: the first columns and where it came from."""

    artefact: str
    backbone: str
    benchmark: str
    method: str
    kv_mode: str
    kv_scope: str
    metric_name: str
    scoring: str
    run_id: str
    commit: str
    machine: str


def summarise(
    names: CellNames, episodes: Sequence[Episode], shared_bytes: int, peak_bytes: int, seed: int = 0
) -> dict[str, Any]:
    """One table row.

    Args:
        names: What names the row.
        episodes: Every episode of the run, scored.
        shared_bytes: Base and residual bytes of the store at the end of the run.
        peak_bytes: Peak of everything resident during the run.
        seed: Seed of the bootstrap.

    Returns:
        A value for each of `COLUMNS`; None where nothing was measured. Calls and tokens are means a task.
    """
    metric = bootstrap([episode.score or 0.0 for episode in episodes], seed=seed)
    latency = [episode.latency_s for episode in episodes]
    steps = [step for episode in episodes for step in episode.steps]
    row: dict[str, Any] = {
        **vars(names),
        "n_tasks": len(episodes),
        "metric": metric.mean,
        "metric_lo": metric.low,
        "metric_hi": metric.high,
        "p50_s": percentile(latency, 50),
        "p90_s": percentile(latency, 90),
        "p99_s": percentile(latency, 99),
        "llm_calls": sum(episode.llm_calls for episode in episodes) / len(episodes),
        **{
            name: sum(episode.total(name) for episode in episodes) / len(episodes)
            for name in ("prefill_tokens", "reused_tokens", "output_tokens")
        },
        "retained_op_bytes": shared_bytes + sum(episode.op_bytes for episode in episodes),
        "retained_dynamic_bytes": sum(episode.dynamic_bytes for episode in episodes),
        "resident_peak_bytes": peak_bytes,
        **_fidelity(steps),
        "paper_value": paper_value(names.artefact, names.backbone, names.benchmark, names.method, names.kv_mode),
    }
    return {column: row[column] for column in COLUMNS}


def _fidelity(steps: Sequence[StepRecord]) -> dict[str, float | None]:
    calls = [step for step in steps if step.output_tokens]
    divergences = [step.kl for step in calls if step.kl is not None]
    agreements = [step.agrees for step in calls if step.agrees is not None]
    return {
        "fallback_rate": sum(step.fallback for step in calls) / len(calls) if calls else None,
        "kl_mean": sum(divergences) / len(divergences) if divergences else None,
        "greedy_agreement": sum(agreements) / len(agreements) if agreements else None,
    }


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows with exactly `COLUMNS`, whole or not at all."""
    frame = pd.DataFrame(list(rows), columns=pd.Index(COLUMNS))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    frame.to_csv(partial, index=False, float_format="%.6g")
    partial.replace(path)
    return path


def is_result_table(path: Path) -> bool:
    """Whether a CSV file is a result table: its first column says which artefact."""
    with path.open(encoding="utf-8") as handle:
        return handle.readline().startswith(COLUMNS[0] + ",")


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a table; in one from before there was a column ``scoring`` it is empty.

    Raises:
        ValueError: The columns are not exactly `COLUMNS`.
    """
    frame = pd.read_csv(path, dtype={"commit": "str", "run_id": "str", "scoring": "str"}, keep_default_na=True)
    if tuple(frame.columns) == tuple(name for name in COLUMNS if name != "scoring"):
        frame.insert(COLUMNS.index("scoring"), "scoring", pd.Series(pd.NA, index=frame.index, dtype="str"))
    if tuple(frame.columns) != COLUMNS:
        missing, unknown = sorted(set(COLUMNS) - set(frame.columns)), sorted(set(frame.columns) - set(COLUMNS))
        raise ValueError(f"{path} must have the columns of a result table; missing {missing}, unknown {unknown}")
    return frame


def headline(frame: pd.DataFrame, title: str) -> Table:
    """A table for the terminal: one line a method and state mode, one column a benchmark, metrics in percent."""
    benchmarks = list(dict.fromkeys(frame["benchmark"]))
    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("method", "state"):
        table.add_column(name, no_wrap=True)
    shown = [name.removeprefix("mini-") for name in benchmarks]
    for name in [*shown, "mean", "p90 s", "retained op MB", "retained text MB", "resident MB"]:
        table.add_column(name, justify="right")
    best = max((part["metric"].mean() for part in by_series(frame).values()), default=0.0)
    for (method, mode, scope), part in by_series(frame).items():
        by_benchmark = part.set_index("benchmark")
        cells = [_metric_cell(by_benchmark, name) for name in benchmarks]
        mean = part["metric"].mean()
        style = "bold" if mean == best else ""
        table.add_row(
            method,
            state_label(mode, scope),
            *cells,
            f"{100 * mean:.1f}",
            f"{part['p90_s'].mean():.2f}",
            f"{part['retained_op_bytes'].sum() / 1e6:.1f}",
            f"{part['retained_dynamic_bytes'].sum() / 1e6:.1f}",
            f"{part['resident_peak_bytes'].max() / 1e6:.1f}",
            style=style,
        )
    return table


def by_series(frame: pd.DataFrame) -> dict[tuple[str, str, str], Any]:
    """Rows (a data frame) of each method, state mode and scope, in order of appearance."""
    groups: Any = frame.groupby(["method", "kv_mode", "kv_scope"], sort=False)
    return {(str(method), str(mode), str(scope)): rows for (method, mode, scope), rows in groups}


def state_label(mode: str, scope: str) -> str:
    """How a state mode is called in tables and plots; the scope is said where it matters."""
    return f"{mode.replace('_', ' ')} ({scope})" if scope != "none" else mode


def _metric_cell(part: Any, benchmark: str) -> str:
    if benchmark not in part.index:
        return ""
    row = part.loc[benchmark]
    return f"{100 * row['metric']:.0f} ±{50 * (row['metric_hi'] - row['metric_lo']):.0f}"
