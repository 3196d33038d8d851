"""What is wrong with a draft and what a repair of it must say: wrong drafts, failing tests, and parts to stress."""

from __future__ import annotations

import re
from os.path import commonprefix

from graphflow.benchmarks.mini.problem import Problem

# A model's own first drafts take the usual reading of vague words, so most that fail are where the rarer one is meant.
# Where it is, and where it is not: shares of wrong drafts that take the other reading, and of tasks that are repaired.
MISREAD = {True: 0.9, False: 0.3}
REPAIRED = {True: 1.0, False: 0.6}
REMARK = re.compile(r".* (?:is|goes over) (?P<was>.*), it should (?:be|go over) (?P<should>.*)\.")


def mistakes(problem: Problem) -> list[tuple[str, str]]:
    """Wrong sources with remarks, repeated so that a uniform choice among them is as mistakes happen."""
    first, rest = list(problem.mutants[:1]), list(problem.mutants[1:])
    if "?" not in problem.structure:
        return first + rest
    share = MISREAD[problem.rare]
    return first * max(1, round(len(rest) * share / (1 - share))) + rest


def changed(before: str, after: str) -> tuple[int, int]:
    """The part of a text that another one does not begin or end with; at least one character."""
    start = len(commonprefix((before, after)))
    tail = len(commonprefix((before[start:][::-1], after[start:][::-1])))
    return start, max(start + 1, len(after) - tail)


def moved(span: tuple[int, int], by: int) -> tuple[int, int]:
    """The same part of a text that begins later."""
    return span[0] + by, span[1] + by


def corrected(remark: str) -> tuple[int, int]:
    """Where a remark says what should be and is not; the whole remark where nothing stands to be copied."""
    said = REMARK.fullmatch(remark)
    return moved(changed(said["was"], said["should"]), said.start("should")) if said else (0, len(remark))


def failing_test(problem: Problem, source: str) -> str:
    """What ``run_tests`` reports for a function of the grammar; empty if the visible tests pass."""
    scope: dict[str, object] = {}
    exec(source, scope)  # a source of this package's own grammar
    for test in problem.visible_tests:
        expression, expected = test.removeprefix("assert ").split(" == ", 1)
        value = repr(eval(expression, scope))
        if value != expected:
            return f"failed: {expression} gave {value}, expected {expected}"
    return ""
