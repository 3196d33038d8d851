"""What is measured of the episodes of a cell, beyond the columns of every result table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from graphflow.engine.episode import Episode, StepRecord
from graphflow.experiment.stats import bootstrap, percentile
from graphflow.wgraph.library import Library


def judges(library: Library) -> frozenset[str]:
    """Operations whose output is a decision: selections and reviews."""
    return frozenset(op.name for op in library.operations.values() if op.judge)


def fidelity(episodes: Sequence[Episode], deciding: Collection[str]) -> dict[str, float | None]:
    """Closeness to exact state on the same tokens, where it was measured; intervals are over tasks.

    Args:
        episodes: Episodes of a run with ``engine.fidelity`` above 0.
        deciding: Operations whose outputs are decisions.
    """
    measured = [[s for s in episode.steps if s.kl is not None] for episode in episodes]
    measured = [steps for steps in measured if steps]
    steps = [step for own in measured for step in own]
    decisions = [step for step in steps if step.op in deciding]
    if not measured:
        names = ("kl_mean", "kl_lo", "kl_hi", "kl_p99", "greedy_agreement", "agreement_lo", "agreement_hi")
        return dict.fromkeys((*names, "judge_agreement"), None)
    divergence = bootstrap([_mean([step.kl or 0.0 for step in own]) for own in measured])
    agreement = bootstrap([_agreed(own) for own in measured])
    return {
        "kl_mean": divergence.mean,
        "kl_lo": divergence.low,
        "kl_hi": divergence.high,
        "kl_p99": percentile([step.kl or 0.0 for step in steps], 99),
        "greedy_agreement": agreement.mean,
        "agreement_lo": agreement.low,
        "agreement_hi": agreement.high,
        "judge_agreement": _agreed(decisions) if decisions else None,
    }


def tokens(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Prompt tokens a task, those of operation prompts apart, and shares of them whose KV was there.

    ``reuse_share`` counts a context anew at every call that reads it. ``never_prefilled_share`` counts a token once: of
    prompts that were there and all tokens that ran, the former. It is 0 where each request computes its own.
    """
    sums = {
        name: sum(episode.total(name) for episode in episodes)
        for name in ("prefill_tokens", "reused_tokens", "operation_tokens", "operation_reused")
    }
    whole = sums["prefill_tokens"] + sums["reused_tokens"]
    return {
        **{name: value / max(len(episodes), 1) for name, value in sums.items()},
        "reuse_share": sums["reused_tokens"] / whole if whole else 0.0,
        "never_prefilled_share": sums["operation_reused"] / max(sums["prefill_tokens"] + sums["operation_reused"], 1),
        "operation_reuse_share": sums["operation_reused"] / max(sums["operation_tokens"], 1),
    }


def retained(episodes: Sequence[Episode], shared: int, requests: int = 0) -> dict[str, float]:
    """Bytes that keeping every request's state would hold, by category, and operation state and all of it a task.

    Args:
        episodes: What was served.
        shared: Bytes of what all requests share.
        requests: Over how many requests the shared bytes are spread in the figures a task; 0 for those served.
    """
    own, text = sum(e.op_bytes for e in episodes), sum(e.dynamic_bytes for e in episodes)
    return {
        "store_bytes": shared,
        "request_op_bytes": own,
        "request_text_bytes": text,
        "op_bytes_a_task": shared / (requests or len(episodes)) + own / len(episodes),
        "bytes_a_task": shared / (requests or len(episodes)) + (own + text) / len(episodes),
    }


def fallback_rate(episodes: Sequence[Episode]) -> float:
    """Share of language-model steps whose prompt ran exactly because nothing was stored for its path."""
    calls = [step for episode in episodes for step in episode.steps if step.output_tokens]
    return sum(step.fallback for step in calls) / max(len(calls), 1)


def _agreed(steps: Sequence[StepRecord]) -> float:
    return _mean([float(bool(step.agrees)) for step in steps])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
