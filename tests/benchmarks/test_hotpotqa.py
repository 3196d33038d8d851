"""HotpotQA scoring by hand and on real rows."""

import pytest

from graphflow.benchmarks.hotpotqa import hotpot_em, hotpot_f1, normalize_answer


def test_normalisation():
    assert normalize_answer("The  U.S. of an A!") == "us of"


@pytest.mark.parametrize(
    ("answer", "reference", "f1", "em"),
    [
        ("the Danube", "Danube", 1.0, 1.0),
        ("river Danube", "Danube", 2 / 3, 0.0),  # precision 1/2, recall 1
        ("a b b c", "b b d", 2 * (2 / 3) * (2 / 3) / (4 / 3), 0.0),  # "a" is an article: 2 of 3, 2 of 3
        ("Rhine", "Danube", 0.0, 0.0),
        ("yes", "yes", 1.0, 1.0),
        ("yes it is", "yes", 0.0, 0.0),  # plain F1 would be 1/2
        ("no", "no one", 0.0, 0.0),
        ("", "Danube", 0.0, 0.0),
    ],
)
def test_score(answer, reference, f1, em):
    assert hotpot_f1(answer, reference) == pytest.approx(f1)
    assert hotpot_em(answer, reference) == em


def test_every_real_row(real_benchmark):
    benchmark = real_benchmark("hotpotqa")
    examples = benchmark.examples("validation") + benchmark.examples("test")
    assert len(examples) >= 100
    for example in examples:
        assert benchmark.score(example, f"From the passages.\nAnswer: {example.reference}") == 1.0, example.task.id
        assert benchmark.score(example, "Answer: zyzzyva") == 0.0
        assert len(example.task.passages) >= 2
        assert example.task.passages[0] in example.task.text
        assert example.task.family in ("bridge", "comparison")
