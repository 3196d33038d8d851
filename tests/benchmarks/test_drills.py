"""Arithmetic sheets: right results, numbers that can be worked out in the head, mistakes in any line."""

import random
import re

import pytest

from graphflow.benchmarks.mini.drills import make_sheet
from graphflow.benchmarks.mini.traces import BRANCHES, DRILL, Role, make_calls, make_trace, mistaken


@pytest.mark.parametrize(("level", "limit"), [(1, 40), (2, 40), (3, 99), (5, 99)])
def test_results_are_right_and_small_at_first(level, limit):
    """The tables up to 9 times 9 throughout; larger numbers to add, take away and divide with a remainder from 3 on."""
    rng, largest = random.Random(f"sheets/{level}"), {}
    for _ in range(400):
        sheet = make_sheet(rng, level)
        for left, op, right, result in re.findall(r"(\d+) ([-+*/]|mod) (\d+) = (\d+)\.", sheet.solution()):
            a, b, c = int(left), int(right), int(result)
            assert c == {"+": a + b, "-": a - b, "*": a * b, "/": a // b, "mod": a % b}[op]
            assert min(a, b) > 0 and (op in "+-" or b <= 9)
            assert op != "/" or a % b == 0
            largest[op] = max(largest.get(op, 0), a, b, c)
        assert sheet.solution().count("=") == len(sheet.lines) and sheet.result() == sheet.answer
    assert largest == {"+": limit, "-": limit, "mod": limit, "*": 81, "/": 81}


def test_a_mistake_in_any_line_changes_the_answer():
    rng = random.Random("wrong")
    sheet = make_sheet(rng)
    lines = {mistaken(sheet, rng)[2] for _ in range(100)}
    assert lines == set(range(len(sheet.lines)))


def test_sheets_are_traced_like_other_problems():
    rng = random.Random("drill")
    trace = make_trace(DRILL, rng)
    operations = {turn.text for branch in trace.branches for turn in branch if turn.role is Role.OPERATION}
    assert operations <= {"generate_cot", "review", "revise", "judge"} and "generate_cot" in operations
    assert len(BRANCHES[DRILL](make_sheet(rng), rng)) == 3
    assert {operation for _ in range(20) for operation, _, _ in make_calls(DRILL, rng, 2)} <= operations | {
        "review",
        "revise",
        "judge",
    }
