"""`long_horizon`: chains of 4 to 64 operations, the error and the bytes along them (the paper leaves it open)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from graphflow.experiment.kv.codecs import measured
from graphflow.experiment.kv.figures import draw_horizon
from graphflow.experiment.kv.fixed import Flows, key_of, reference, replay
from graphflow.experiment.kv.measures import fidelity, judges
from graphflow.experiment.kv.study import Study
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.record import RunDir
from graphflow.experiment.run import run_cell
from graphflow.wgraph.workflow import TASK, Step, Workflow

FIRST, AGAIN = "generate_cot", ("review", "revise")
SHORTEST = 4
END = 4
"""Operations at the end of a chain that the error at that depth is measured over."""
SHOWN = (
    "backbone",
    "state",
    "length",
    "kl_at_end",
    "agreement_at_end",
    "op_bytes_a_task",
    "operation_reuse_share",
    "metric",
)


def chain(length: int) -> Workflow:
    """A draft, then review and revision in turns: so many operations in one context."""
    ops = [FIRST, *(AGAIN[place % len(AGAIN)] for place in range(length - 1))]
    steps = tuple(Step(f"s{i}", op, (f"s{i - 1}" if i else TASK,)) for i, op in enumerate(ops))
    return Workflow(f"chain_{length}", (), steps, steps[-1].id)


def lengths(longest: int) -> list[int]:
    """4, 8, 16 ... up to the longest."""
    found = [SHORTEST]
    while found[-1] * 2 <= longest:
        found.append(found[-1] * 2)
    return found


def _flows(length: int) -> Flows:
    """Every task through the chain. Steps are named alike in chains of all lengths, so that they read one reference."""

    def build(tasks: Sequence) -> list[Workflow]:
        return [chain(length)] * len(tasks)

    return Flows(f"chain {length}", build, closed=False)


def long_horizon(study: Study) -> pd.DataFrame:
    """Run what is left; write ``long_horizon.csv`` and its figure.

    The reference is a stateful run of the longest chain: every chain's contexts are beginnings of it. A context may
    become longer than any that the backbone was trained on (``longest_context``): there the error is still that of the
    state, but of a model that no longer knows what it reads.
    """
    grid = lengths(study.size("longest"))
    planned = [(config, length) for _, config in study.cells() for length in grid]
    units = [Unit(f"{c.kv.mode.value} x{n}", c.benchmark.limit, str(n)) for c, n in planned]
    references: dict[str, RunDir] = {}
    warmup, rows = max(config.warmup for config, _ in planned), []
    with work_progress(units, study.console) as progress:
        for (config, length), unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                key = key_of(config)
                if key not in references:
                    references[key] = reference(study.house, replace(config, warmup=warmup), _flows(grid[-1]))
                job = replay(study.house, config, _flows(length), references[key])
                run_cell(job, lambda _: progress.advance())
                longest: Any = study.house.backbone(config).model.config
                limit = {"length": length, "longest_context": longest.max_position_embeddings}
                rows.append({**measured(study, job), **limit, **_at_end(study, job.run_dir)})
    frame = study.write("long_horizon", rows)
    study.say(*draw_horizon(frame, study.figures))
    study.show(frame, SHOWN, "Chains of operations: error over the last operations, bytes")
    return frame


def _at_end(study: Study, run: RunDir) -> dict[str, Any]:
    """Fidelity over the last operations of a chain, the score, and the longest context."""
    episodes = run.episodes()
    ends = [replace(episode, steps=episode.steps[-END:]) for episode in episodes]
    found = fidelity(ends, judges(study.house.library))
    names = {"kl_mean": "kl_at_end", "kl_lo": "kl_at_end_lo", "kl_hi": "kl_at_end_hi"}
    names |= {"greedy_agreement": "agreement_at_end"}
    last = [episode.steps[-1] for episode in episodes]
    return {
        **{new: found[old] for old, new in names.items()},
        "context_tokens": sum(step.prefill_tokens + step.reused_tokens for step in last) / len(last),
        "metric": sum(episode.score or 0.0 for episode in episodes) / len(episodes),
    }
