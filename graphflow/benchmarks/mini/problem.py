"""What a generator of the embedded suite makes: a problem with everything that operations are trained and scored on.

Arithmetic kinds are straight-line programs (`Line`), so that worked steps, a Python program, a plan and a solution with
an injected and consistently carried mistake all come from one description (our choice).
"""

from __future__ import annotations

import hashlib
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
PYTHON = {"/": "//", "mod": "%"}


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
        structure: What is left of the problem without its numbers, names and wording, for example
            ``"chain|lose gain|#-# a+#"``; a share of all structures is never trained on (`held_out`).
        lines: Straight-line solution; empty for look-up and code kinds.
        form: The answer as a format string over the names of the lines, for example ``"x^2 + {a}x + {b}"``; empty for
            the result of the last line.
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
        mutants: Wrong sources of the same function, each with a remark on what to change; where words are vague, their
            other reading first.
        rare: Vague words are meant in the rarer of their two readings.
    """

    text: str
    answer: str
    family: str
    level: int
    structure: str = ""
    lines: tuple[Line, ...] = ()
    form: str = ""
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
    rare: bool = False

    def steps(self, wrong: int = -1, delta: int = 0) -> list[str]:
        """The worked steps as equations, one a line; with a mistake where ``wrong`` says."""
        return [f"{a} {op} {b} = {r}." for a, op, b, r in evaluate(self.lines, wrong, delta)]

    def result(self, wrong: int = -1, delta: int = 0) -> str:
        """The answer that follows from the lines; with a mistake the one it is carried on to."""
        values = dict(zip(NAMES, (str(row[3]) for row in evaluate(self.lines, wrong, delta)), strict=False))
        return self.form.format(**values) if self.form else values[NAMES[len(self.lines) - 1]]

    def solution(self, wrong: int = -1, delta: int = 0) -> str:
        """Steps and final answer; a mistake is carried into the answer."""
        answer = self.answer if wrong < 0 else self.result(wrong, delta)
        return " ".join([*self.steps(wrong, delta), self.final.format(answer)])

    def code(self) -> str:
        """Python source of ``solve()``."""
        if self.program:
            return self.program
        body = [
            f"    {NAMES[i]} = {line.left} {PYTHON.get(line.op, line.op)} {line.right}"
            for i, line in enumerate(self.lines)
        ]
        return "\n".join(["def solve():", *body, f"    return {NAMES[len(self.lines) - 1]}"])

    def plan(self) -> str:
        """The lines without results."""
        return ". ".join(f"{NAMES[i]} = {line.left} {line.op} {line.right}" for i, line in enumerate(self.lines)) + "."


SPLITS = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
HELD_OUT = "heldout"
HELD_OUT_PERCENT = 12


def _percent(text: str) -> int:
    """A number from 0 to 99 that depends on the text alone, on every machine and Python version."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100


def held_out(structure: str) -> bool:
    """Whether a structure belongs to the held-out split: never trained or validated on, reported apart (our choice)."""
    return _percent(f"structure/{structure}") < HELD_OUT_PERCENT


def split_of(problem: Problem) -> str:
    """The split of a problem: its structure, then a hash of its text without case, blanks and punctuation decides.

    Splits are therefore disjoint on normalised text whatever is drawn, the held-out one on structure too (our choice).
    """
    if held_out(problem.structure):
        return HELD_OUT
    bucket = _percent("".join(ch for ch in problem.text.lower() if ch.isalnum()))
    return next(name for name, (low, high) in SPLITS.items() if low <= bucket < high)


def draw(make: Callable[[random.Random], Problem], rng: random.Random, split: str) -> Problem:
    """The next problem of ``make`` that falls into ``split``."""
    while True:
        problem = make(rng)
        if split_of(problem) == split:
            return problem
