"""MATH scoring by hand, in a process that can be killed, and on real rows."""

import os
import shutil
import signal
import threading
import time

import pytest

from graphflow.benchmarks.aflow import aflow_digits, aflow_math_answer, aflow_math_score
from graphflow.benchmarks.math import math_score, quick_equal
from graphflow.benchmarks.math_judge import START_S, MathJudge, judge
from graphflow.engine.sandbox import SandboxError, bubblewrap_problem

PROBLEM = bubblewrap_problem(shutil.which("bwrap") or "")
isolated = pytest.mark.skipif(bool(PROBLEM), reason=f"AFlow's comparison cannot be isolated here: {PROBLEM}")

# Settled by strings and numbers alone: these need no process.
QUICK = [
    (r"so \boxed{42}", "42", 1.0),
    (r"first \boxed{1}, no: \boxed{2}", "2", 1.0),
    (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", 1.0),
    (r"\boxed{\tfrac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}", 1.0),  # braces nested twice
    (r"\boxed{\left(3, \frac{\pi}{2}\right)}", r"\left( 3, \frac{\pi}{2} \right)", 1.0),
    (r"\boxed{1,234}", "1234", 1.0),
    (r"\boxed{1{,}234}", "1,234", 1.0),
    (r"\boxed{-0.50}", "-.5", 1.0),
    (r"\boxed{\text{Evelyn}}", "Evelyn", 1.0),
    (r"\boxed{90^\circ}", "90", 1.0),
    (r"\boxed{25\%}", "25", 1.0),
    (r"\boxed{\$5}", "5", 1.0),
    ("42", "42", 1.0),  # the output of a program has no box
    ("The answer is $42$.", "42", 1.0),
    (r"\boxed{41}", "42", 0.0),
    (r"\boxed{-42}", "42", 0.0),
    (r"\boxed{\boxed{42}}", "42", 1.0),
    (r"\boxed{}", "42", 0.0),
    ("", "42", 0.0),
    (r"\boxed{" + "9" * 700 + "x}", "42", 0.0),  # too long to be one
]
# What math-verify has to decide.
JUDGED = [
    (r"\boxed{0.5}", r"\frac{1}{2}", 1.0),
    (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", 1.0),
    (r"\boxed{1/2}", r"\frac12", 1.0),
    (r"\boxed{x + 1}", "1+x", 1.0),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
    (r"\boxed{2\sqrt{2}}", r"\sqrt{8}", 1.0),
    (r"\boxed{\frac{\sqrt{3}}{3}}", r"\frac{1}{\sqrt{3}}", 1.0),
    (r"\boxed{x = 5}", "5", 1.0),
    (r"\boxed{5 \text{ cm}}", "5", 1.0),
    (r"\boxed{\{2, 1\}}", r"\{1, 2\}", 1.0),  # a set has no order
    (r"\boxed{3, 5, 7}", "3,5,7", 1.0),
    (r"\boxed{(3, 4]}", "(3,4]", 1.0),
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}", 1.0),
    (r"\boxed{３}", "3", 1.0),  # a digit of full width
    (r"\boxed{x - 1}", "x + 1", 0.0),
    (r"\boxed{0.33}", r"\frac{1}{3}", 0.0),
    (r"\boxed{(3, 4)}", "(4, 3)", 0.0),
    (r"\boxed{[3, 4)}", "(3, 4)", 0.0),
    (r"\boxed{(-\infty, 3)}", r"(-\infty, 3]", 0.0),
    (r"\boxed{1, 2, 3}", "1,2", 0.0),  # an answer too many
    (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", 0.0),
    (r"\boxed{\text{odd}}", r"\text{even}", 0.0),
    (r"\boxed{\text{yes}}", r"\text{no}", 0.0),
    (r"\boxed{42 \text{ or } 43}", "42", 0.0),
    (r"\boxed{\frac{1}{", "42", 0.0),
    ("I am sorry, I cannot solve this problem.", r"\frac{1}{2}", 0.0),
    ("\u6211\u4e0d\u77e5\u9053", "x+1", 0.0),
    ("{}}}$$ \\ \x00 \ud800", "x+1", 0.0),
]


@pytest.mark.parametrize(("answer", "reference", "score"), QUICK)
def test_strings_and_numbers_are_settled_without_a_process(answer, reference, score, monkeypatch):
    monkeypatch.setattr(MathJudge, "equal", lambda *arguments: pytest.fail("compared in the process"))
    assert math_score(answer, reference) == score


def test_expressions():
    wrong = [case for case in JUDGED if math_score(*case[:2]) != case[2]]
    assert wrong == []
    assert judge().timeouts == 0


def test_quick_comparison_settles_strings_and_numbers_only():
    assert quick_equal("1.50", "1.5") is True
    assert quick_equal("1", "2") is False
    assert quick_equal("x", "y") is None
    assert quick_equal("", "") is False


def test_quick_comparison_joins_no_numbers_and_rounds_no_digits():
    apart = [("1 2", "12"), (r"1\ 2", "12"), ("1~2", "12"), ("5 1/2", "51/2"), ("1 2", "1&2"), (r"1\,2", "12"),
             (r"\frac1 2", r"\frac12"), ("1 .5", "1.5")]  # fmt: skip
    assert [pair for pair in apart if quick_equal(*pair) is True or quick_equal(*pair[::-1]) is True] == []
    grouped = [r"1\,234\,567", r"1,\!234,\!567", r"1,\! 234,\! 567", "1{,}234{,}567", r"1\!234\!567", "1,234,567"]
    assert [text for text in grouped if quick_equal(text, "1234567") is not True] == []
    assert quick_equal("12345678901234567890", "12345678901234567891") is False
    assert quick_equal("12345678901234567890.0000001", "12345678901234567890") is True
    assert quick_equal("5.", ".5") is False
    assert quick_equal("9" * 5000, "8" * 5000) is False
    assert quick_equal("( 1, 2 )", "(1,2)") is True


def test_aflow_reads_the_last_box_or_sentence():
    assert aflow_math_answer(r"first \boxed{1}, then \boxed{\frac{1}{2} }.") == r"\frac{1}{2}"
    # Braces nested twice end its expression: the whole last sentence remains.
    assert aflow_math_answer(r"It is so. So \boxed{\frac{\sqrt{3}}{2}}") == r"So \boxed{\frac{\sqrt{3}}{2}}"
    assert aflow_math_answer("One. It is 3.5 m! Then? x") == "x"
    assert aflow_math_answer("Chapter 1. It is so.") == "Chapter 1. It is so."  # no end after a digit
    assert aflow_math_answer(" \n") == ""


def test_aflow_numbers():
    values = {"1,234": 1234.0, "5%": 0.05, r"5\%": 0.05, "-.5": -0.5, " 7 ": 7.0, "1/2": None, "": None, "5%%": None}
    assert {text: aflow_digits(text) for text in values} == values


@isolated
def test_aflow_expressions():
    cases = [
        (r"\boxed{42}", "42", 1.0),
        (r"\boxed{42.0009}", "42", 1.0),  # within 1e-3
        (r"\boxed{42.002}", "42", 0.0),
        (r"\boxed{50\%}", "0.5", 1.0),
        (r"\boxed{50\%}", "50", 0.0),
        (r"\boxed{1/2}", "0.5", 1.0),  # Python's fraction
        (r"\boxed{x+1}", "1+x", 1.0),
        (r"\boxed{2*x}", "x+x", 1.0),
        (r"\boxed{0.5}", r"\frac{1}{2}", 0.0),  # LaTeX is not Python: right, and marked wrong
        (r"\boxed{\dfrac{1}{2}}", r"\frac{1}{2}", 0.0),
        (r"\boxed{2x}", "x*2", 0.0),  # no product without a sign
        (r"\boxed{exit()}", "3", 0.0),
        (r"\boxed{(1,2)}", "(1, 2)", 0.0),  # tuples have no difference
        ("", "3", 0.0),
    ]
    assert [case for case in cases if aflow_math_score(*case[:2]) != case[2]] == []


FORGED = [
    *(rf"__import__('os').write({descriptor}, b'yes')" for descriptor in range(3, 9)),
    "[setattr(f.f_globals['os'], 'write', 0) for f in [__import__('sys')._getframe(3)]]",
    "type('X', (int,), {'__sub__': lambda a, b: 0, '__rsub__': lambda a, b: 0})()",
    "exec(chr(49))",
    "sympify(latex(x))",
    "S(sstr(ex) + sstr(ec))",
    "(lambda: 3)()",
    "3 if open else 3",
    "().__class__",
    "print(3) or 3",
    "ex\nec(3) or 3",  # sympy joins the lines
]


@isolated
@pytest.mark.parametrize("text", FORGED)
def test_a_text_cannot_make_itself_equal(text):
    assert aflow_math_score(rf"\boxed{{{text}}}", "3") == 0.0
    assert math_score(rf"\boxed{{{text}}}", "4") == 0.0


def test_expressions_are_told_from_programs():
    from graphflow.benchmarks.math_worker import is_expression

    assert [text for text in FORGED if is_expression(text)] == []
    texts = ["1/2", "2*x", "sin(pi)**2 + cos(pi)**2", "max(1, 2)", "(1, 2)", "5!", "x <= 3", "3 or 5", "0.2[1]", "2^3",
             "sqrt(2)/2", "E", "f(x)", "\u03c0*r**2", "binomial(5, 2)", "[1, 2]", ""]  # fmt: skip
    assert [text for text in texts if not is_expression(text)] == []


@isolated
def test_expressions_that_are_equal_are_found_equal():
    cases = [("max(2, 3)", "1 + 2"), ("sqrt(12)/sqrt(3)", "1 + 1"), ("factorial(4)", "4!"), ("2^3", "2 ^ 3 "),
             ("sin(x)**2 + cos(x)**2", "x/x"), ("Rational(1, 2)", "0.5")]  # fmt: skip
    assert [case for case in cases if aflow_math_score(rf"\boxed{{{case[0]}}}", case[1]) != 1.0] == []


class Mortal(MathJudge):
    """A judge whose worker is killed while it compares, so many times."""

    deaths = 0

    def _read(self, seconds):
        if self.deaths and seconds < START_S:
            self.deaths -= 1
            assert self._process is not None
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return b""
        return super()._read(seconds)


@pytest.mark.parametrize(("deaths", "equal"), [(1, True), (2, False)])
def test_a_worker_that_is_killed_while_it_compares_costs_no_verdict(deaths, equal):
    mortal = Mortal()
    mortal.deaths = deaths
    try:
        assert mortal.equal("strict", "0.5", r"\frac{1}{2}") is equal
        assert (mortal.comparisons, mortal.retries, mortal.timeouts) == (1, 1, deaths - 1)
        assert mortal.equal("strict", "0.5", r"\frac{1}{2}")
    finally:
        mortal.close()


def test_without_isolation_aflow_is_refused(monkeypatch):
    monkeypatch.setattr("graphflow.benchmarks.math_judge.bubblewrap_problem", lambda bwrap: "bwrap is broken")
    with pytest.raises(SandboxError, match="bwrap is broken.*benchmark.scoring=strict"):
        MathJudge().equal("aflow", "1", "2")


def test_a_process_that_cannot_start_is_told_from_a_slow_one(monkeypatch):
    monkeypatch.setattr("graphflow.benchmarks.math_judge.library_folders", list)
    with pytest.raises(SandboxError, match="ended with code 1; it needs sympy, mpmath, math_verify"):
        MathJudge().equal("strict", "1", "x")


@pytest.mark.slow  # starts a process
def test_without_isolation_strict_works(monkeypatch):
    monkeypatch.setattr("graphflow.benchmarks.math_judge.bubblewrap_problem", lambda bwrap: "bwrap is broken")
    plain = MathJudge()
    try:
        assert plain.equal("strict", "0.5", r"\frac{1}{2}")
        assert not plain.equal("strict", "0.5", r"\frac{1}{3}")
    finally:
        plain.close()


def test_a_comparison_that_never_ends_is_stopped_and_a_killed_worker_is_replaced():
    short = MathJudge(cpu_s=1, wall_s=8)
    try:
        assert short.equal("strict", "0.5", r"\frac{1}{2}")
        start = time.monotonic()
        assert not short.equal("strict", "9^{9^{9^{9}}}", "3")
        assert time.monotonic() - start < 8 + 10  # the limit and what the reply may take
        assert short.timeouts == 1
        assert short.equal("strict", "x+1", "1+x")
        if not PROBLEM:  # AFlow's evaluates: endless, fatal and large programs end in a verdict
            for text in ("[print(i) for i in iter(int, 1)]", "__import__('os')._exit(0)", "[0] * 10**12"):
                assert not short.equal("aflow", text, "3")
        assert short._process is not None
        os.killpg(short._process.pid, signal.SIGKILL)
        short._process.wait()
        assert short.equal("strict", "x+1", "1+x")
    finally:
        short.close()


def test_threads_share_the_process():
    scores: dict[int, float] = {}

    def score(number: int) -> None:
        scores[number] = math_score(rf"\boxed{{x + {number % 2}}}", "1 + x")

    threads = [threading.Thread(target=score, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {number: float(number % 2) for number in range(6)}


def shown(text: str) -> str:
    return rf"Therefore \boxed{{{text}}}."


def check_rows(benchmark, examples):
    """The reference scores 1, a sum or another text 0."""
    assert len(examples) >= 20
    for example in examples:
        assert benchmark.score(example, shown(example.reference)) == 1.0, example.task.id
        assert benchmark.score(example, shown(f"{example.reference} + 1")) == 0.0, example.task.id
        assert 1 <= example.task.level <= 5


def test_some_real_rows(real_benchmark):
    benchmark = real_benchmark("math")
    check_rows(benchmark, benchmark.examples("test", limit=20))


@pytest.mark.slow  # a comparison by sympy for nearly every row
def test_every_real_row(real_benchmark):
    benchmark = real_benchmark("math")
    examples = benchmark.examples("validation") + benchmark.examples("test")
    assert len(examples) > 100
    check_rows(benchmark, examples)
    for example, other in zip(examples, examples[1:] + examples[:1], strict=True):
        if quick_equal(other.reference, example.reference) is False:
            assert benchmark.score(example, shown(other.reference)) == 0.0


def test_aflow_gives_every_real_solution_a_point(real_benchmark):
    strict, aflow = real_benchmark("math"), real_benchmark("math", scoring="aflow")
    assert (strict.version, aflow.version) == (3, 2)
    for golden, example in zip(strict.examples("test"), aflow.examples("test"), strict=True):
        assert golden.task == example.task
        last = example.reference if r"\boxed" in example.reference else shown(example.reference)
        assert aflow_math_answer(last) == example.reference.strip() or r"\boxed" in example.reference
        assert aflow.score(example, last) == 1.0, example.task.id
