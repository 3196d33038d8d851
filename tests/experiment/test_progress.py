"""The remaining time by hand."""

from __future__ import annotations

from graphflow.experiment.progress import Remaining, Unit, clock


def test_nothing_measured_says_so() -> None:
    assert Remaining([Unit("a", 5)]).seconds() is None


def test_own_rate_then_benchmark_then_method_then_all() -> None:
    units = [
        Unit("a", 10, "x", "m", done=4, seconds=8.0),  # 2 s a task, 6 left: 12 s
        Unit("b", 10, "x", "n"),  # as its benchmark: 10 x 2 = 20 s
        Unit("c", 10, "y", "o", done=10, seconds=50.0),  # 5 s a task, none left
        Unit("d", 2, "z", "o"),  # as its method: 2 x 5 = 10 s
        Unit("e", 7, "w", "p"),  # as all: (8 + 50) / (4 + 10) x 7 = 29 s
    ]
    assert Remaining(units).seconds() == 12 + 20 + 0 + 10 + 29


def test_clock() -> None:
    assert [clock(s) for s in (5, 65, 3700)] == ["0:05", "1:05", "1:01:40"]
