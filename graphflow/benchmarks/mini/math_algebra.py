"""Families of mini-math with letters and fractions: equations, functions, expressions as answers."""

from __future__ import annotations

import math
import random

from graphflow.benchmarks.mini.math_item import Family, Infeasible, Item, Lines, number, term


def _fraction(top: str, bottom: str) -> str:
    """Format string of a fraction of two lines."""
    return rf"\frac{{{{{{{top}}}}}}}{{{{{{{bottom}}}}}}}"


def linear(rng: random.Random) -> Item:
    """Linear equations of five shapes."""
    large = rng.random() < 0.4
    a, x, b = rng.randrange(2, 13), number(rng, large), rng.randrange(2, 60 if large else 30)
    kind, plus = rng.choice(("ax+b", "a(x+b)", "ax+b=cx+d", "b+ax", "x/a")), rng.random() < 0.55
    sign, undo = ("+", "-") if plus else ("-", "+")
    lines = Lines()
    if kind in ("ax+b", "b+ax"):
        c = a * x + (b if plus else -b)
        lines.add(lines.add(c, undo, b), "/", a)
        text = f"{a}x {sign} {b} = {c}" if kind == "ax+b" or not plus else f"{b} + {a}x = {c}"
    elif kind == "a(x+b)":
        b = b if plus else rng.randrange(1, max(2, x))
        c = a * (x + b if plus else x - b)
        lines.add(lines.add(c, "/", a), undo, b)
        text = f"{a}(x {sign} {b}) = {c}"
    elif kind == "x/a":
        b = b if plus else rng.randrange(1, max(2, x))
        c = x + b if plus else x - b
        lines.add(lines.add(c, undo, b), "*", a)
        text = f"x / {a} {sign} {b} = {c}"
    else:
        c = rng.randrange(1, max(2, a - 1))
        d = (a - c) * x + (b if plus else -b)
        lead = lines.add(a, "-", c)
        if lines.value(lead) == 1:
            raise Infeasible
        if d < 0:  # ax - b = cx - e
            lines.add(lines.add(b, "-", -d), "/", lead)
            kind = "ax-b=cx-d"
        else:
            lines.add(lines.add(d, undo, b), "/", lead)
        text = f"{a}x {sign} {b} ={term('', c, 'x')[1:]}{term('-' if d < 0 else '+', abs(d))}"
    if lines.values[-1] < 1 or text.split()[-1].startswith("-") or (kind == "ax+b=cx+d" and not int(text.split()[-1])):
        raise Infeasible
    direct = ("Solve {} for x.", "Solve the equation {}.", "Find x such that {}.", "Which x solves {}?")
    return Item("x", lines.done(), f"{kind}{sign}", given=text, direct=direct, body=text)


def system(rng: random.Random) -> Item:
    """Sum and difference of two unknowns; asked are one of them or their product."""
    large = rng.random() < 0.4
    y = number(rng, large)
    x = y + number(rng, large)
    s, d = x + y, x - y
    asked, lines = rng.choice(("x", "x", "y", "y", "xy", "double")), Lines()
    value = lines.add(lines.add(s, "-" if asked == "y" else "+", d), "/", 2)
    if asked == "xy":
        lines.add(value, "*", lines.add(s, "-", value))
    if rng.random() < 0.4:
        given = f"two numbers have sum {s} and difference {d}"
        names = {
            "x": "the larger number",
            "y": "the smaller number",
            "xy": "their product",
            "double": "the larger number",
        }
        asked = "x" if asked == "double" else asked
        return Item(names[asked], lines.done(), f"words {asked}", given)
    first, second = f"x + y = {s}", f"x - y = {d}"
    given = f"{first} and {second}" if rng.random() < 0.5 else f"{second} and {first}"
    if asked == "double":
        lines.add(value, "*", 2)
    return Item({"double": "2x"}.get(asked, asked), lines.done(), asked, given)


def polynomial(rng: random.Random) -> Item:
    """The value of a polynomial of degree two or three."""
    cubic = rng.random() < 0.25
    x, a, b, c = rng.randrange(2, 7 if cubic else 16), rng.randrange(1, 7), rng.randrange(2, 13), rng.randrange(2, 30)
    first, second = rng.choice("+-"), rng.choice("+-")
    lines = Lines()
    power = lines.add(x, "*", x)
    if cubic:
        power = lines.add(power, "*", x)
    lead = power if a == 1 else lines.add(a, "*", power)
    lines.add(lines.add(lead, first, lines.add(b, "*", x)), second, c)
    text = term("", a, f"x^{3 if cubic else 2}")[2:] + term(first, b, "x") + term(second, c)
    shape = f"{'cubic' if cubic else 'square'}{first}{second}"
    if rng.random() < 0.3:
        return Item(f"the value of {text} at x = {x}", lines.done(), shape)
    return Item(f"f({x})", lines.done(), shape, f"f(x) = {text}")


EXPAND = ("Expand {}.", "Multiply out {}.", "Write {} without brackets.")


def expand(rng: random.Random) -> Item:
    """Brackets multiplied out."""
    kind = rng.choice(("two", "two", "two", "lead", "square"))
    a, b, k = (rng.randrange(2, top) for top in (10, 10, 5))
    first, second = rng.choice("+-"), rng.choice("+-")
    lines = Lines()
    if kind == "square":
        lines.add(2, "*", a)
        lines.add(a, "*", a)
        text, form = f"(x {first} {a})^2", f"x^2 {first} {{a}}x + {{b}}"
    else:
        inner = lines.add(k, "*", b) if kind == "lead" else b
        top, low = (inner, a) if lines.value(inner) > a else (a, inner)
        sign = first
        if first == second:
            middle = lines.add(inner, "+", a)
        else:
            middle = lines.add(top, "-", low)
            sign = second if top == inner else first
        if lines.value(middle) < 2:
            raise Infeasible
        product = lines.add(a, "*", b)
        lead = k if kind == "lead" else ""
        text = f"({lead}x {first} {a})(x {second} {b})"
        form = f"{lead}x^2 {sign} {{{middle}}}x {'+' if first == second else '-'} {{{product}}}"
    target = f"the expanded form of {text}"
    return Item(target, lines.done(), f"{kind}{first}{second}", direct=EXPAND, body=text, form=form, programmable=False)


FACTOR = ("Factor {}.", "Write {} as a product.", "Split {} into two factors.")


def factor(rng: random.Random) -> Item:
    """A quadratic written as a product: one factor divides the last number, the middle number gives the other."""
    small, big = sorted((rng.randrange(1, 10), rng.randrange(1, 10)))
    first, second = rng.choice("+-"), rng.choice("+-")
    middle = big + small if second == "+" else big - small
    if middle < 2:
        raise Infeasible
    lines = Lines()
    quotient = lines.add(big * small, "/", small)
    if second == "+":
        lines.add(middle, "-", quotient)
        signs = first, first
    else:
        lines.add(quotient, "-", middle)
        signs = first, "-" if first == "+" else "+"
    text = f"x^2 {first} {middle}x {second} {big * small}"
    form = f"(x {signs[0]} {{a}})(x {signs[1]} {{b}})"
    target = f"the factored form of {text}"
    return Item(target, lines.done(), f"{first}{second}", direct=FACTOR, body=text, form=form, programmable=False)


def squares(rng: random.Random) -> Item:
    """Differences of squares: as a product, multiplied out, and in numbers."""
    kind = rng.choice(("product", "lead product", "out", "lead out", "numbers"))
    a, k = rng.randrange(2, 13), rng.randrange(2, 7)
    lines = Lines()
    if kind == "numbers":
        a, b = rng.randrange(20, 100), rng.randrange(1, 20)
        lines.add(lines.add(a, "-", a - b), "*", lines.add(a, "+", a - b))
        return Item(f"{a}^2 - {a - b}^2", lines.done(), kind)
    if kind == "product":
        lines.add(a * a, "/", a)
        text, form = f"x^2 - {a * a}", "(x - {a})(x + {a})"
    elif kind == "lead product":
        lines.add(k * k, "/", k)
        lines.add(a * a, "/", a)
        text, form = f"{k * k}x^2 - {a * a}", "({a}x - {b})({a}x + {b})"
    elif kind == "out":
        lines.add(a, "*", a)
        text, form = f"(x - {a})(x + {a})", "x^2 - {a}"
    else:
        lines.add(k, "*", k)
        lines.add(a, "*", a)
        text, form = f"({k}x + {a})({k}x - {a})", "{a}x^2 - {b}"
    factors = kind.endswith("product")
    target = f"the {'factored' if factors else 'expanded'} form of {text}"
    direct = FACTOR if factors else EXPAND
    return Item(target, lines.done(), kind, direct=direct, body=text, form=form, programmable=False)


def reduce(rng: random.Random) -> Item:
    """A fraction in lowest terms."""
    g, a, b = rng.randrange(2, 7), rng.randrange(2, 10), rng.randrange(2, 10)
    if math.gcd(a, b) > 1 or a == b:
        raise Infeasible
    a, b = a * g, b * g
    lines = Lines()
    common = lines.euclid(max(a, b), min(a, b))
    if len(lines.lines) > 4:
        raise Infeasible
    form = _fraction(lines.add(a, "/", common), lines.add(b, "/", common))
    text = rf"\frac{{{a}}}{{{b}}}" if rng.random() < 0.6 else f"{a}/{b}"
    direct = ("Simplify {}.", "Reduce {} to lowest terms.", "Write {} in lowest terms.")
    shape = "proper" if a < b else "improper"
    return Item(
        f"the reduced form of {text}", lines.done(), shape, direct=direct, body=text, form=form, programmable=False
    )


def fractions(rng: random.Random) -> Item:
    """Two fractions added, subtracted or multiplied; the result is in lowest terms without reducing."""
    op = rng.choice("++-*")
    b, d = rng.randrange(2, 8), rng.randrange(2, 8)
    a, c = rng.randrange(1, b), rng.randrange(1, d)
    if math.gcd(a, b) > 1 or math.gcd(c, d) > 1:
        raise Infeasible
    lines = Lines()
    if op == "*":
        top, bottom = lines.add(a, "*", c), lines.add(b, "*", d)
    else:
        top = lines.add(lines.add(a, "*", d), op, lines.add(c, "*", b))
        bottom = lines.add(b, "*", d)
    if lines.value(top) < 1 or math.gcd(lines.value(top), lines.value(bottom)) > 1:
        raise Infeasible
    latex = rng.random() < 0.6
    first, second = (rf"\frac{{{p}}}{{{q}}}" if latex else f"{p}/{q}" for p, q in ((a, b), (c, d)))
    form = _fraction(top, bottom)
    body = f"{first} {op} {second}"
    direct = ("Write {} as one fraction.", "Work out {} as a fraction.")
    return Item(body, lines.done(), op, direct=direct, body=body, form=form, programmable=False)


ALGEBRA: dict[str, tuple[Family, int]] = {
    "linear": (linear, 9), "system": (system, 5), "polynomial": (polynomial, 5),
    "expand": (expand, 9), "factor": (factor, 6), "squares": (squares, 5), "reduce": (reduce, 7),
    "fractions": (fractions, 7),
}  # fmt: skip
