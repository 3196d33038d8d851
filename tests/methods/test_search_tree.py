"""AFlow's selection, experience and stopping rule, worked out by hand."""

import math
import random
from collections import Counter
from dataclasses import replace

import pytest

from graphflow.methods.search_tree import Node, Refused, Tree, probabilities
from tests.generator.small import COT, RUN, VOTE


def grown(scores):
    """A tree with these scores, each workflow made from the first one."""
    tree = Tree(COT, scores[0])
    for round, score in enumerate(scores[1:], 1):
        tree.add(round, replace(RUN, name=f"r{round}"), score, tree.nodes[0], f"edit {round}")
    return tree


def test_probabilities_are_the_formula():
    # scores 50 and 40 points: weights e^0 and e^(-0.2 * 10) = 0.1353; softmax .8808 and .1192
    # 0.3 / 2 + 0.7 * .8808 = .7666 and 0.3 / 2 + 0.7 * .1192 = .2334
    assert probabilities([0.5, 0.4]) == pytest.approx([0.7666, 0.2334], abs=1e-4)
    assert probabilities([0.2, 0.2, 0.2]) == pytest.approx([1 / 3] * 3)
    assert probabilities([1.0, 0.0], uniform=1.0) == [0.5, 0.5]
    far = probabilities([1.0, 0.0, 0.0, 0.0])
    assert far == pytest.approx([0.775, 0.075, 0.075, 0.075]), "a third of the choices is uniform"


def test_the_first_workflow_is_always_a_candidate():
    tree = grown([0.1, 0.5, 0.9, 0.7, 0.6, 0.9])
    assert [node.round for node in tree.candidates()] == [0, 2, 5, 3]
    assert [node.round for node in grown([0.9, 0.1]).candidates()] == [0, 1]


def test_candidates_are_drawn_by_their_probabilities():
    tree, draw = grown([0.40, 0.50, 0.50, 0.45, 0.1]), random.Random(0)
    counts = Counter(tree.choose(draw).round for _ in range(20_000))
    expected = probabilities([0.40, 0.50, 0.50, 0.45])
    assert set(counts) == {0, 1, 2, 3}, "four candidates, the worst is none of them"
    for round, probability in zip((0, 1, 2, 3), expected, strict=True):
        sigma = math.sqrt(probability * (1 - probability) / 20_000)
        assert abs(counts[round] / 20_000 - probability) < 4 * sigma


def test_experience_is_that_of_one_workflow():
    tree = Tree(COT, 0.5)
    run = tree.add(1, RUN, 0.6, tree.nodes[0], "edit a")
    tree.add(2, VOTE, 0.5, tree.nodes[0], "edit b")
    tree.add(3, replace(VOTE, name="x"), 0.9, run, "edit c")
    tree.nodes[0].refused.append(Refused("edit d", "no such step"))
    assert tree.experience(tree.nodes[0]).split("\n") == [
        "- [better, 0.6000] edit a",
        "- [not better, 0.5000] edit b",
        "- [refused: no such step] edit d",
    ]
    assert tree.experience(run) == "- [better, 0.9000] edit c"
    assert tree.experience(Node(9, COT, 0.0)) == ""


def test_it_stands_still_after_five_rounds_of_the_same_best_three():
    scores = [0.5, 0.5, 0.5, 0.1, 0.2, 0.3]
    assert grown(scores).stands_still(), "the mean is .5 from the first workflow on"
    assert not grown(scores[:-1]).stands_still(), "four rounds are not five"
    assert not grown([0.4, *scores[1:]]).stands_still(), ".4, .45, .4667, then three rounds"
    assert grown([0.4, 0.5, 0.5, 0.1, 0.2, 0.3, 0.4, 0.4]).stands_still()
    assert not grown([0.4, 0.5, 0.5, 0.1, 0.2, 0.3, 0.4, 0.41]).stands_still(), "the third best has changed"


def test_the_best_is_the_earliest_of_equals():
    assert grown([0.1, 0.7, 0.3, 0.7]).best.round == 1
