"""Bootstrap and quantiles against values worked out by hand."""

from __future__ import annotations

import pytest

from graphflow.experiment.stats import bootstrap, paired_difference, percentile


def test_a_constant_has_no_width() -> None:
    assert vars(bootstrap([0.5] * 7)) == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_two_values_by_hand() -> None:
    # Of {0, 1}, resampled twice: means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4; so the 2.5 % quantile is 0 and the
    # 97.5 % quantile 1, and a 40 % interval (30 % to 70 % quantile) is 1/2 to 1/2.
    wide, narrow = bootstrap([0, 1]), bootstrap([0, 1], level=0.4)
    assert (wide.mean, wide.low, wide.high) == (0.5, 0.0, 1.0)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_half_right_of_a_hundred_is_near_the_normal_interval() -> None:
    # standard error sqrt(.5 x .5 / 100) = .05, so the 95 % interval is about .5 -+ .098
    interval = bootstrap([0, 1] * 50)
    assert interval.low == pytest.approx(0.402, abs=0.02)
    assert interval.high == pytest.approx(0.598, abs=0.02)


def test_the_seed_decides() -> None:
    values = [0.1, 0.9, 0.4, 0.7, 0.2]
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_differences_are_paired_by_task() -> None:
    # a: .5 - .3, b: .9 - .7; c and d ran in one method only. Unpaired means would differ by .2 with a wide interval;
    # paired, each task differs by exactly .2.
    interval = paired_difference({"a": 0.5, "b": 0.9, "c": 0.0}, {"a": 0.3, "b": 0.7, "d": 1.0})
    assert interval.mean == pytest.approx(0.2)
    assert interval.low == pytest.approx(0.2)
    assert interval.high == pytest.approx(0.2)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([])
    with pytest.raises(ValueError, match="both methods ran"):
        paired_difference({"a": 1.0}, {"b": 1.0})


def test_percentile_by_hand() -> None:
    # of 1, 2, 3, 4, 5: position .9 x 4 = 3.6, so 4 + .6
    assert percentile([5, 1, 4, 2, 3], 90) == pytest.approx(4.6)
    assert percentile([], 90) == 0.0
