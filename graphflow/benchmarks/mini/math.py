r"""mini-math: sixteen families from one operation to expressions as answers, in ``\boxed{}`` (our choice).

A question is composed of what is given, what is asked for, a verb, a notation and, now and then, a remark that does not
matter. Answers that are expressions or fractions cannot be printed by a program and have to be worked out in steps.
"""

from __future__ import annotations

import random
import re

from graphflow.benchmarks.mini.math_algebra import ALGEBRA
from graphflow.benchmarks.mini.math_item import Infeasible, Item
from graphflow.benchmarks.mini.math_number import NUMBER
from graphflow.benchmarks.mini.problem import NAMES, Line, Operand, Problem, evaluate

FAMILIES = NUMBER | ALGEBRA
FINAL = r"\boxed{{{}}}"
WORDS = (8, 35)
ANSWER_LINES = (r"Put the answer in \boxed{}.", r"Write the answer in \boxed{}.", r"Give the answer in \boxed{}.")
ASKS = ("Find {}.", "What is {}?", "Compute {}.", "Determine {}.", "Calculate {}.", "Work out {}.", "Give {}.")
GIVEN = (
    "If {given}, what is {target}?",
    "Suppose that {given}. {ask}",
    "Assume that {given}. {ask}",
    "Given that {given}, find {target}.",
    "We know that {given}. {ask}",
    "Let {given}. {ask}",  # for equations only
)
REMARKS = (
    "This is exercise {n}.",
    "Exercise {n} on page {m}.",
    "Question {n} is worth {m} points.",
    "You have {n} minutes.",
    "All numbers are whole.",
    "No table is needed.",
    "The last answer was {n}.",
    "{n} pupils solved this.",
)
_NAMES, _WEIGHTS = list(FAMILIES), [weight for _, weight in FAMILIES.values()]


def level_of(lines: tuple[Line, ...], letters: bool) -> int:
    """Level 1-5.

    A point each for every line, a number above 99, letters or an expression as the answer, and remainders; from two
    lines on less one.
    """
    large = any(max(left, right, result) > 99 for left, _, right, result in evaluate(lines))
    remainders = any(line.op == "mod" for line in lines)
    return min(5, max(1, len(lines) + large + letters + remainders - (len(lines) > 1)))


def _wording(rng: random.Random, item: Item) -> str:
    marks = rng.random() < 0.25
    target, given, body = item.target, item.given, item.body
    if marks:
        body = f"${body}$"
        if body != "$$" and item.target != item.body:
            target = target.replace(item.body, body)
        target = f"${target}$" if re.fullmatch(r"[-\d+*/() ^.xyfg\\rac{}]+", item.target) else target
        given = f"${given}$" if re.fullmatch(r"[-\d+*/() =^xfg]+", item.given) else given
    if item.direct and rng.random() < 0.7:
        text = rng.choice(item.direct).format(body)
    else:
        ask = rng.choice(ASKS).format(target)
        if given:
            clause = rng.choice(GIVEN if "=" in given else GIVEN[:-1])
            ask = clause.format(given=given, target=target, ask=ask)
        text = ask
    if not text.startswith(("What", "If", "Suppose", "Assume", "Given", "Let", "We", "Which")) and rng.random() < 0.2:
        text = rng.choice(("Please ", "Now ", "Next, ")) + text[0].lower() + text[1:]
    if rng.random() < 0.2:
        text = text.replace(" * ", r" \cdot ")
    return text


def make(rng: random.Random) -> Problem:
    """One problem of a random family."""
    family = rng.choices(_NAMES, _WEIGHTS)[0]
    while True:
        try:
            item = FAMILIES[family][0](rng)
            break
        except Infeasible:
            continue
    parts = [_wording(rng, item)]
    if rng.random() < 0.2 or parts[0].count(" ") + 6 < WORDS[0]:
        remark = rng.choice(REMARKS).format(n=rng.randrange(2, 60), m=rng.randrange(2, 99))
        parts.insert(rng.randrange(2), remark)
    parts.append(rng.choice(ANSWER_LINES))
    wiring = " ".join(f"{_slot(line.left)}{line.op}{_slot(line.right)}" for line in item.lines)
    letters = "x" in item.given or not item.programmable
    answer = str(evaluate(item.lines)[-1][3])
    if item.form:
        answer = item.form.format(**{name: row[3] for name, row in zip(NAMES, evaluate(item.lines), strict=False)})
    return Problem(
        " ".join(parts), answer, family, level_of(item.lines, letters), f"{family}|{item.shape}|{wiring}", item.lines,
        form=item.form, final=FINAL, programmable=item.programmable, program=item.program,
    )  # fmt: skip


def _slot(operand: Operand) -> str:
    return operand if isinstance(operand, str) else "#"
