"""Rows of about one length together: what is padded is run and held for nothing."""

from __future__ import annotations

from collections.abc import Sequence

PADDING = 64
"""Tokens that run in the time that one more forward pass takes, with a mini backbone on a CPU."""


def alike(lengths: Sequence[int], padding: int) -> list[list[int]]:
    """Groups of rows of about one length, so that the least is run: what pads them, and forward passes (our choice).

    Args:
        lengths: Tokens of every row that run.
        padding: Tokens that one more forward pass costs as much as, 0 or more.

    Returns:
        The places of each group in ascending order, the group with the longest rows first.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    best: list[tuple[int, int]] = [(0, 0)]  # of the first rows: the least cost, and where the last group begins
    for stop in range(1, len(order) + 1):
        costs = ((best[start][0] + padding + (stop - start) * lengths[order[start]], start) for start in range(stop))
        best.append(min(costs))
    groups, stop = [], len(order)
    while stop:
        start = best[stop][1]
        groups.append(sorted(order[start:stop]))
        stop = start
    return groups[::-1]
