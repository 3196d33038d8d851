"""The tables of docs/benchmarks.md: forms of answers, and what two scorings give them."""

import re

import pytest

from graphflow.benchmarks import Example
from graphflow.benchmarks.compare import CODE_FORMS, FORMS, Form, compare, decimal, math_forms, slashed, spaced, table
from graphflow.engine.episode import Task


class Equality:
    """Scores 1 for the reference, or for any text that holds it."""

    def __init__(self, inside: bool) -> None:
        self.inside = inside

    def score_many(self, examples, answers):
        pairs = zip(examples, answers, strict=True)
        return [float(e.reference in a if self.inside else e.reference == a) for e, a in pairs]


def example(reference: str, kind: str = "gsm8k", text: str = "") -> Example:
    return Example(Task(f"t/{reference}", "t", kind, text, entry_point="f"), reference)


def test_a_row_is_the_mean_over_the_texts_that_exist():
    examples = [example("1"), example("2"), example("-")]
    forms = [
        Form("alone", True, lambda e: e.reference),
        Form("in words", True, lambda e: f"It is {e.reference}" if e.reference != "-" else ""),
        Form("never", False, lambda e: ""),
    ]
    judges = {"exact": (Equality(False), examples), "loose": (Equality(True), examples)}
    assert table(forms, judges).splitlines() == [
        "| answer | right | texts | exact | loose |",
        "|---|---|---:|---:|---:|",
        "| alone | yes | 3 | 1.000 | 1.000 |",
        "| in words | yes | 2 | 0.000 | 1.000 |",
        "| never | no | 0 | - | - |",
    ]


def test_fractions_are_rewritten_exactly_or_not_at_all():
    assert (slashed(r"-\frac{3}{4}"), decimal(r"-\frac{3}{4}")) == ("-3/4", "-0.75")
    assert (slashed("3"), decimal(r"\frac{1}{3}"), slashed(r"\frac{x}{2}")) == ("", "", "")
    assert spaced(r"(1,\frac{1}{2}]") == r"\left(1,\dfrac{1}{2}]"


def test_forms_of_code():
    item = example("def f(x):\n    return x", "humaneval", "```python\ndef f(x):\n```")
    written = {form.name: form.write(item) for form in CODE_FORMS}
    assert written["the body alone"] == "\n    return x"
    assert written["returns None"] == "def f(x):\n    return None"
    assert "@functools.cache_like\ndef f(x):" in written["behind a decorator"]
    assert all(written.values())
    assert not next(form for form in CODE_FORMS if form.name == "the body alone").write(example("x", "mbpp"))


@pytest.mark.parametrize("name", ["gsm8k", "hotpotqa"])
@pytest.mark.filterwarnings("ignore:.*is read in place of")
def test_strict_gives_right_forms_a_point_and_wrong_ones_none(data_dir, name):
    lines = compare(name, str(data_dir), 25, "").splitlines()[2:]
    assert len(lines) == len(FORMS[name])
    for line, form in zip(lines, FORMS[name], strict=True):
        shown, right, texts, strict, _ = re.split(r" ?\| ?", line)[1:-1]
        assert (shown, right) == (form.name, "yes" if form.right else "no")
        if int(texts):
            assert float(strict) == float(form.right), line


def test_math_forms_are_written_from_the_reference_of_the_data():
    item = example("another text")
    written = {form.name: form.write(item) for form in math_forms({item.task.id: r"\frac{1}{2}"})}
    assert written["decimal for a fraction"] == r"Therefore the answer is $\boxed{0.5}$."
    assert written["unit after a number"] == ""  # no whole number
    assert all("another text" not in text for text in written.values())
