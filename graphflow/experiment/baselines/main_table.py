"""`main_table`, and `leaders` with fewer of them on more tasks: methods x benchmarks x backbones x state modes.

Each row says what its method has spent on being fitted. The mean over benchmarks has rows of its own, with
percentiles of the latency of all their tasks together (``p90_all_s``) beside the means of the benchmarks' percentiles
(``p90_s``). ``gain`` is GraphFlow's score on differential state minus the row's, paired by task: what the paper's main
table reports as a difference of means.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from graphflow.experiment.baselines.bars import bars
from graphflow.experiment.baselines.figures import draw_main_table
from graphflow.experiment.baselines.proposals import proposals
from graphflow.experiment.baselines.tables import MEAN, asked, shown, written
from graphflow.experiment.choosing.exam import Exam, by_task, oracle
from graphflow.experiment.config import Config
from graphflow.experiment.kv.study import Study, backbone_of, names_of
from graphflow.experiment.planned import Planned, plan, run_planned, scores_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.run import table_row
from graphflow.experiment.stats import bootstrap, paired_difference, percentile
from graphflow.kv import StateMode

ORACLE = "oracle"
SUMMED = ("fit_tasks", "fit_llm_calls", "fit_tokens", "fit_s", "op_bytes", "text_bytes")
AVERAGED = ("metric", "p50_s", "p90_s", "p99_s", "llm_calls", "prefill_tokens", "reused_tokens", "output_tokens")
KEPT = (
    *("metric_name", "metric", "metric_lo", "metric_hi", "p50_s", "p90_s", "p99_s"),
    *("llm_calls", "prefill_tokens", "reused_tokens", "output_tokens", "run_id", "paper_value"),
)
PERCENTILES = (50, 90, 99)


def main_table(study: Study) -> pd.DataFrame:
    """Run what is left; write ``<name>.csv``, beside it ``_bars`` and ``_proposals``, and the figures."""
    study = study.within("methods")
    learning, planned = plan(study.house, study.config, study.words)
    run_planned(study.house, learning, planned, study.console)
    rows = []
    for backbone in dict.fromkeys(backbone_of(item.job.config) for item in planned):
        part = [item for item in planned if backbone_of(item.job.config) == backbone]
        rows += [*_measured(part), *_oracle(study, part)]
    frame = study.write(study.name, rows)
    study.say(*draw_main_table(frame, study.figures, study.name))
    if held := list(bars(frame)):
        study.write(f"{study.name}_bars", held)
    proposed = list(proposals(study.house, planned))
    read = [written(study.write(f"{study.name}_proposals", proposed))] if proposed else []
    for sheet in (*shown(frame), *asked(frame), *read):
        study.console.print(sheet.printed())
    return frame


def _measured(planned: list[Planned]) -> Iterator[dict[str, Any]]:
    """Rows of one backbone's methods and state modes: each benchmark, and their mean."""
    series: dict[tuple[str, str], list[Planned]] = {}
    for item in planned:
        config = item.job.config
        series.setdefault((config.method.name, names_of(config)["state"]), []).append(item)
    ours = [item for item in planned if _is_ours(item.job.config)]
    for items in series.values():
        rows = [_row(item) for item in items]
        latencies = [episode.latency_s for item in items for episode in item.job.run_dir.episodes()]
        means = {name: fmean(row[name] for row in rows) for name in AVERAGED}
        sums = {name: sum(row[name] for row in rows) for name in SUMMED}
        for item, row in zip(items, rows, strict=True):
            beside = [other for other in ours if other.job.config.benchmark.name == row["benchmark"]]
            yield {**row, **_gain(scores_of(beside), scores_of([item]))}
        published = [row["paper_value"] for row in rows]
        score, common = bootstrap(list(scores_of(items).values())), ("method", "scripted")
        yield {
            **names_of(items[0].job.config),
            **{name: rows[0][name] for name in common},
            "benchmark": MEAN,
            "n_tasks": sum(row["n_tasks"] for row in rows),
            **means,
            **sums,
            "metric_lo": score.low,
            "metric_hi": score.high,
            **{f"p{share}_all_s": percentile(latencies, share) for share in PERCENTILES},
            "paper_value": fmean(published) if None not in published else None,
            **_gain(scores_of(ours), scores_of(items)),
        }


def _row(item: Planned) -> dict[str, Any]:
    own, done = table_row(item.job, "main_table"), item.job.run_dir.done or {}
    spent = done["fitting"]
    if item.job.config.kv.dynamic_codec != "none":
        own["paper_value"] = None  # the paper encodes no text
    return {
        **names_of(item.job.config),
        "method": item.job.config.method.name,
        "scripted": " ".join(done["scripted"]),
        "n_tasks": own["n_tasks"],
        **{name: own[name] for name in KEPT},
        "op_bytes": own["retained_op_bytes"],
        "text_bytes": own["retained_dynamic_bytes"],
        **{f"fit_{name}": spent[name] for name in ("tasks", "llm_calls", "tokens")},
        "fit_s": spent["seconds"],
    }


def _oracle(study: Study, planned: list[Planned]) -> Iterator[dict[str, Any]]:
    """Rows of the best of the repository's workflows for each test task: a ceiling, since outcomes are noisy."""
    config, tasks = planned[0].job.config, study.config.experiment.tasks
    names = tuple(dict.fromkeys(item.job.config.benchmark.name for item in planned if _is_mini(item.job.config)))
    if not names:
        return
    own = [item for item in planned if _is_ours(item.job.config)]
    exam = Exam(study.house, config, names, tasks)
    units = [Unit(f"{name} oracle", exam.all_left(name), name) for name in names]
    whole: dict[str, float] = {}
    with work_progress(units, study.console) as progress:
        for name, unit in zip(names, units, strict=True):
            with progress.working_on(unit):
                every: Any = exam.all(name, lambda _: progress.advance())
            best = oracle(every)
            picked = every[every["metric"] == every["task_id"].map(best)]
            cheapest = picked.sort_values("tokens").drop_duplicates("task_id")
            whole |= best
            ours = scores_of([item for item in own if item.job.config.benchmark.name == name])
            yield {**_ceiling(config, name, by_task(cheapest), ours), "llm_calls": float(cheapest["llm_calls"].mean())}
    yield _ceiling(config, MEAN, whole, scores_of(own))


def _ceiling(config: Config, benchmark: str, scores: dict[str, float], ours: dict[str, float]) -> dict[str, Any]:
    score = bootstrap(list(scores.values()))
    return {
        **names_of(config),
        **{"benchmark": benchmark, "method": ORACLE, "state": "stateful", "kv_mode": "stateful", "kv_scope": "none"},
        **{"scripted": "", "n_tasks": len(scores)},
        **{"metric": score.mean, "metric_lo": score.low, "metric_hi": score.high},
        **_gain(ours, scores),
    }


def _is_mini(config: Config) -> bool:
    return config.benchmark.name.startswith("mini-")


def _is_ours(config: Config) -> bool:
    """Whether a cell is what the paper calls GraphFlow: text is not encoded there."""
    kv = config.kv
    return config.method.name == "graphflow" and kv.mode is StateMode.DIFFERENTIAL and kv.dynamic_codec == "none"


def _gain(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float | None]:
    if not set(ours) & set(theirs):
        return dict.fromkeys(("gain", "gain_lo", "gain_hi"))
    gain = paired_difference(ours, theirs)
    return {"gain": gain.mean, "gain_lo": gain.low, "gain_hi": gain.high}
