"""Rows are grouped so that padding and passes together cost the least."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphflow.backbone.padding import alike


def cost(lengths, groups, padding):
    return sum(padding + len(group) * max(lengths[place] for place in group) for group in groups)


def partitions(places):
    """All ways to cut a list into groups."""
    if not places:
        yield []
        return
    first, rest = places[0], places[1:]
    for groups in partitions(rest):
        yield [[first], *groups]
        for index, group in enumerate(groups):
            yield [*groups[:index], [first, *group], *groups[index + 1 :]]


@given(st.lists(st.integers(1, 60), max_size=7), st.integers(0, 80))
def test_no_grouping_costs_less(lengths, padding):
    groups = alike(lengths, padding)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    best = min(cost(lengths, other, padding) for other in partitions(list(range(len(lengths)))))
    assert cost(lengths, groups, padding) == best


@pytest.mark.parametrize(
    ("padding", "groups"), [(64, [[1], [0, 2, 3]]), (1000, [[0, 1, 2, 3]]), (0, [[1], [3], [0, 2]])]
)
def test_the_longest_come_first_and_places_ascend(padding, groups):
    assert alike([10, 300, 10, 12], padding) == groups


def test_nothing_is_no_group():
    assert alike([], 64) == []
