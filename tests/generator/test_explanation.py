"""What is said about a choice adds up to the choice, by hand on a graph of five edges."""

from __future__ import annotations

import math

import pytest
import torch

from graphflow.generator.explanation import explain, nearest, rewards
from graphflow.generator.features import FeatureConfig
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.outcomes import OutcomeTable, RewardConfig
from tests.generator.small import COT, RUN, VOTE, row, small_graph, word_task

TASK = word_task(0)[0]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch):
    """A generator whose network gives these logits: five edges, then the nodes."""

    def make(edges: dict[int, float], answers: dict[str, float], **config) -> Generator:
        torch.manual_seed(0)
        generator = Generator(GeneratorConfig(features=FeatureConfig(dim=64), **config), small_graph())
        logits = torch.zeros(1, generator.sampler.grammar.size)
        for edge, value in edges.items():
            logits[0, edge] = value
        for node, value in answers.items():
            logits[0, 5 + generator.wgraph.index(node)] = value
        monkeypatch.setattr(generator, "logits", lambda features: logits.expand(len(features), -1))
        return generator

    return make


def test_without_an_opinion_by_hand(made) -> None:
    """Four answers at 1/4; a vote takes each of its two edges or not, so both are a quarter of its quarter."""
    found = explain(made({}, {}), TASK)
    shares = {candidate.workflow.name: candidate.probability for candidate in found.candidates}
    assert shares == pytest.approx({"cot": 1 / 4, "run": 1 / 4, "vote": 1 / 16})
    assert found.covered == pytest.approx(9 / 16)
    assert found.use == pytest.approx([5 / 9, 5 / 9, 5 / 9, 1 / 9, 1 / 9])
    assert found.workflow == COT == found.candidates[0].workflow
    (choice,) = found.choices
    assert (choice.taken, choice.instead) == ("answer from cot", "answer from program")
    assert (choice.share, choice.loss) == pytest.approx((1 / 4, 1 / 4))


def test_choices_make_the_probability_of_the_pick(made) -> None:
    found = explain(made({3: 2.0, 4: 1.0}, {"vote": 3.0}), TASK)
    assert found.workflow == VOTE == found.candidates[0].workflow
    assert found.choices[0].taken == "answer from vote"
    assert {choice.instead for choice in found.choices[1:]} == {"without cot -> vote", "without run -> vote"}
    assert math.prod(choice.share for choice in found.choices) == pytest.approx(found.candidates[0].probability)
    assert found.choices[0].share == pytest.approx(math.exp(3) / (math.exp(3) + 3))
    for choice in found.choices[1:]:
        assert choice.share + choice.loss == pytest.approx(1)


def test_a_recombination_is_among_the_candidates(made) -> None:
    """Greedy decoding takes the vote over one answer, which nobody merged."""
    found = explain(made({3: 4.0, 4: -4.0}, {"vote": 3.0}, decode="greedy"), TASK)
    assert found.workflow.name.startswith("composed_")
    assert found.candidates[0].workflow == found.workflow
    assert len(found.candidates) == 4 and found.covered < 1


def test_a_kinds_own_edges(made) -> None:
    found = explain(made({}, {"vote": 9.0}, mask_kind=True), TASK)
    assert found.workflow.answer == "vote"
    with pytest.raises(ValueError, match="no workflow of the wGraph is made for kind 'sums'"):
        explain(made({}, {}, mask_kind=True), type(TASK)("x", "words", "sums", "how many"))


def test_what_training_saw_by_hand() -> None:
    config = GeneratorConfig(features=FeatureConfig(dim=256), reward=RewardConfig(tokens=0.0))
    generator = Generator(config, small_graph())
    table = OutcomeTable()
    texts = {"a": "how many apples are there", "b": "where was the painter born", "c": "how many pears are there"}
    for name, text in texts.items():
        task = type(TASK)(name, "words", "gsm8k", text)
        table.add(row(task, COT, 1.0 if name == "a" else 0.0), COT)
        if name == "c":
            table.add(row(task, RUN, 0.5, seed=0), RUN)
            table.add(row(task, RUN, 1.0, seed=1), RUN)
    like = nearest(generator, table, type(TASK)("new", "words", "gsm8k", "how many plums are there"), 2)
    assert {task.id for task in like} == {"a", "c"}
    assert rewards(generator, table, like) == {COT.fingerprint: (0.5, 2), RUN.fingerprint: (0.75, 1)}
    assert rewards(generator, table, table.tasks())[COT.fingerprint] == (pytest.approx(1 / 3), 3)
