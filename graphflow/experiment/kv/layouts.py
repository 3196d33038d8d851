"""`layouts`: operation first against task first, as texts grow longer and calls more (our choice).

Operation first, a call is its operation's prompt, which plain prefix caching shares, then the task and all that was
written, which run again for every call. Task first, the text runs once and the prompts are what is computed again or
shared. So one is cheap where texts are short, the other where they are long and calls many, and the question is where
they cross.

Work is synthetic (`graphflow.experiment.kv.texts`) and goes through the whole engine. Bytes are those that keeping
every served request's state would hold, as in the other experiments. Operation first, no later call of a chain reads a
text's KV again, so a server may drop it: what it cannot do without is in ``op_bytes_a_task``. stateful_int4 keeps text
in 4 bits too, which operation first could as well (``kv.dynamic_codec=int4``). Crossings of P90 are those of one run on
one machine and move where two curves lie close together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import pandas as pd

from graphflow.backbone.load import Backbone
from graphflow.engine.executor import Executor
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.experiment.kv.contexts import server
from graphflow.experiment.kv.figures import draw_layouts
from graphflow.experiment.kv.measures import retained, tokens
from graphflow.experiment.kv.study import Study, names_of
from graphflow.experiment.kv.texts import CHAIN, Size, context_tokens, endless, examples, words_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.run import Job, Server, run_cell
from graphflow.experiment.serve import use_threads
from graphflow.experiment.stats import percentile
from graphflow.kv import StateMode

MEASURES = ("prefill_tokens", "op_bytes_a_task", "bytes_a_task", "p90_s")
OURS, RIVAL = "task first", "operation first"
PREFIX = StateMode.PREFIX.value
NONE, EQUAL = "none in range", "equal throughout"
SHOWN = ("backbone", "calls", "text_tokens", "state", "prefill_tokens", "op_bytes_a_task", "bytes_a_task", "p90_s")


@dataclass(frozen=True)
class Planned:
    """One cell: a state mode and a size of work.

    Attributes:
        config: The state mode, and everything else but the work.
        size: The work.
        context: Tokens of the longest context.
        skipped: Why it is not run; empty if it is.
    """

    config: Config
    size: Size
    context: int
    skipped: str

    @property
    def operation_first(self) -> bool:
        """Whether the layout is operation first."""
        return self.config.kv.mode is StateMode.OPERATION_FIRST


def layouts(study: Study) -> pd.DataFrame:
    """Run what is left; write the table (``layouts.csv``), crossings, P90 beside prefix sharing's, and the figure."""
    planned = list(_planned(study))
    if {item.operation_first for item in planned if not item.skipped} != {True, False}:
        raise ConfigError("experiment.grids must have operation_first and another state mode that fit the backbone")
    units = [Unit(_label(item), 0 if item.skipped else item.config.benchmark.limit) for item in planned]
    rows = []
    with work_progress(units, study.console) as progress:
        for item, unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                job = None if item.skipped else _job(study, item)
                if job:
                    run_cell(job, lambda _: progress.advance())
                rows.append(_row(study, item, job))
    frame = study.write(study.name, rows)
    left_out = frame[frame["skipped"].notna()]
    for reason, part in left_out.groupby("skipped", sort=False):
        study.console.print(f"skipped {len(part)} cells: {reason}", highlight=False)
    found = study.write(f"{study.name}_crossings", crossings(frame[frame["skipped"].isna()]))
    study.say(*draw_layouts(frame, found, study.name, study.figures))
    study.show(frame[frame["skipped"].isna()], SHOWN, "Layouts by text and calls")
    shown = ("backbone", "calls", "state", "measure", "crossing", "lower_before", "lower_after")
    study.show(found, shown, "Text tokens at which both layouts are equal")
    if beside := list(over_prefix(frame[frame["skipped"].isna()])):
        beside = study.write(f"{study.name}_over_prefix", beside)
        study.show(beside, ("backbone", "calls", "state", "sizes", "median", "lowest", "highest"), "P90 over prefix's")
    return frame


def doubled(first: int, last: int) -> list[int]:
    """The first number, doubled until the last one, which is always there."""
    found = [first]
    while found[-1] * 2 < last:
        found.append(found[-1] * 2)
    return found if last <= first else [*found, last]


def _planned(study: Study) -> Iterator[Planned]:
    """Every cell: state modes of one size next to each other, so that their times are from the same minutes."""
    most = study.size("calls")
    if not 2 <= most <= len(CHAIN):
        raise ConfigError(f"experiment.sizes.calls must be between 2 and {len(CHAIN)}, got {most}")
    texts = doubled(study.size("shortest"), study.size("longest"))
    written, prompts = study.size("outputs"), study.size("prompts")
    sizes = [Size(text, calls, written, prompts) for calls in doubled(2, most) for text in texts]
    configs = [config for _, config in study.cells()]
    for _, own in groupby(configs, key=lambda config: config.backbone):
        same = list(own)
        backbone = study.house.backbone(same[0])
        for size in sizes:
            for config in same:
                first = config.kv.mode is StateMode.OPERATION_FIRST
                context = context_tokens(backbone, study.house.library, size, first)
                yield Planned(config, size, context, _reason(backbone, config, size, context))


def _reason(backbone: Backbone, config: Config, size: Size, context: int) -> str:
    """Why a cell cannot run: a trained backbone knows contexts up to a length; random weights know none."""
    model: Any = backbone.model.config
    if config.backbone.random or context <= model.max_position_embeddings:
        return ""
    return f"{names_of(config)['backbone']} has contexts of at most {model.max_position_embeddings} tokens"


def _label(item: Planned) -> str:
    return f"{item.size.text} tokens x {item.size.calls} calls, {names_of(item.config)['state']}"


def _job(study: Study, item: Planned) -> Job:
    """A cell, ready to run."""
    house, config, size = study.house, item.config, item.size
    facts = {**house.facts(config), "workflows": f"synthetic {'>'.join(CHAIN[: size.calls])}", "size": vars(size)}

    def open_server() -> Server:
        use_threads(config)
        backbone = endless(house.backbone(config))
        executor = Executor(backbone, size.library(house.library), config.kv, config.engine)
        words = words_of(backbone, (op.prompt for op in house.library.operations.values()))
        count = config.benchmark.limit
        made = examples(backbone, words, size.text, count + config.warmup, config.engine.seed)
        return server(executor, made[:count], made[count:], lambda tasks: [size.workflow] * len(tasks), {})

    return Job(config, facts, open_server, "none")


def _row(study: Study, item: Planned, job: Job | None) -> dict[str, Any]:
    names = {
        **names_of(item.config),
        "benchmark": "synthetic",
        "layout": RIVAL if item.operation_first else OURS,
        "calls": item.size.calls,
        "text_tokens": item.size.text,
        "output_tokens": item.size.outputs,
        "prompts": item.size.prompts,
        "context_tokens": item.context,
        "skipped": item.skipped,
        "n_tasks": 0,
    }
    if job is None:
        return names
    episodes, done, requests = job.run_dir.episodes(), job.run_dir.done or {}, study.size("requests")
    latency = [episode.latency_s for episode in episodes]
    return {
        **names,
        "n_tasks": len(episodes),
        "concurrency": item.config.engine.concurrency,
        "requests": requests,
        **retained(episodes, done["shared_bytes"], requests),
        "resident_peak_bytes": done["peak_bytes"],
        **tokens(episodes),
        "p50_s": percentile(latency, 50),
        "p90_s": percentile(latency, 90),
        "run_id": job.run_id,
    }


def crossings(frame: Any) -> list[dict[str, Any]]:
    """Where operation first and each task-first mode are equal, by measure and number of calls.

    Returns:
        A row a crossing, or one that says that there is none in the range of texts that both ran.
    """
    rows = []
    for (backbone, calls), part in frame.groupby(["backbone", "calls"], sort=False):
        rival = part[part["layout"] == RIVAL].set_index("text_tokens")
        for state, own in part[part["layout"] == OURS].groupby("state", sort=False):
            ours = own.set_index("text_tokens")
            texts = sorted(set(ours.index) & set(rival.index))
            if not texts:
                continue
            for measure in MEASURES:
                gaps = [float(rival.loc[text, measure] - ours.loc[text, measure]) for text in texts]
                for crossing, before, after in equal_at(texts, gaps):
                    rows.append(
                        {
                            "backbone": backbone,
                            "calls": calls,
                            "state": state,
                            "measure": measure,
                            "shortest": texts[0],
                            "longest": texts[-1],
                            "crossing": crossing,
                            "lower_before": before,
                            "lower_after": after,
                            "n_tasks": int(own["n_tasks"].min()),
                        }
                    )
    return rows


def over_prefix(frame: Any) -> Iterator[dict[str, Any]]:
    """P90 of every state over that of exact prefix sharing at the same size: median and range over texts, by calls."""
    for (backbone, calls), part in frame.groupby(["backbone", "calls"], sort=False):
        p90 = part.pivot(index="text_tokens", columns="state", values="p90_s")
        for state in dict.fromkeys(part["state"]):
            if PREFIX in p90 and state != PREFIX:
                ratio = (p90[state] / p90[PREFIX]).dropna()
                spread = {"median": ratio.median(), "lowest": ratio.min(), "highest": ratio.max()}
                yield {"backbone": backbone, "calls": calls, "state": state, "sizes": len(ratio), **spread}


def equal_at(texts: Sequence[int], gaps: Sequence[float]) -> list[tuple[str, str, str]]:
    """Where a gap that is linear between the texts is zero, and who is lower on either side.

    Args:
        texts: Tokens, rising.
        gaps: Operation first minus task first at each of them.

    Returns:
        Tokens in text form, who is lower before and who after (empty beyond the range); one entry that says so where
        there is no such place, or nothing else.
    """
    if not any(gaps):
        return [(EQUAL, "", "")]
    points = list(zip(texts, gaps, strict=True))
    found = [float(text) for text, gap in points if not gap]
    for (x, gap), (then, other) in pairwise(points):
        if gap * other < 0:
            found.append(x + (then - x) * gap / (gap - other))

    def lower(side: list[float]) -> str:
        nearest = next((gap for gap in side if gap), 0.0)
        return "" if not nearest else RIVAL if nearest < 0 else OURS

    if not found:
        return [(NONE, lower(list(gaps)), lower(list(gaps)))]
    return [
        (
            f"{place:.1f}",
            lower([gap for text, gap in reversed(points) if text < place]),
            lower([gap for text, gap in points if text > place]),
        )
        for place in sorted(found)
    ]
