"""Traffic, covering set, decay and hysteresis by hand."""

import pytest

from graphflow.kv.paths import PathStatistics

A, B, C = ("solve", ()), ("check", ("solve",)), ("fix", ("solve", "check"))


def counted(decay: float = 1.0, **traffic: int) -> PathStatistics:
    paths = PathStatistics(decay)
    for key, times in zip((A, B, C), traffic.values(), strict=False):
        for _ in range(times):
            paths.touch(key)
    return paths


def test_coverage_by_hand():
    # 6, 3 and 1 of 10: .6 needs the first, .61 to .9 two, more needs all.
    paths = counted(a=6, b=3, c=1)
    assert paths.total == 10
    assert paths.coverage(0.6) == {A}
    assert paths.coverage(0.61) == {A, B}
    assert paths.coverage(0.9) == {A, B}
    assert paths.coverage(0.91) == {A, B, C}
    assert paths.coverage(1.0) == {A, B, C}
    assert PathStatistics().coverage(0.95) == set()


def test_equal_traffic_prefers_what_was_seen_first():
    assert counted(a=1, b=1, c=1).coverage(0.5) == {A, B}


def test_decay_by_hand():
    # Decay 1/2, touches A A B: A has (1/2 + 1/4) = .75, B has 1.
    paths = counted(0.5, a=2, b=1)
    assert paths.traffic(A) == 0.75
    assert paths.traffic(B) == 1.0
    assert paths.traffic(C) == 0.0
    assert paths.total == 1.75
    assert paths.coverage(0.5) == {B}
    assert paths.nbytes == 16


def test_renormalising_changes_nothing_and_forgets_the_old():
    # Decay 1/2: the weight passes 2**40 on touch 41. B, touched first, has 2**-40 by then and is forgotten.
    paths = PathStatistics(0.5)
    paths.touch(B)
    for _ in range(60):
        paths.touch(A)
    assert paths.traffic(A) == pytest.approx(2.0)
    assert paths.traffic(B) == 0.0
    assert len(paths) == 1


def test_shifted_workload_re_forms_the_set():
    paths = PathStatistics(0.9)
    for _ in range(100):
        paths.touch(A)
    for _ in range(100):
        paths.touch(B)
    assert paths.coverage(0.95) == {B}


def test_hysteresis_by_hand():
    # Covering .6 of 6, 4, 2 (12) needs A and B: 10 >= 7.2. The level to enter is B's 4.
    paths = counted(a=6, b=4, c=2)
    assert paths.coverage(0.6) == {A, B}
    # To stay, C's 2 must be at least hysteresis * 4.
    assert paths.retained({A, C}, 0.6, 0.5) == {A, C}
    assert paths.retained({A, C}, 0.6, 0.51) == {A}
    assert paths.retained({A, C}, 0.6, 1.0) == {A}
    assert paths.retained({C}, 0.6, 0.0) == {C}
    # What is not held does not come in this way.
    assert paths.retained(set(), 0.6, 0.5) == set()


def test_guards():
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\], got 0"):
        PathStatistics(0)
    with pytest.raises(ValueError, match=r"coverage share must be in \(0, 1\], got 1.1"):
        PathStatistics().coverage(1.1)
    with pytest.raises(ValueError, match=r"hysteresis must be in \[0, 1\], got -1"):
        PathStatistics().retained(set(), 0.5, -1)
