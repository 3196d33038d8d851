"""When tasks arrive: one for each that ends (closed loop), or by themselves (open loop)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import Enum
from itertools import repeat


class Arrivals(Enum):
    """How tasks arrive."""

    CLOSED = "closed"
    """As soon as there is a place among the tasks in flight."""
    POISSON = "poisson"
    """Independently of each other, at a mean rate."""
    BURSTS = "bursts"
    """`BURST` at once, at the same mean rate."""


BURST = 8


def arrival_times(kind: Arrivals, rate: float, seed: int) -> Iterator[float | None]:
    """Seconds from the start at which tasks arrive, for ever; None where a task arrives when there is a place.

    Args:
        kind: How they arrive. The gaps between bursts are exponential too.
        rate: Tasks a second, in the mean.
        seed: The same seed gives the same times.
    """
    if kind is Arrivals.CLOSED:
        yield from repeat(None)
    size, now, gaps = (BURST if kind is Arrivals.BURSTS else 1), 0.0, random.Random(f"arrivals/{seed}")
    while True:
        now += gaps.expovariate(rate / size)
        yield from repeat(now, size)
