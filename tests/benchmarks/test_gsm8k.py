"""GSM8K scoring by hand and on real rows."""

import pytest

from graphflow.benchmarks.aflow import aflow_gsm8k_score, aflow_number
from graphflow.benchmarks.gsm8k import gsm8k_score, number_answer

# answer, reference, strict, aflow
CASES = [
    ("She makes 9 * 2 = $18.\n#### 18", "18", 1.0, 1.0),
    ("18.0000005", "18", 1.0, 1.0),  # 5e-7 away: within 1e-6
    ("18.000002", "18", 0.0, 0.0),  # 2e-6 away
    ("1,234 dollars", "1234", 1.0, 1.0),
    ("#### 1,234,567.50", "1234567.5", 1.0, 1.0),
    ("#### 1234", "1,234", 1.0, 1.0),
    ("1,2345", "12345", 0.0, 0.0),  # no grouping by thousands: 2345 and 5 are the last numbers
    ("-$1,234.50", "-1234.5", 1.0, 0.0),  # AFlow's expression wants the digits right after the sign
    ("#### -7", "-7", 1.0, 1.0),
    ("#### +7", "7", 1.0, 1.0),
    ("#### \u22127", "-7", 1.0, 0.0),  # the true minus sign
    ("x=-5", "-5", 1.0, 1.0),
    ("it is 12-5", "5", 1.0, 0.0),  # a hyphen after a digit is no sign here; AFlow reads -5
    ("the answer-5", "5", 1.0, 0.0),
    ("5", "-5", 0.0, 0.0),
    ("#### .5", "0.5", 1.0, 0.0),  # AFlow reads 5
    ("#### 18.", "18", 1.0, 1.0),
    ("**18**", "18", 1.0, 1.0),
    (r"\boxed{18}", "18", 1.0, 1.0),
    ("#### 18 dollars\nThat is for 2 days.", "18", 1.0, 0.0),  # the marker counts; AFlow reads 2
    ("#### 18 (6 times 3)", "18", 1.0, 0.0),
    ("#### 4\nNo, that is wrong.\n#### 18", "18", 1.0, 1.0),
    ("#### eighteen, so 18", "18", 1.0, 1.0),
    ("#### Step 1: add\n2 + 3 = 5\n#### Step 2: so the total is\n2 * 9 = 18", "18", 1.0, 1.0),  # headings
    ("#### 1. Add\n2 + 16\n#### 12. Total\nIt is 18.", "18", 1.0, 1.0),
    ("#### 18\n#### Step 3: check\n9 * 2 = 18, not 17", "18", 1.0, 0.0),
    ("#### **$1,018.00**.", "1018", 1.0, 1.0),
    ("#### 17 or\n#### 18\n#### 16 is wrong", "18", 1.0, 0.0),  # the one that stands alone
    ("18 of 20", "18", 0.0, 0.0),  # without a marker the last number counts
    ("1/2", "0.5", 0.0, 0.0),  # no reference is a fraction, so none is computed
    ("50%", "50", 1.0, 1.0),
    ("5 km", "5", 1.0, 1.0),
    ("eighteen", "18", 0.0, 0.0),
    ("I cannot answer that.", "18", 0.0, 0.0),
    ("", "18", 0.0, 0.0),
    ("9" * 400, "18", 0.0, 0.0),  # larger than any float
]


@pytest.mark.parametrize(("answer", "reference", "strict", "aflow"), CASES)
def test_score(answer, reference, strict, aflow):
    assert gsm8k_score(answer, reference) == strict
    assert aflow_gsm8k_score(answer, reference) == aflow


def test_number_answer():
    assert number_answer("7, then 1,000") == 1000.0
    assert number_answer("none") is None
    assert aflow_number("7, then 1,000.5") == 1000.5
    assert aflow_number("none") is None


@pytest.mark.parametrize("scoring", ["strict", "aflow"])
def test_every_real_row(real_benchmark, scoring):
    benchmark = real_benchmark("gsm8k", scoring=scoring)
    examples = [example for split in ("train", "validation", "test") for example in benchmark.examples(split)]
    assert len(examples) > 100
    for example in examples:
        assert example.reference not in ("", example.task.text)
        assert benchmark.score(example, f"so it is\n#### {example.reference}") == 1.0, example.task.id
        wrong = (number_answer(example.reference) or 0) + 1
        assert benchmark.score(example, f"#### {wrong}") == 0.0, example.task.id
        assert benchmark.score(example, "") == 0.0
