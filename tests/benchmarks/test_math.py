"""MATH scoring by hand and on real rows."""

import threading

import pytest

from graphflow.benchmarks.math import math_score, quick_equal


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (r"so \boxed{42}", "42", 1.0),
        (r"first \boxed{1}, no: \boxed{2}", "2", 1.0),
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", 1.0),
        (r"\boxed{0.5}", r"\frac{1}{2}", 1.0),
        (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", 1.0),
        (r"\boxed{x + 1}", "1+x", 1.0),
        (r"\boxed{2\sqrt{2}}", r"\sqrt{8}", 1.0),
        (r"\boxed{\left(3, \frac{\pi}{2}\right)}", r"\left( 3, \frac{\pi}{2} \right)", 1.0),
        (r"\boxed{1,234}", "1234", 1.0),
        (r"\boxed{\text{Evelyn}}", "Evelyn", 1.0),
        (r"\boxed{90^\circ}", "90", 1.0),
        ("42", "42", 1.0),  # the output of a program has no box
        (r"\boxed{41}", "42", 0.0),
        (r"\boxed{x - 1}", "x + 1", 0.0),
        (r"\boxed{(3, 4)}", "(4, 3)", 0.0),
        (r"\boxed{}", "42", 0.0),
        (r"\boxed{\frac{1}{", "42", 0.0),
        ("", "42", 0.0),
        (r"\boxed{" + "9" * 700 + "x}", "42", 0.0),
    ],
)
def test_score(answer, reference, score):
    assert math_score(answer, reference) == score


def test_quick_comparison_settles_strings_and_numbers_only():
    assert quick_equal("1.50", "1.5") is True
    assert quick_equal("1", "2") is False
    assert quick_equal("x", "y") is None
    assert quick_equal("", "") is False


def test_scores_outside_the_main_thread():
    scores = []
    thread = threading.Thread(target=lambda: scores.append(math_score(r"\boxed{0.5}", r"\frac{1}{2}")))
    thread.start()
    thread.join()
    assert scores == [1.0]


def test_every_real_row(real_benchmark):
    benchmark = real_benchmark("math")
    examples = benchmark.examples("validation") + benchmark.examples("test")
    assert len(examples) > 100
    for example, other in zip(examples, examples[1:] + examples[:1], strict=True):
        assert benchmark.score(example, rf"Therefore \boxed{{{example.reference}}}.") == 1.0, example.task.id
        wrong = rf"\boxed{{{example.reference} + 1}}"  # a sum for numbers, another text for texts
        assert benchmark.score(example, wrong) == 0.0, example.task.id
        if quick_equal(other.reference, example.reference) is False:
            assert benchmark.score(example, rf"\boxed{{{other.reference}}}") == 0.0
        assert 1 <= example.task.level <= 5
