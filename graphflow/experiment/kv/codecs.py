"""`kv_codecs`: rate and distortion of every codec, and of what it has to beat, on fixed contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd

from graphflow.experiment.config import Config
from graphflow.experiment.kv.figures import draw_codecs
from graphflow.experiment.kv.fixed import Flows, dealt, key_of, reference, replay
from graphflow.experiment.kv.measures import fallback_rate, fidelity, judges, retained, tokens
from graphflow.experiment.kv.study import Study, names_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.record import RunDir
from graphflow.experiment.run import Job, run_cell
from graphflow.kv import Allocation, Control, StateMode, Weighting

SHOWN = (
    "backbone",
    "benchmark",
    "label",
    "density",
    "op_bytes_a_task",
    "kl_mean",
    "kl_lo",
    "kl_hi",
    "greedy_agreement",
)
RIVALS = (StateMode.STATEFUL_INT8, StateMode.STATEFUL_INT4, StateMode.PREFIX, StateMode.OPERATION_FIRST)


def kv_codecs(study: Study) -> pd.DataFrame:
    """Run what is left; write ``kv_codecs.csv``, ``kv_codecs_equal_kl.csv`` and the figure.

    Operation bytes a task are a request's own, and its part of the store when ``sizes.requests`` requests share it.
    Divergence is from exact state in the layout of the mode: prefix and operation_first are exact by construction.
    """
    rows = replayed(study, dealt(study.house), lambda job: _row(study, job))
    frame = study.write("kv_codecs", rows)
    equal = equal_divergence(frame)
    study.say(*draw_codecs(frame, study.figures))
    study.show(frame, SHOWN, "Operation state a task against divergence from exact state")
    if equal:
        study.show(study.write("kv_codecs_equal_kl", equal), tuple(equal[0]), "At equal divergence")
    return frame


def replayed(study: Study, flows: Flows, row: Callable[[Job], dict[str, Any]]) -> list[dict[str, Any]]:
    """Run every cell on fixed contexts; a row of each."""
    references: dict[str, RunDir] = {}
    found, planned = [], list(study.cells())
    warmup = max(config.warmup for _, config in planned)
    units = [Unit(cell.label, config.benchmark.limit, config.benchmark.name) for cell, config in planned]
    with work_progress(units, study.console) as progress:
        for (_, config), unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                key = key_of(config)
                if key not in references:
                    references[key] = reference(study.house, replace(config, warmup=warmup), flows)
                job = replay(study.house, config, flows, references[key])
                run_cell(job, lambda _: progress.advance())
                found.append(row(job))
    return found


def _row(study: Study, job: Job) -> dict[str, Any]:
    return {**measured(study, job), **_codec(job.config)}


def measured(study: Study, job: Job) -> dict[str, Any]:
    """What every experiment on fixed contexts says of a finished cell."""
    episodes, requests = job.run_dir.episodes(), study.size("requests")
    return {
        **names_of(job.config),
        "n_tasks": len(episodes),
        "requests": requests,
        **retained(episodes, (job.run_dir.done or {})["shared_bytes"], requests),
        **tokens(episodes),
        **fidelity(episodes, judges(study.house.library)),
        "fallback_rate": fallback_rate(episodes),
        "run_id": job.run_id,
    }


def _codec(config: Config) -> dict[str, Any]:
    """Which codec, how dense, what runs again, and a label for the curve that the cell is on."""
    kv = config.kv
    has_codec = kv.learns_paths
    parts = [names_of(config)["state"], kv.codec if has_codec else ""]
    if has_codec and kv.value_bits == 8:
        parts.append("8 bit")
    if has_codec and kv.saliency is not Weighting.NONE:
        parts.append("weighted")
    if has_codec and kv.allocate is not Allocation.EVEN:
        parts.append("water-filled")
    if kv.learns_paths and not kv.per_request:
        parts.append(f"{kv.exact_head} first run")
    if kv.control is not Control.NONE:
        parts.append(f"control {kv.control.value.replace('_', ' ')}")
    return {
        "label": " ".join(filter(None, parts)),
        "codec": kv.codec if has_codec else "",
        "density": kv.density if has_codec else None,
        "exact_head": kv.exact_head if kv.has_bases and not kv.per_request else None,
        "exact_rows": kv.exact_rows if kv.learns_paths and not kv.per_request else None,
        "value_bits": kv.value_bits if has_codec else None,
        "saliency": kv.saliency.value,
        "allocate": kv.allocate.value,
        "control": kv.control.value,
        "rerun": kv.rerun if kv.mode is StateMode.BLEND else None,
    }


def equal_divergence(frame: Any) -> list[dict[str, Any]]:
    """For every exact or quantised rival, the fewest bytes of a differential state that diverges no more than it.

    Exact and nearly exact rivals differ by what rounding kept KV to 16 bits does to a few tasks. So what counts is the
    upper end of the rival's interval: a state is as close whose mean lies below it.

    Returns:
        Rows with the rival's bytes, ours, their ratio (above 1: ours is smaller) and which setting it is; without one
        that is as close, those columns are empty.
    """
    rows = []
    modes = {mode.value for mode in RIVALS}
    for (backbone, benchmark), part in frame.groupby(["backbone", "benchmark"], sort=False):
        ours = part[part["kv_mode"].isin(["differential", "no_pruning"]) & (part["control"] == "none")]
        for _, rival in part[part["kv_mode"].isin(modes)].iterrows():
            close = ours[ours["kl_mean"] <= rival["kl_hi"]].sort_values("op_bytes_a_task")
            best = close.iloc[0] if len(close) else None
            rows.append(
                {
                    "backbone": backbone,
                    "benchmark": benchmark,
                    "rival": rival["state"],
                    "n_tasks": int(rival["n_tasks"]),
                    "rival_kl": rival["kl_mean"],
                    "rival_kl_hi": rival["kl_hi"],
                    "rival_bytes": rival["op_bytes_a_task"],
                    "ours": _setting(best) if best is not None else "none as close",
                    "our_kl": best["kl_mean"] if best is not None else None,
                    "our_bytes": best["op_bytes_a_task"] if best is not None else None,
                    "times_smaller": rival["op_bytes_a_task"] / best["op_bytes_a_task"] if best is not None else None,
                }
            )
    return rows


def _setting(row: Any) -> str:
    """Label and place on the curve: density in request scope, the share of rows that run again in path scope."""
    rows = row["exact_rows"]
    return f"{row['label']}, density {row['density']:g}" + (f", rows {rows:g}" if pd.notna(rows) else "")
