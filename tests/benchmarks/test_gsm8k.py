"""GSM8K scoring by hand and on real rows."""

import pytest

from graphflow.benchmarks.gsm8k import gsm8k_score, number_answer


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("She makes 9 * 2 = $18.\n#### 18", "18", 1.0),
        ("18.0000005", "18", 1.0),  # 5e-7 away: within 1e-6
        ("18.000002", "18", 0.0),  # 2e-6 away
        ("1,234 dollars", "1234", 1.0),
        ("-$1,234.50", "-1234.5", 1.0),
        ("5", "-5", 0.0),
        ("18 of 20", "18", 0.0),  # the last number counts
        ("eighteen", "18", 0.0),
        ("", "18", 0.0),
    ],
)
def test_score(answer, reference, score):
    assert gsm8k_score(answer, reference) == score


def test_number_answer():
    assert number_answer("7, then 1,000") == 1000.0
    assert number_answer("none") is None


def test_every_real_row(real_benchmark):
    benchmark = real_benchmark("gsm8k")
    examples = [example for split in ("train", "validation", "test") for example in benchmark.examples(split)]
    assert len(examples) > 100
    for example in examples:
        assert example.reference not in ("", example.task.text)
        assert benchmark.score(example, f"so it is\n#### {example.reference}") == 1.0, example.task.id
        wrong = (number_answer(example.reference) or 0) + 1
        assert benchmark.score(example, f"#### {wrong}") == 0.0, example.task.id
