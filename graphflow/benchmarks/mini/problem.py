"""What a generator of the embedded suite makes: a problem with everything that operations are trained and scored on.

Arithmetic kinds are straight-line programs (`Line`), so that worked steps, a Python program, a plan and a solution with
an injected and consistently carried mistake all come from one description (our choice).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

Operand = int | str  # a number, or the name of an earlier line: "a", "b", ...
NAMES = "abcdefgh"
_APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}
_PYTHON = {"/": "//", "mod": "%"}


@dataclass(frozen=True)
class Line:
    """One assignment: ``left op right`` with op one of ``+ - * / mod``."""

    left: Operand
    op: str
    right: Operand


def evaluate(lines: tuple[Line, ...], wrong: int = -1, delta: int = 0) -> list[tuple[int, str, int, int]]:
    """Values of a straight-line program.

    Args:
        lines: The program.
        wrong: Index of a line whose result gets ``delta`` added (and is carried on); -1 for none.
        delta: The error.

    Returns:
        One ``(left, op, right, result)`` a line.
    """
    values: dict[str, int] = {}
    rows = []
    for index, line in enumerate(lines):
        left = values[line.left] if isinstance(line.left, str) else line.left
        right = values[line.right] if isinstance(line.right, str) else line.right
        result = _APPLY[line.op](left, right) if right or line.op not in ("/", "mod") else 0
        if index == wrong:
            result += delta
        values[NAMES[index]] = result
        rows.append((left, line.op, right, result))
    return rows


@dataclass(frozen=True)
class Problem:
    """One generated problem.

    Attributes:
        text: What the model reads.
        answer: The reference: a number, an expression, a name, or a function's source.
        family: Kind of problem inside the benchmark.
        level: Difficulty, 1 is easiest.
        lines: Straight-line solution; empty for look-up and code kinds.
        final: How a worked solution ends, with ``{}`` for the answer.
        programmable: True if a program's printed value can be the answer.
        program: Python source of ``solve()`` where it is not simply `lines`.
        passages: Texts a retriever may search.
        question: The question after the passages.
        hops: Names to look up, in order, each with the passage it leads to.
        facts: The sentences that answer the question.
        entry_point: Name of the function asked for.
        visible_tests: Asserts that the text shows.
        hidden_tests: Asserts that decide.
        mutants: Wrong sources of the same function, each with a remark on what to change.
    """

    text: str
    answer: str
    family: str
    level: int
    lines: tuple[Line, ...] = ()
    final: str = "answer: {}"
    programmable: bool = True
    program: str = ""
    passages: tuple[str, ...] = ()
    question: str = ""
    hops: tuple[tuple[str, str], ...] = ()
    facts: tuple[str, ...] = ()
    entry_point: str = ""
    visible_tests: tuple[str, ...] = ()
    hidden_tests: tuple[str, ...] = ()
    mutants: tuple[tuple[str, str], ...] = ()

    def steps(self, wrong: int = -1, delta: int = 0) -> list[str]:
        """The worked steps as equations, one a line; with a mistake where ``wrong`` says."""
        return [f"{a} {op} {b} = {r}." for a, op, b, r in evaluate(self.lines, wrong, delta)]

    def solution(self, wrong: int = -1, delta: int = 0) -> str:
        """Steps and final answer; with a mistake the answer is the last carried result."""
        answer = self.answer if wrong < 0 else str(evaluate(self.lines, wrong, delta)[-1][3])
        return " ".join([*self.steps(wrong, delta), self.final.format(answer)])

    def code(self) -> str:
        """Python source of ``solve()``."""
        if self.program:
            return self.program
        body = [
            f"    {NAMES[i]} = {line.left} {_PYTHON.get(line.op, line.op)} {line.right}"
            for i, line in enumerate(self.lines)
        ]
        return "\n".join(["def solve():", *body, f"    return {NAMES[len(self.lines) - 1]}"])

    def plan(self) -> str:
        """The lines without results."""
        return ". ".join(f"{NAMES[i]} = {line.left} {line.op} {line.right}" for i, line in enumerate(self.lines)) + "."


SPLITS = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}


def split_of(text: str) -> str:
    """The split a problem belongs to: a hash of its text without case, blanks and punctuation decides (our choice).

    Splits are therefore disjoint on normalised text whatever is drawn, on every machine and Python version.
    """
    normal = "".join(ch for ch in text.lower() if ch.isalnum())
    bucket = int.from_bytes(hashlib.sha256(normal.encode()).digest()[:4], "big") % 100
    return next(name for name, (low, high) in SPLITS.items() if low <= bucket < high)


def draw(make: Callable[[random.Random], Problem], rng: random.Random, split: str) -> Problem:
    """The next problem of ``make`` that falls into ``split``."""
    while True:
        problem = make(rng)
        if split_of(problem.text) == split:
            return problem


def gcd_lines(a: int, b: int) -> tuple[Line, ...]:
    """Euclid's algorithm as lines; the last result is 0 and the answer is the last divisor."""
    lines = []
    while b:
        lines.append(Line(a, "mod", b))
        a, b = b, a % b
    assert math.gcd(a, b) == a
    return tuple(lines)
