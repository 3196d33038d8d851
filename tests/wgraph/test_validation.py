from itertools import product

import pytest
from hypothesis import given, settings

from graphflow.wgraph.workflow import TASK, WorkflowError, validate
from tests.wgraph.build import workflow
from tests.wgraph.strategies import LIBRARY, workflows

VALID = [
    {"a": "think(task)"},
    {"a": "think(task) x3", "v": "vote(a)"},
    {"a": "think(task)", "c": "review(a)", "b": "revise(c) if c.issues", "p": "first(b, a)"},
    {"c": "code(task)", "t": "tests(c)", "r": "review(t) if t.failed", "f": "fix(r) if r.issues", "p": "first(f, c)"},
    # Opposite guards: whatever the tests say, one of the two answers.
    {
        "c": "code(task)",
        "t": "tests(c)",
        "a": "think(t) if t.failed",
        "b": "vote(t) if not t.failed",
        "p": "first(a, b)",
    },
]


@pytest.mark.parametrize("steps", VALID)
def test_what_can_run_is_valid(steps, library):
    assert validate(workflow(steps), library) is None


@pytest.mark.parametrize(
    ("steps", "answer", "message"),
    [
        (
            {"a": "thnk(task)"},
            "a",
            "workflow 'w', step 'a': op: unknown operation 'thnk' (did you mean 'think'?); allowed",
        ),
        (
            {"a": "think(task)", "b": "code(task)", "c": "tests(b)"},
            "a",
            "workflow 'w': 'b', 'c' never reach the answer 'a'; every step must",
        ),
        ({"a": "think(task)", "b": "code(task)"}, "a", "'b' never reaches the answer 'a'"),
        ({"a": "think(task)", "b": "revise(a)"}, "b", "input 'a' has the type 'answer', but 'revise' accepts review"),
        ({"a": "vote(task)"}, "a", "input 'task' has the type 'task', but 'vote' accepts answer, result, code"),
        (
            {"c": "code(task)", "t": "tests(c)", "r": "review(t)", "b": "revise(r)"},
            "b",
            "step 'b': 'revise' requires 'answer' before it, but there is only code, result, review, task",
        ),
        (
            {"a": "think(task)", "b": "think(task)", "c": "review(a, b)", "d": "revise(c)"},
            "d",
            "'review' takes one input, not 2 (a, b); put vote, ensemble_select or first_nonempty in between",
        ),
        (
            {"a": "think(task) x3", "c": "review(a)", "d": "revise(c)"},
            "d",
            "step 'c': 'review' takes one input, but 'a' gives 3 samples; put vote",
        ),
        (
            {"c": "code(task)", "t": "tests(c) x2", "v": "vote(t)"},
            "v",
            "samples must be 1 for 'tests' (kind tool), not 2; only llm has more",
        ),
        (
            {"c": "code(task)", "t": "tests(c)", "a": "think(task) if t.failed", "p": "first(a, t)"},
            "p",
            "step 'a': guard 't.failed' must read a step before it (there is none)",
        ),
        (
            {"a": "think(task)", "c": "review(a)", "b": "revise(c) if d.issues", "p": "first(b, a)"},
            "p",
            "step 'b': guard 'd.issues' must read a step before it (a, c)",
        ),
        (
            {"a": "think(task)", "c": "review(a)", "b": "revise(c) if task.issues", "p": "first(b, a)"},
            "p",
            "guard 'task.issues' must read a step before it (a, c)",
        ),
        (
            {"a": "think(task)", "c": "review(a)", "b": "revise(c) if c.isues", "p": "first(b, a)"},
            "p",
            "guard 'c.isues': unknown field of 'review' 'isues' (did you mean 'issues'?); allowed: issues",
        ),
        (
            {"a": "think(task)", "c": "review(a)", "b": "revise(c) if a.issues", "p": "first(b, a)"},
            "p",
            "guard 'a.issues': unknown field of 'think' 'issues'; allowed: none",
        ),
        ({"p": "plan(task)"}, "p", "answer step 'p' produces 'plan'; allowed: answer, code, result"),
        (
            {"a": "think(task)", "c": "review(a)", "b": "revise(c) if c.issues"},
            "b",
            "workflow 'w': the answer step 'b' is skipped if not c.issues; end with first_nonempty over a step that",
        ),
    ],
)
def test_each_rule_is_held(steps, answer, message, library):
    with pytest.raises(WorkflowError) as caught:
        validate(workflow(steps, answer=answer), library)
    assert message in str(caught.value)


def test_a_guard_needs_one_value():
    flow = workflow(
        {"a": "think(task)", "c": "review(a) x2", "g": "gather(c)", "b": "think(g) if c.issues", "p": "gather(b, a)"}
    )
    with pytest.raises(WorkflowError, match="guard 'c.issues' needs one value, but 'c' gives 2 samples"):
        validate(flow, LIBRARY)


def test_kinds_are_known(library):
    with pytest.raises(WorkflowError, match="kinds: unknown kind 'gsm8' .did you mean 'gsm8k'.*; allowed: gsm8k, "):
        validate(workflow({"a": "think(task)"}, kinds=("gsm8",)), library)


def always_answers(flow):
    """Every outcome of all guards, played through one by one."""
    keys = sorted({(step.when.step, step.when.field) for step in flow.steps if step.when})
    for values in product([False, True], repeat=len(keys)):
        outcome = dict(zip(keys, values, strict=True))
        present = {TASK}
        for step in flow.steps:
            guard = step.when
            holds = guard is None or (guard.step in present and outcome[guard.step, guard.field] != guard.negated)
            if holds and not present.isdisjoint(step.inputs):
                present.add(step.id)
        if flow.answer not in present:
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(workflows(always=False))
def test_no_answer_is_found_exactly_where_some_outcome_skips_it(flow):
    if always_answers(flow):
        assert validate(flow, LIBRARY) is None
    else:
        with pytest.raises(WorkflowError, match="is skipped if"):
            validate(flow, LIBRARY)
