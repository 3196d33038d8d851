"""`kv_modes`: every state mode on every benchmark, each beside stateful on the same tasks."""

from __future__ import annotations

from typing import Any

import pandas as pd

from graphflow.experiment.kv.bars import bars
from graphflow.experiment.kv.figures import draw_modes
from graphflow.experiment.kv.measures import fidelity, judges, retained, tokens
from graphflow.experiment.kv.study import Study, backbone_of, names_of
from graphflow.experiment.planned import Planned, plan, run_planned, scores_of
from graphflow.experiment.run import table_row
from graphflow.experiment.stats import Interval, paired_difference

MEAN = "mean"
SHOWN = (
    "backbone",
    "kind",
    "method",
    "state",
    "metric",
    "difference_lo",
    "difference_hi",
    "op_bytes_a_task",
    "bytes_a_task",
    "operation_reuse_share",
    "kl_mean",
    "greedy_agreement",
    "judge_agreement",
    "p90_s",
)
AVERAGED = (
    "metric",
    "p90_s",
    "prefill_tokens",
    "reused_tokens",
    "operation_tokens",
    "operation_reused",
    "reuse_share",
    "never_prefilled_share",
    "operation_reuse_share",
    "op_bytes_a_task",
    "bytes_a_task",
    "kl_mean",
    "greedy_agreement",
    "judge_agreement",
)


def kv_modes(study: Study) -> pd.DataFrame:
    """Run what is left of every cell; write ``kv_modes.csv``, the bars (``kv_bars.csv``) and figures.

    The mean over benchmarks has rows of its own; its differences are paired over the tasks of all of them.
    """
    learning, planned = plan(study.house, study.config, study.words)
    run_planned(study.house, learning, planned, study.console)
    rows = [_row(study, item, planned) for item in planned]
    frame = study.write("kv_modes", [*rows, *_means(planned, rows)])
    study.say(*draw_modes(frame[frame["benchmark"] != MEAN], study.figures))
    means = frame[frame["benchmark"] == MEAN]
    study.show(means, SHOWN, "State modes, mean over benchmarks, against stateful")
    if held := list(bars(means)):
        shown = ("backbone", "bar", "least", "value", "lo", "hi", "met")
        study.show(study.write("kv_bars", held), shown, "What is asked of differential state, and what was measured")
    return frame


def _row(study: Study, item: Planned, planned: list[Planned]) -> dict[str, Any]:
    episodes = item.job.run_dir.episodes()
    row = table_row(item.job, study.name)
    for name in ("artefact", "commit", "machine", "kl_mean", "greedy_agreement"):
        row.pop(name)
    beside = [
        other
        for other in planned
        if _place(other) == _place(item) and names_of(other.job.config)["state"] == "stateful"
    ]
    difference = paired_difference(scores_of([item]), scores_of(beside)) if beside else None
    return {
        **row,
        **names_of(item.job.config),
        **_columns(difference),
        **tokens(episodes),
        "requests": study.size("requests"),
        **retained(episodes, (item.job.run_dir.done or {})["shared_bytes"], study.size("requests")),
        **fidelity(episodes, judges(study.house.library)),
    }


def _means(planned: list[Planned], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a backbone and state: plain means over benchmarks, the difference over all tasks."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row["backbone"], row["method"], row["state"]), []).append(place)
    found = []
    for (backbone, method, _), places in groups.items():
        beside = groups.get((backbone, method, "stateful"), [])
        ours, theirs = scores_of([planned[i] for i in places]), scores_of([planned[i] for i in beside])
        part = pd.DataFrame([rows[i] for i in places])
        means = part[list(AVERAGED)].apply(pd.to_numeric).mean().to_dict()
        names = {key: rows[places[0]][key] for key in ("backbone", "method", "kv_mode", "kv_scope", "state")}
        counts = {"benchmark": MEAN, "n_tasks": len(ours)}
        found.append({**names, **counts, **_columns(paired_difference(ours, theirs) if theirs else None), **means})
    return found


def _place(item: Planned) -> tuple[str, str, str]:
    config = item.job.config
    return backbone_of(config), config.benchmark.name, config.method.name


def _columns(difference: Interval | None) -> dict[str, float | None]:
    if difference is None:
        return dict.fromkeys(("difference", "difference_lo", "difference_hi"))
    return {"difference": difference.mean, "difference_lo": difference.low, "difference_hi": difference.high}
