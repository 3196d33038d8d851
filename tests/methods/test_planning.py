"""Plans are read strictly, and what is wrong with one is said; blocks are found wherever they stand."""

from __future__ import annotations

import pytest

from graphflow.methods.planning import Call, PlanError, block, numbered, parse_plan


def test_a_plan_is_read() -> None:
    plan = """
    Thought: two ways at once.
    1. retrieve("Ann Lee")
    2. lookup_query()
    4. retrieve($2)
    ```
    5. vote($1, ${4}, $1)
    6. join() <END_OF_PLAN>
    what stands behind the join is not part of it
    """
    assert parse_plan(plan, 4) == [
        Call(1, "retrieve", (), "Ann Lee"),
        Call(2, "lookup_query", (), ""),
        Call(4, "retrieve", (2,), ""),
        Call(5, "vote", (1, 4), ""),
    ]
    assert parse_plan("1. program()\n2. join($1)", 1) == parse_plan("1. program()", 1)


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ("I would first look it up.", "a line must read 'number. operation\\(arguments\\)', not 'I would first"),
        ("1. program()\nThen run it", "not 'Then run it'"),
        ("1. program", "not '1. program'"),
        ("1. program()\n2. run_python($3)\n3. program()", "line 2: \\$3 does not stand before it \\(\\$1\\)"),
        ("1. run_python($1)", "line 1: \\$1 does not stand before it \\(there is none\\)"),
        ("2. program()\n2. program()", "line 2: numbers must rise, 2 stands before it"),
        ("", "a plan has 1 to 8 lines before join\\(\\), not 0"),
        ("1. join()", "not 0"),
        ("\n".join(f"{k}. program()" for k in range(1, 10)), "not 9"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(plan: str, error: str) -> None:
    with pytest.raises(PlanError, match=error):
        parse_plan(plan, 8)


def test_numbered_lines() -> None:
    assert numbered("Plan:\n1. first it\n  2. then that \n3) no\n10. last") == [
        (1, "first it"),
        (2, "then that"),
        (10, "last"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so <answer>f(x) = (1)\n2</answer>.", "f(x) = (1)\n2"),
        ("<answer>one</answer> no, <answer> two </answer>", "two"),
        ("<answer>cut o", "cut o"),
        ("no block", None),
    ],
)
def test_a_block_is_found(text: str, found: str | None) -> None:
    assert block(text, "answer") == found
