"""Arrival times: seeds, rates, bursts."""

from itertools import islice

import pytest

from graphflow.engine.arrivals import BURST, Arrivals, arrival_times


def times(kind, count, rate=4.0, seed=0):
    return list(islice(arrival_times(kind, rate, seed), count))


def test_a_closed_loop_has_no_times():
    assert times(Arrivals.CLOSED, 3) == [None] * 3


@pytest.mark.parametrize("kind", [Arrivals.POISSON, Arrivals.BURSTS])
def test_times_repeat_with_the_seed_and_scale_with_the_rate(kind):
    one = times(kind, 40)
    assert one == times(kind, 40) != times(kind, 40, seed=1)
    assert one == sorted(one) and one[0] > 0
    assert times(kind, 40, rate=8.0) == pytest.approx([time / 2 for time in one])


@pytest.mark.parametrize("kind", [Arrivals.POISSON, Arrivals.BURSTS])
def test_the_mean_rate_is_kept(kind):
    """2,000 arrivals, 250 bursts: the mean of so many exponential gaps is within 20 % of its expectation."""
    assert 2000 / times(kind, 2000)[-1] == pytest.approx(4.0, rel=0.2)


def test_gaps_are_exponential_and_bursts_come_together():
    poisson = times(Arrivals.POISSON, 4000)
    gaps = [later - earlier for earlier, later in zip(poisson[:-1], poisson[1:], strict=True)]
    mean = sum(gaps) / len(gaps)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03), "1 / e of them"
    bursts = times(Arrivals.BURSTS, 5 * BURST)
    assert [len(set(bursts[i : i + BURST])) for i in range(0, len(bursts), BURST)] == [1] * 5
    assert len(set(bursts)) == 5
