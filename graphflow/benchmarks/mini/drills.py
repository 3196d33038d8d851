"""Arithmetic sheets: rows of single calculations, for training only.

Mental arithmetic is learnt from many equations, and a story holds two or three among a hundred other tokens. A sheet is
half equations (our choice; no task of the suite is a sheet).
"""

from __future__ import annotations

import random

from graphflow.benchmarks.mini.problem import NAMES, Line, Problem, evaluate

LENGTHS = (4, 9)
LIMIT, MORE, FACTOR = 40, 99, 9


def equation(rng: random.Random, level: int) -> Line:
    """One calculation that can be done in the head, as the suite's small numbers need them; a little more from 3 on."""
    op = rng.choice("++--*/m")
    limit = MORE if level > 2 and rng.random() < 0.3 else LIMIT
    if op in "+-":
        total = rng.randrange(4, limit + 1)
        part = rng.randrange(1, total)
        return Line(total - part, "+", part) if op == "+" else Line(total, "-", part)
    if op == "m":
        return Line(rng.randrange(3, limit + 1), "mod", rng.randrange(2, FACTOR + 1))
    first, second = rng.randrange(2, FACTOR + 1), rng.randrange(2, FACTOR + 1)
    return Line(first, "*", second) if op == "*" else Line(first * second, "/", second)


def make_sheet(rng: random.Random, level: int = 5) -> Problem:
    """A sheet as a problem whose lines do not depend on each other; its answer is all results in a row.

    Args:
        rng: Source of randomness.
        level: Larger numbers come in from 3 on.
    """
    lines = tuple(equation(rng, level) for _ in range(rng.randrange(*LENGTHS)))
    shown = "; ".join(f"{line.left} {line.op} {line.right}" for line in lines)
    verb = rng.choice(("Work out", "Calculate", "Compute"))
    answer = ", ".join(str(result) for *_, result in evaluate(lines))
    form = ", ".join(f"{{{name}}}" for name, _ in zip(NAMES, lines, strict=False))
    text = f"{verb} each of these: {shown}. End with all the results."
    return Problem(text, answer, "sheet", 1, "sheet", lines, form=form)
