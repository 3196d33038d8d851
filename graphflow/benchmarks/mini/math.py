r"""mini-math: expressions, linear equations, gcd, remainders, polynomials; answers in ``\boxed{}``."""

from __future__ import annotations

import random

from graphflow.benchmarks.mini.problem import Line, Problem, evaluate, gcd_lines

ANSWER_LINE = r"Put the answer in \boxed{}."
FINAL = r"\boxed{{{}}}"


def _wrap(text: str, answer: str, family: str, level: int, lines: tuple[Line, ...], **more: object) -> Problem:
    return Problem(f"{text} {ANSWER_LINE}", answer, family, level, lines, final=FINAL, **more)  # type: ignore[arg-type]


def _arithmetic(rng: random.Random) -> Problem:
    large = rng.random() < 0.5
    a, b, c, d = ((rng.randrange(12, 99) if large else rng.randrange(2, 13)) for _ in range(4))
    verb = rng.choice(("Compute", "Evaluate", "Find the value of", "Work out"))
    shape = rng.randrange(4)
    if shape == 0:
        text, lines = f"{a} + {b} * {c}", (Line(b, "*", c), Line(a, "+", "a"))
    elif shape == 1:
        text, lines = f"({a} + {b}) * {c}", (Line(a, "+", b), Line("a", "*", c))
    elif shape == 2:
        text, lines = f"{a} * {b} - {c}", (Line(a, "*", b), Line("a", "-", c))
    else:
        text, lines = f"({a} + {b}) * ({c} + {d})", (Line(a, "+", b), Line(c, "+", d), Line("a", "*", "b"))
    return _wrap(f"{verb} {text}.", str(evaluate(lines)[-1][3]), "arithmetic", 4 if large else 2, lines)


def _basic(rng: random.Random) -> Problem:
    op = rng.choice("++-*/")
    a, b = rng.randrange(2, 60), rng.randrange(2, 40)
    if op == "*":
        a, b = rng.randrange(2, 13), rng.randrange(2, 13)
    elif op == "/":
        b = rng.randrange(2, 13)
        a = b * rng.randrange(2, 13)
    elif op == "-":
        a, b = max(a, b), min(a, b)
    lines = (Line(a, op, b),)
    verb = rng.choice(("Compute", "Evaluate", "Find the value of", "Work out"))
    return _wrap(f"{verb} {a} {op} {b}.", str(evaluate(lines)[-1][3]), "basic", 1, lines)


def _linear(rng: random.Random) -> Problem:
    large = rng.random() < 0.3
    a = rng.randrange(2, 10)
    x = rng.randrange(20, 99) if large else rng.randrange(2, 13)
    b = rng.randrange(1, 60)
    plus = rng.random() < 0.6
    c = a * x + b if plus else a * x - b
    text = f"{a}x {'+' if plus else '-'} {b} = {c}"
    lines = (Line(c, "-" if plus else "+", b), Line("a", "/", a))
    verb = rng.choice(("Solve {} for x.", "Find x such that {}.", "What is x if {}?"))
    return _wrap(verb.format(text), str(x), "linear", 3 if large else 2, lines)


def _gcd(rng: random.Random) -> Problem:
    common = rng.randrange(2, 13)
    a, b = sorted((common * rng.randrange(2, 13), common * rng.randrange(2, 13)), reverse=True)
    lines = gcd_lines(a, b)
    answer = evaluate(lines)[-1][2]
    text = rng.choice(
        ("Find the greatest common divisor of {} and {}.", "What is the largest number that divides {} and {}?")
    )
    program = f"import math\ndef solve():\n    return math.gcd({a}, {b})"
    return _wrap(text.format(a, b), str(answer), "gcd", 3, lines, program=program)


def _remainder(rng: random.Random) -> Problem:
    m = rng.randrange(3, 13)
    a, b = rng.randrange(5, 60), rng.randrange(5, 60)
    op = rng.choice("+*")
    lines = (Line(a, op, b), Line("a", "mod", m))
    text = rng.choice(
        ("What is the remainder when {} {} {} is divided by {}?", "Divide {} {} {} by {} and give the remainder.")
    )
    return _wrap(text.format(a, op, b, m), str(evaluate(lines)[-1][3]), "remainder", 3 if op == "+" else 4, lines)


def _expand(rng: random.Random) -> Problem:
    a, b = rng.randrange(1, 10), rng.randrange(1, 10)
    lines = (Line(a, "+", b), Line(a, "*", b))
    text = rng.choice(("Expand (x + {})(x + {}).", "Write (x + {})(x + {}) without brackets."))
    answer = f"x^2 + {a + b}x + {a * b}"
    return _wrap(text.format(a, b), answer, "expand", 2, lines, programmable=False)


def _factor(rng: random.Random) -> Problem:
    a, b = sorted((rng.randrange(1, 10), rng.randrange(1, 10)))
    lines = (Line(a, "*", b), Line(a, "+", b))
    text = rng.choice(("Factor x^2 + {}x + {}.", "Write x^2 + {}x + {} as a product."))
    return _wrap(text.format(a + b, a * b), f"(x + {a})(x + {b})", "factor", 4, lines, programmable=False)


def _evaluate(rng: random.Random) -> Problem:
    a, b, c = rng.randrange(2, 6), rng.randrange(2, 10), rng.randrange(1, 20)
    x = rng.randrange(2, 20)
    lines = (Line(x, "*", x), Line(a, "*", "a"), Line(b, "*", x), Line("b", "+", "c"), Line("d", "+", c))
    text = rng.choice(("Let f(x) = {}x^2 + {}x + {}. Find f({}).", "If f(x) = {}x^2 + {}x + {}, what is f({})?"))
    return _wrap(text.format(a, b, c, x), str(evaluate(lines)[-1][3]), "polynomial", 5, lines)


FAMILIES = {
    "basic": _basic,
    "arithmetic": _arithmetic,
    "linear": _linear,
    "gcd": _gcd,
    "remainder": _remainder,
    "expand": _expand,
    "factor": _factor,
    "polynomial": _evaluate,
}


def make(rng: random.Random) -> Problem:
    """One problem of a random family."""
    return FAMILIES[rng.choice(list(FAMILIES))](rng)
