"""Intervals and quantiles: the few statistics that every table uses.

Bootstrap over tasks (percentile interval, seeded); differences of two methods are paired by task. The paper reports no
intervals; these are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Mean and percentile bootstrap interval.

    Args:
        values: One value a task, at least one.
        seed: Seed of the resampling.
        resamples: How often to resample.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: There are no values.
    """
    if len(values) == 0:
        raise ValueError("bootstrap needs at least one value, got none")
    array = np.asarray(values, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(0, len(array), size=(resamples, len(array)))
    means = array[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float], seed: int = 0) -> Interval:
    """Mean of ``ours - theirs`` over the tasks that both ran, with its bootstrap interval.

    Args:
        ours: Value by task id.
        theirs: Value by task id.
        seed: Seed of the resampling.

    Raises:
        ValueError: No task is in both.
    """
    shared = sorted(set(ours) & set(theirs))
    if not shared:
        raise ValueError("a paired difference needs tasks that both methods ran, got none")
    return bootstrap([ours[task] - theirs[task] for task in shared], seed=seed)


def percentile(values: Sequence[float], percent: float) -> float:
    """Percentile with linear interpolation; 0 for no values."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent)) if len(values) else 0.0
