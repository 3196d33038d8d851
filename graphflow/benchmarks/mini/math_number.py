"""Families of mini-math about numbers: arithmetic, divisibility, sequences, percentages, means, figures."""

from __future__ import annotations

import math
import random

from graphflow.benchmarks.mini.math_item import Family, Infeasible, Item, Lines, number
from graphflow.benchmarks.mini.problem import Operand

Tree = str | tuple["Tree", str, "Tree"]
SHAPES: tuple[Tree, ...] = (
    ("n", "+", ("n", "*", "n")),
    ("n", "-", ("n", "*", "n")),
    (("n", "*", "n"), "+", "n"),
    (("n", "*", "n"), "-", "n"),
    (("n", "+", "n"), "*", "n"),
    (("n", "-", "n"), "*", "n"),
    ("n", "*", ("n", "-", "n")),
    ("n", "-", ("n", "+", "n")),
    ("n", "-", ("n", "-", "n")),
    (("n", "+", "n"), "-", "n"),
    (("n", "+", "n"), "/", "n"),
    (("n", "-", "n"), "/", "n"),
    ("n", "+", ("n", "/", "n")),
    (("n", "*", "n"), "*", "n"),
    (("n", "*", "n"), "+", ("n", "*", "n")),
    (("n", "*", "n"), "-", ("n", "*", "n")),
    (("n", "+", "n"), "*", ("n", "+", "n")),
    (("n", "+", "n"), "*", ("n", "-", "n")),
    (("n", "-", "n"), "*", ("n", "-", "n")),
    ((("n", "+", "n"), "*", "n"), "-", "n"),
    ((("n", "*", "n"), "+", "n"), "*", "n"),
    ("n", "-", (("n", "+", "n"), "*", "n")),
    ("n", "*", ("n", "-", ("n", "+", "n"))),
    ((("n", "+", "n"), "/", "n"), "+", "n"),
)
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2}


def basic(rng: random.Random) -> Item:
    """One operation."""
    large, op = rng.random() < 0.5, rng.choice("+-*/")
    a, b = number(rng, large), number(rng, large)
    if op in "+-":
        a, b = (
            (rng.randrange(100, 2000), rng.randrange(100, 2000))
            if large
            else (rng.randrange(4, 60), rng.randrange(3, 40))
        )
        a, b = max(a, b), min(a, b)
    elif op == "/":
        a = a * b
    lines = Lines()
    lines.add(a, op, b)
    words = {
        "+": "the sum of {} and {}", "-": "the difference of {} and {}", "*": "the product of {} and {}",
        "/": "the quotient of {} and {}",
    }  # fmt: skip
    target = words[op].format(a, b) if rng.random() < 0.35 else f"{a} {op} {b}"
    return Item(target, lines.done())


def _fill(rng: random.Random, shape: Tree, large: bool, lines: Lines) -> tuple[str, Operand, int]:
    """Numbers for a shape: its text, its value, and the rank of its operator."""
    if isinstance(shape, str):
        n = number(rng, large)
        return str(n), n, 3
    (left, a, rank_a), (right, b, rank_b) = (_fill(rng, side, large, lines) for side in (shape[0], shape[2]))
    op = shape[1]
    if op in "-/":  # room for what is taken away, and an exact division
        low, other = lines.value(a), lines.value(b)
        if op == "-" and low <= other and isinstance(a, int):
            a = other + number(rng, large)
        elif op == "/" and isinstance(a, int):
            a = other * number(rng, large)
        left = str(a) if isinstance(a, int) else left
    if op == "/" and isinstance(b, int) and lines.value(a) % b:
        found = [k for k in range(2, 13) if lines.value(a) % k == 0]
        b = rng.choice(found) if found else b
        right = str(b)
    rank = _RANK[op]
    left = f"({left})" if rank_a < rank else left
    right = f"({right})" if rank_b < rank or (rank_b == rank and op in "-/") else right
    return f"{left} {op} {right}", lines.add(a, op, b), rank


def expression(rng: random.Random) -> Item:
    """Two or three operations, with and without brackets."""
    lines, large = Lines(), rng.random() < 0.5
    shape = rng.choice(SHAPES)
    text, value, _ = _fill(rng, shape, large, lines)
    if lines.value(value) > 99_999:
        raise Infeasible
    return Item(text, lines.done(), "large" if large else "small")


def _euclid_pair(rng: random.Random, large: bool, low: int) -> tuple[int, int, int]:
    """Two numbers of which Euclid's algorithm needs at least ``low`` remainders that are not zero."""
    g, top = rng.randrange(1, 31 if large else 13), 30 if large else 13
    a, b = g * rng.randrange(3, top), g * rng.randrange(2, top)
    a, b = max(a, b), min(a, b)
    steps, x, y = 0, a, b
    while y and x % y:
        x, y, steps = y, x % y, steps + 1
    if not low <= steps <= 4:
        raise Infeasible
    return a, b, math.gcd(a, b)


def gcd(rng: random.Random) -> Item:
    """Greatest common divisor, at least two remainders."""
    a, b, _ = _euclid_pair(rng, rng.random() < 0.4, 2)
    lines = Lines()
    lines.euclid(a, b)
    if rng.random() < 0.3:
        given, target = "", f"the largest number that divides {a} and {b}"
    else:
        given, target = "", f"the greatest common divisor of {a} and {b}"
    return Item(target, lines.done(), given=given, program=f"import math\ndef solve():\n    return math.gcd({a}, {b})")


def remainder(rng: random.Random) -> Item:
    """Remainder of a sum, a product or a power."""
    kind = rng.choice(("+", "*", "^2", "^3", "*+", "+*"))
    m, large = rng.randrange(3, 20), rng.random() < 0.4
    a, b, c = (rng.randrange(20, 200) if large else rng.randrange(4, 30) for _ in range(3))
    lines = Lines()
    if kind in ("+", "*"):
        text, value = f"{a} {kind} {b}", lines.add(a, kind, b)
    elif kind == "^2":
        text, value = f"{a}^2", lines.add(a, "*", a)
    elif kind == "^3":
        a = a % 20 + 3
        text, value = f"{a}^3", lines.add(lines.add(a, "*", a), "*", a)
    elif kind == "*+":
        text, value = f"{a} * {b} + {c}", lines.add(lines.add(a, "*", b), "+", c)
    else:
        text, value = f"({a} + {b}) * {c}", lines.add(lines.add(a, "+", b), "*", c)
    lines.add(value, "mod", m)
    asks = (
        f"the remainder when {text} is divided by {m}",
        f"the remainder of {text} divided by {m}",
        f"{text} modulo {m}",
    )
    return Item(rng.choice(asks), lines.done(), kind)


def term_of(rng: random.Random) -> Item:
    """A term of an arithmetic sequence, known by its first terms or by first term and difference."""
    a, d, n = rng.randrange(1, 40), rng.randrange(2, 13), rng.randrange(6, 60)
    shown, falls = rng.random() < 0.6, rng.random() < 0.3
    if falls:
        a += d * n
    lines = Lines()
    second = a - d if falls else a + d
    step: Operand = d
    if shown:
        step = lines.add(a, "-", second) if falls else lines.add(second, "-", a)
    jump = lines.add(lines.add(n, "-", 1), "*", step)
    lines.add(a, "-" if falls else "+", jump)
    third = 2 * second - a
    if shown:
        given = f"an arithmetic sequence begins {a}, {second}, {third}"
    else:
        given = f"an arithmetic sequence starts at {a} and {'falls' if falls else 'grows'} by {d} each step"
    return Item(rng.choice((f"term number {n}", f"its term number {n}")), lines.done(), f"{shown} {falls}", given)


def percent(rng: random.Random) -> Item:
    """A percentage of a number, or a number changed by a percentage."""
    p, n = (
        rng.choice((5, 10, 15, 20, 25, 30, 40, 45, 60, 75, 80, 90, *range(2, 99))),
        rng.randrange(2, 100) * rng.choice((5, 10, 20, 25, 50)),
    )
    if n * p % 100:
        raise Infeasible
    lines, kind = Lines(), rng.choice(("of", "of", "up", "down"))
    part = lines.add(lines.add(n, "*", p), "/", 100)
    if kind != "of":
        lines.add(n, "+" if kind == "up" else "-", part)
    target = {
        "of": f"{p} percent of {n}",
        "up": f"the number {n} increased by {p} percent",
        "down": f"the number {n} reduced by {p} percent",
    }[kind]
    return Item(target, lines.done(), kind)


def mean(rng: random.Random) -> Item:
    """The mean of some numbers, or the number that is missing for a mean."""
    large, count = rng.random() < 0.4, rng.randrange(3, 6)
    numbers = [rng.randrange(30, 300) if large else rng.randrange(2, 40) for _ in range(count)]
    numbers[-1] += -sum(numbers) % count
    lines, total = Lines(), numbers[0]
    shown = " and ".join((", ".join(map(str, numbers[:-1])), str(numbers[-1])))
    if rng.random() < 0.55:
        for n in numbers[1:]:
            total = lines.add(total, "+", n)
        lines.add(total, "/", count)
        return Item(f"the {rng.choice(('mean', 'average'))} of {shown}", lines.done(), "mean")
    value = sum(numbers) // count
    for n in numbers[1:-1]:
        total = lines.add(total, "+", n)
    lines.add(lines.add(value, "*", count), "-", total)
    known = " and ".join((", ".join(map(str, numbers[:-1])), "x"))
    return Item("x", lines.done(), "missing", f"the {rng.choice(('mean', 'average'))} of {known} is {value}")


def rectangle(rng: random.Random) -> Item:
    """Area, perimeter or a missing side of a rectangle."""
    large = rng.random() < 0.4
    a, b = number(rng, large), number(rng, large)
    lines = Lines()
    sides = f"a rectangle has length {a} and width {b}"
    kind = rng.choice(("area", "perimeter", "side_area", "side_perimeter", "around", "inside", "longer", "square"))
    if kind == "area":
        lines.add(a, "*", b)
        return Item("its area", lines.done(), kind, sides)
    if kind == "perimeter":
        lines.add(lines.add(a, "+", b), "*", 2)
        return Item("its perimeter", lines.done(), kind, sides)
    if kind == "side_area":
        lines.add(a * b, "/", a)
        return Item("its width", lines.done(), kind, f"a rectangle has area {a * b} and length {a}")
    if kind == "side_perimeter":
        lines.add(lines.add(2 * (a + b), "/", 2), "-", a)
        return Item("its width", lines.done(), kind, f"a rectangle has perimeter {2 * (a + b)} and length {a}")
    if kind == "around":
        lines.add(lines.add(lines.add(a * b, "/", a), "+", a), "*", 2)
        return Item("its perimeter", lines.done(), kind, f"a rectangle has area {a * b} and length {a}")
    if kind == "inside":
        lines.add(lines.add(lines.add(2 * (a + b), "/", 2), "-", a), "*", a)
        return Item("its area", lines.done(), kind, f"a rectangle has perimeter {2 * (a + b)} and length {a}")
    if kind == "longer":
        lines.add(lines.add(b, "+", a), "*", b)
        return Item("its area", lines.done(), kind, f"a rectangle has width {b} and its length is {a} more")
    side = lines.add(4 * a, "/", 4)
    lines.add(side, "*", side)
    return Item("its area", lines.done(), kind, f"a square has perimeter {4 * a}")


NUMBER: dict[str, tuple[Family, int]] = {
    "basic": (basic, 5), "expression": (expression, 11), "gcd": (gcd, 5), "remainder": (remainder, 6),
    "term": (term_of, 4), "percent": (percent, 4), "mean": (mean, 4), "rectangle": (rectangle, 5),
}  # fmt: skip
