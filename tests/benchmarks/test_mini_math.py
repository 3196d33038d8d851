r"""mini-math: solvers that read only the text agree, and answers score right in ``\boxed{}``."""

import collections
import math
import random
import re
from fractions import Fraction

import pytest

from graphflow.benchmarks.math import math_score
from graphflow.benchmarks.mini import math as mini_math
from graphflow.benchmarks.mini.problem import Line, draw, evaluate, held_out

DRAWS = 5000
FAMILIES = set(
    "basic expression gcd remainder term percent mean rectangle linear system polynomial expand factor squares reduce "
    "fractions".split()
)


@pytest.fixture(scope="module")
def problems():
    rng = random.Random("measure")
    return [mini_math.make(rng) for _ in range(DRAWS)]


@pytest.fixture(scope="module")
def tested():
    rng = random.Random("test tasks")
    return [draw(mini_math.make, rng, "test") for _ in range(400)]


# The solver: brute force and polynomial arithmetic over the text, never the steps of a solution.

REMARK = re.compile(
    r"This is exercise|Exercise \d+ on page|is worth \d+ points|You have \d+ minutes|numbers are whole|No table"
    r"|last answer was|pupils solved|\\boxed"
)


class Poly(dict):
    """A polynomial in x: power to coefficient."""

    def __add__(self, other):
        return Poly({k: self.get(k, 0) + other.get(k, 0) for k in {*self, *other}})

    def __neg__(self):
        return Poly({k: -v for k, v in self.items()})

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        product = Poly()
        for i, a in self.items():
            for j, b in other.items():
                product[i + j] = product.get(i + j, 0) + a * b
        return product

    def __truediv__(self, other):
        return Poly({k: Fraction(v) / other[0] for k, v in self.items()})

    def __pow__(self, other):
        power = Poly({0: 1})
        for _ in range(int(other[0])):
            power = power * self
        return power

    def __call__(self, x):
        return sum(v * x**k for k, v in self.items())

    def clean(self):
        return {k: v for k, v in self.items() if v}


def poly(text):
    """The polynomial that an expression stands for."""
    text = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"(\1/\2)", text).replace("^", "**")
    text = re.sub(r"(\d+)", r"N(\1)", text)
    text = re.sub(r"(\)|x)(?=\(|x)", r"\1*", text)
    return eval(text, {"N": lambda n: Poly({0: Fraction(n)}), "x": Poly({1: Fraction(1)})})


def number(text):
    return poly(text)(0)


def find(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern} in {text}"
    return found


def ints(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def solve(text):
    """The answer as a number, a `Poly`, or a `Fraction`."""
    text = text.replace("$", "").replace(r"\cdot", "*")
    text = " ".join(s for s in re.split(r"(?<=[.?]) ", text) if not REMARK.search(s))
    n = ints(text)
    for solver in (solve_words, solve_sequences, solve_figures, solve_letters):
        found = solver(text, n)
        if found is not None:
            return found
    return poly(find(r"(?:\\frac|\(|\d|\bx\b).*(?:\d|\)|\}|x)", text)[0])


def solve_words(text, n):
    if "greatest common divisor" in text or "largest number that divides" in text:
        return max(k for k in range(1, min(n) + 1) if n[0] % k == n[1] % k == 0)
    if "remainder" in text or "modulo" in text:
        body = find(r"(\(?\d[-\d+*^() ]*?) (?:is divided|divided by|modulo)", text)
        return number(body[1]) % n[-1]
    if "percent" in text:
        if "percent of" in text:
            return Fraction(n[0] * n[1], 100)
        return n[0] + Fraction(n[0] * n[1], 100) * (1 if "increased" in text else -1)
    if "mean" in text or "average" in text:
        if " x " in text:
            return next(x for x in range(3000) if sum(n[:-1]) + x == n[-1] * len(n))
        return Fraction(sum(n), len(n))
    for word, op in (("sum of", "+"), ("difference of", "-"), ("product of", "*"), ("quotient of", "/")):
        if re.search(rf"the {word} \d", text):
            return number(f"{n[0]} {op} {n[1]}")
    return None


def solve_sequences(text, n):
    if "sequence" not in text:
        return None
    if "begins" in text:
        first, step, index = n[0], n[1] - n[0], n[3]
    else:
        first, step, index = n[0], -n[1] if "falls" in text else n[1], n[2]
    return [first + step * i for i in range(index)][-1]


def solve_figures(text, n):
    if "square has perimeter" in text:
        return (n[0] // 4) ** 2
    if "rectangle" not in text:
        return None
    if "is" in text and "more" in text:
        width, length = n[0], n[0] + n[1]
    elif "has length" in text:
        length, width = n
    elif "has area" in text:
        length, width = n[1], Fraction(n[0], n[1])
    else:
        length, width = n[1], Fraction(n[0], 2) - n[1]
    asked = find(r"its (\w+)[.?]|find its (\w+)", text)
    return {"area": length * width, "perimeter": 2 * (length + width), "width": width}[asked[1] or asked[2]]


def solve_letters(text, n):
    if "x + y" in text or "numbers have sum" in text:
        total = int(find(r"x \+ y = (\d+)|sum (\d+)", text).group(0).split()[-1])
        gap = int(find(r"x - y = (\d+)|difference (\d+)", text).group(0).split()[-1])
        x, y = next((x, total - x) for x in range(total + 1) if x - (total - x) == gap)
        asked = re.sub(r"x [-+] y = \d+", "", text)
        if "xy" in asked or "product" in asked:
            return x * y
        if "2x" in asked:
            return 2 * x
        return y if "smaller" in asked or re.search(r"\by\b", asked) else x
    if found := re.search(r"f\(x\) = ([-\dx^*/+() ]+?)(?:,|\.)", text):
        return poly(found[1])(int(find(r"f\((\d+)\)", text)[1]))
    if found := re.search(r"value of (.*) at x = (\d+)", text):
        return poly(found[1])(int(found[2]))
    if "=" in text:
        left, right = find(r"([-\dx*/+() ]*x[-\dx*/+() ]*) = ([-\dx*/+() ]*[\dx)])", text).groups()
        difference = poly(left.strip()) - poly(right.strip())
        return -difference(0) / (difference(1) - difference(0))
    return None


def reference(problem):
    """The reference read back as a number or a polynomial."""
    return poly(problem.answer)


def test_solvers_that_read_the_text_agree(tested, problems):
    assert {p.family for p in tested} == FAMILIES
    for problem in tested + problems[:1500]:
        found = solve(problem.text)
        found = found if isinstance(found, Poly) else Poly({0: found})
        assert found.clean() == reference(problem).clean(), problem.text


def test_the_solver_by_hand():
    assert solve(r"Expand (x - 3)(x + 5). Put the answer in \boxed{}.") == {2: 1, 1: 2, 0: -15}
    assert solve(r"You have 9 minutes. Find the greatest common divisor of 48 and 18. Put the answer in \boxed{}.") == 6
    assert solve(r"If f(x) = 3x^2 - x + 1, what is f(2)? Put the answer in \boxed{}.") == 11


def test_answers_have_the_form_that_is_asked_for(tested, problems):
    for problem in tested + problems:
        answer = problem.answer
        if problem.family in ("factor", "squares") and re.search("[Ff]actor|product", problem.text):
            assert re.fullmatch(r"\(\d*x [-+] \d+\)\(\d*x [-+] \d+\)", answer), answer
        elif problem.family == "expand" or (problem.family == "squares" and not problem.programmable):
            assert re.fullmatch(r"\d*x(\^2)?( [-+] \d+x)?( [-+] \d+)", answer), answer
        elif problem.family in ("reduce", "fractions"):
            top, bottom = ints(answer)
            assert math.gcd(top, bottom) == 1 and bottom > 1 and answer == rf"\frac{{{top}}}{{{bottom}}}"
        else:
            assert re.fullmatch(r"\d+", answer), answer


def test_results_programs_and_scores_agree(tested, problems):
    for problem in tested + problems:
        assert problem.result() == problem.answer
        assert 1 <= len(problem.lines) <= 7
        for left, op, right, result in evaluate(problem.lines):
            assert min(left, right, result) >= 0 and (op != "/" or left % right == 0)
        if problem.family == "gcd":
            assert len(problem.lines) >= 2 and str(evaluate(problem.lines)[-1][3]) == problem.answer != "0"
    for problem in tested:
        assert math_score(problem.solution(), problem.answer) == 1.0
        if problem.programmable:
            assert math_score(r"\boxed{-1}", problem.answer) == 0.0
        if problem.programmable:
            scope: dict = {}
            exec(problem.code(), scope)
            assert str(scope["solve"]()) == problem.answer


def test_equal_forms_score_and_mistakes_do_not(tested):
    for family in ("expand", "factor", "reduce", "fractions"):
        for problem in [p for p in tested if p.family == family][:2]:
            assert math_score(problem.solution(len(problem.lines) - 1, 1), problem.answer) == 0.0, problem.text
            assert math_score(rf"so it is $\boxed{{ {problem.answer} }}$.", problem.answer) == 1.0
    factored = next(p for p in tested if p.family == "factor")
    first, second = re.findall(r"\([^)]*\)", factored.answer)
    assert math_score(rf"\boxed{{{second}{first}}}", factored.answer) == 1.0


def test_levels_follow_their_definition_and_rise_with_steps(problems):
    lines = (Line(5, "+", 2), Line("a", "*", 3), Line("b", "-", 4), Line("c", "*", 2))
    assert [mini_math.level_of(lines[:n], False) for n in (1, 2, 3, 4)] == [1, 1, 2, 3]
    assert mini_math.level_of(lines[:2], True) == 2
    assert mini_math.level_of((Line(300, "+", 2),), False) == 2
    assert mini_math.level_of((Line(30, "mod", 7), Line(7, "mod", "a")), False) == 2
    assert mini_math.level_of(lines + lines, True) == 5
    means = [
        sum(len(p.lines) for p in problems if p.level == level) / sum(p.level == level for p in problems)
        for level in range(1, 6)
    ]
    assert means == sorted(means) and means[4] > means[0] + 2
    assert min(collections.Counter(p.level for p in problems).values()) > 0.05 * DRAWS


def test_small_and_large_numbers(problems):
    large = sum(any(n > 99 for row in evaluate(p.lines) for n in (row[0], row[2], row[3])) for p in problems)
    assert 0.35 < large / DRAWS < 0.5
    assert all(max(row[3] for row in evaluate(p.lines)) <= 1_000_000 for p in problems)


def test_answers_that_are_expressions_need_small_numbers_alone(problems):
    largest = collections.Counter()
    for problem in problems:
        if not problem.programmable:
            used = [n for left, _, right, result in evaluate(problem.lines) for n in (left, right, result)]
            largest[problem.family] = max(largest[problem.family], *used)
    assert largest == {"squares": 12 * 12, "factor": 9 * 9, "expand": 9 * 9, "fractions": 71, "reduce": 6 * 9}


def test_shares(problems):
    assert 0.3 < sum(not p.programmable for p in problems) / DRAWS < 0.38
    assert 0.15 < sum(bool(re.search(REMARK.pattern.rpartition("|")[0], p.text)) for p in problems) / DRAWS < 0.3
    words = [len(p.text.split()) for p in problems]
    assert min(words) >= 8 and max(words) <= 35
    assert all(r"\boxed{}" in p.text.rsplit(". ", 1)[-1] or r"\boxed{}" in p.text.rsplit("? ", 1)[-1] for p in problems)
    assert collections.Counter(p.answer for p in problems).most_common(1)[0][1] < 0.04 * DRAWS


def test_variety(problems):
    shapes = collections.Counter(p.structure for p in problems)
    assert len(shapes) > 140 and shapes.most_common(1)[0][1] < 0.05 * DRAWS
    assert len({re.sub(r"\d+", "#", p.text) for p in problems}) > 3300
    assert 0.03 < sum(held_out(p.structure) for p in problems) / DRAWS < 0.17


@pytest.mark.parametrize("formula", [sum, max, min, lambda n: n[0], lambda n: n[-1], math.prod])
def test_no_formula_over_the_numbers_solves_much(problems, formula):
    assert sum(str(formula(ints(p.text))) == p.answer for p in problems) / DRAWS < 0.08


def test_a_carried_mistake_rarely_gives_the_right_answer(problems):
    same = tried = 0
    for problem in problems[:1500]:
        for line in range(len(problem.lines)):
            for delta in (-10, -2, -1, 1, 2, 10):
                tried += 1
                same += problem.result(line, delta) == problem.answer
    assert same / tried < 0.06


def test_one_draw_is_pinned():
    """Texts are the same on every machine and Python version."""
    problem = draw(mini_math.make, random.Random("pin"), "test")
    assert (problem.text, problem.answer, problem.structure) == PINNED


PINNED = (
    "We know that the average of 10, 38, 32, 14 and x is 22. Give $x$. Write the answer in \\boxed{}.",
    "16",
    "mean|missing|#+# a+# b+# #*# d-c",
)
