"""The embedded suite: disjoint splits, answers checked by solvers that did not write the questions, traces."""

import ast
import math
import random
import re

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.benchmarks.mini import code, gsm8k
from graphflow.benchmarks.mini.problem import Line, Problem, draw, evaluate, split_of
from graphflow.benchmarks.mini.suite import MAKERS
from graphflow.benchmarks.mini.traces import Role, failing_test, make_trace

KINDS = tuple(MAKERS)


def suite(kind, **sizes):
    return build_benchmark(BenchmarkConfig(name=f"mini-{kind}", **sizes))


def normal(text):
    return re.sub(r"[^a-z0-9]", "", text.lower())


@pytest.mark.parametrize("kind", KINDS)
def test_splits_are_disjoint_on_normalised_text_and_repeat(kind):
    benchmark = suite(kind, train_size=400, validation_size=100, test_size=100)
    texts = {
        split: [normal(e.task.text) for e in benchmark.examples(split)] for split in ("train", "validation", "test")
    }
    assert [len(t) for t in texts.values()] == [400, 100, 100]
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not set(texts[first]) & set(texts[second])
    again = suite(kind, test_size=40).examples("test")
    assert [e.task for e in again] == [e.task for e in benchmark.examples("test")[:40]], (
        "a smaller split is the beginning"
    )


def test_one_draw_is_pinned():
    """Texts are the same on every machine and Python version."""
    problem = draw(gsm8k.make, random.Random("pin"), "test")
    assert (problem.text, problem.answer) == PINNED


PINNED = (
    "Karl has 15 buttons. Dora has 29 buttons more than Karl. "
    "How many buttons do they have together? End with the number.",
    "59",
)


@pytest.mark.parametrize("kind", KINDS)
def test_references_score_one_and_others_zero(kind):
    benchmark = suite(kind, test_size=60)
    examples = benchmark.examples("test")
    assert benchmark.score_many(examples, [e.reference for e in examples]) == [1.0] * 60
    wrong = {"gsm8k": "answer: -1", "math": r"\boxed{-1}", "hotpotqa": "nobody"}.get(kind, "def nothing():\n    pass")
    assert benchmark.score_many(examples, [wrong] * 60) == [0.0] * 60


def test_straight_line_programs_by_hand():
    lines = (Line(12, "+", 7), Line("a", "*", 3), Line("b", "mod", 10))
    assert [row[3] for row in evaluate(lines)] == [19, 57, 7]
    assert [row[3] for row in evaluate(lines, wrong=0, delta=1)] == [20, 60, 0], "a mistake is carried on"
    problem = Problem("", "7", "", 1, lines)
    assert problem.solution() == "12 + 7 = 19. 19 * 3 = 57. 57 mod 10 = 7. answer: 7"
    assert problem.code() == "def solve():\n    a = 12 + 7\n    b = a * 3\n    c = b % 10\n    return c"
    assert problem.plan() == "a = 12 + 7. b = a * 3. c = b mod 10."


NUMBERS = re.compile(r"\d+")


def solve_word_problem(text):
    """An independent reading of the sentences: what each of them does to a running number."""
    sentences = [s.strip() for s in re.split(r"[.?]", text) if NUMBERS.search(s)]
    total = None
    first = [int(n) for n in NUMBERS.findall(sentences[0])]
    if "more than" in text and "both" in text or "together" in text:
        base, more = (int(n) for n in NUMBERS.findall(" ".join(sentences))[:2])
        return base + base + more
    if "times as many" in text:
        total, rest = first[0] * int(NUMBERS.findall(sentences[1])[0]), sentences[2:]
    elif "shared equally" in text:
        return first[0] // first[1] + int(NUMBERS.findall(sentences[1])[0])
    elif len(first) == 2:
        total, rest = first[0] * first[1], sentences[1:]
    else:
        total, rest = first[0], sentences[1:]
    for sentence in rest:
        amount = int(NUMBERS.findall(sentence)[0])
        total += amount if re.search(r"\b(buys|finds|gets|picks|wins)\b", sentence) else -amount
    return total


def test_word_problems_agree_with_a_solver_that_reads_the_text():
    for example in suite("gsm8k", test_size=300).examples("test"):
        assert solve_word_problem(example.task.text) == int(example.reference), example.task.text


def solve_math(text):
    n = [int(x) for x in re.findall(r"\d+", text)]
    if "greatest common divisor" in text or "largest number that divides" in text:
        return math.gcd(*n)
    if "remainder" in text:
        return (n[0] * n[1] if "*" in text else n[0] + n[1]) % n[2]
    if "f(x)" in text:
        a, x = n[0], n[-1]
        b, c = n[2], n[3]
        return a * x * x + b * x + c
    if found := re.search(r"(\d+)x ([+-]) (\d+) = (-?\d+)", text):
        a, sign, b, c = int(found[1]), found[2], int(found[3]), int(found[4])
        return (c - b) // a if sign == "+" else (c + b) // a
    if found := re.search(r"(?:Compute|Evaluate|Find the value of|Work out) (.*)\. Put", text):
        return eval(found[1].replace("/", "//"))
    if "Expand" in text or "without brackets" in text:
        return f"x^2 + {n[0] + n[1]}x + {n[0] * n[1]}"
    total, product = n[1], n[2]
    a = next(a for a in range(1, 10) if product % a == 0 and a + product // a == total)
    return f"(x + {a})(x + {product // a})"


def test_mathematics_agrees_with_an_independent_solver():
    families = set()
    for example in suite("math", test_size=300).examples("test"):
        families.add(example.task.family)
        assert str(solve_math(example.task.text)) == example.reference, example.task.text
    assert len(families) == 8


def test_questions_follow_from_the_passages_alone():
    for example in suite("hotpotqa", test_size=200).examples("test"):
        facts = " ".join(example.task.passages)
        born = dict(re.findall(r"(\w+) was born in (\w+) in", facts))
        year = {name: int(y) for name, y in re.findall(r"(\w+) was born in \w+ in (\d+)", facts)}
        country, founder = (
            dict(re.findall(r"(\w+) is a city in (\w+)", facts)),
            dict(re.findall(r"(\w+) was founded by (\w+)", facts)),
        )
        job = dict(re.findall(r"\. (\w+) is a (\w+)\.", facts.replace("..", ".")))
        question = example.task.text.split("Question: ")[1]
        names = [word for word in re.findall(r"[A-Z]\w+", question) if word in {*born, *founder}]
        person = founder.get(names[0], names[0])
        match example.task.family:
            case "country":
                expected = country[born[person]]
            case "older":
                expected = min(names, key=lambda name, year=year: year[name])
            case "same_city":
                expected = "yes" if born[names[0]] == born[names[1]] else "no"
            case "founder_city":
                expected = born[person]
            case "founder_job":
                expected = job[person]
            case _:
                expected = str(year[person])
        assert expected == example.reference, example.task.text


@pytest.mark.parametrize("kind", ["humaneval", "mbpp"])
def test_code_tasks_show_true_examples_and_mutants_are_caught_by_hidden_tests(kind):
    rng, caught, shown = random.Random("mutants"), 0, 0
    for _ in range(60):
        problem = draw(MAKERS[kind], rng, "test")
        assert failing_test(problem, problem.answer) == ""
        ast.parse(problem.answer)
        for wrong, remark in problem.mutants[:2]:
            shown += 1
            scope: dict = {}
            exec(wrong, scope)
            caught += not all(_holds(test, scope) for test in (*problem.visible_tests, *problem.hidden_tests))
            assert remark.endswith(".")
    assert caught / shown > 0.8, "the others differ on arguments that the tests do not hold"


def _holds(test, scope):
    call, value = test.removeprefix("assert ").split(" == ", 1)
    return repr(eval(call, dict(scope))) == value


def test_a_spec_by_hand():
    spec = code.Spec("list", (("ge", 5), ("square", 0), ("sum", 0)))
    assert code.source(spec, "f") == "def f(xs):\n    return sum(x * x for x in xs if x >= 5)"
    assert code.phrase(spec) == "the sum of the squares of the numbers over 5 in xs"
    assert code.compiled(spec)([4, 5, 6]) == 61
    other = code.Spec("list", (("gt", 5), ("square", 0), ("sum", 0)))
    assert code.remark(other, spec) == "the condition should be x >= 5."
    text = code.Spec("string", (("first", 3), ("repeat", 2), ("reverse", 0)))
    assert code.expression(text) == "(s[:3] * 2)[::-1]" and code.compiled(text)("castle") == "sacsac"


@pytest.mark.parametrize("kind", KINDS)
def test_traces_come_from_training_problems_and_judges_see_both_right_and_wrong(kind):
    rng, verdicts, letters = random.Random("traces"), set(), set()
    for _ in range(60):
        trace = make_trace(kind, rng)
        for branch in trace.branches:
            whole = trace.root + "".join(turn.text for turn in branch[:1] if turn.role is Role.TASK)
            assert split_of(whole) == "train"
            names = [turn.text for turn in branch if turn.role is Role.OPERATION]
            assert names and any(turn.role is Role.OUTPUT for turn in branch)
            for before, turn in zip(branch[:-1], branch[1:], strict=True):
                if before.text == "review" and turn.role is Role.OUTPUT:
                    verdicts.add(turn.text.split(":")[0])
                if before.text == "ensemble_select":
                    letters.add(turn.text)
    if kind in ("gsm8k", "math"):
        assert verdicts == {"ok", "issues"}
    assert letters == {"A", "B", "C"}
