import pytest

from graphflow.wgraph.workflow import WorkflowError, validate
from tests.wgraph.build import workflow

LOOPED = {"c": "code(task)", "t": "tests(c)", "f": "fix(t) if t.failed", "p": "first(f, c)"}
LOOP = {"body": ["t", "f"], "while": "t.failed", "max_unroll": 3}


def test_a_loop_is_written_out(library):
    flow = workflow(LOOPED, loops=[LOOP])
    by_hand = workflow(
        {
            "c": "code(task)",
            "t": "tests(c)",
            "f": "fix(t) if t.failed",
            "t_2": "tests(f) if t.failed",  # the previous round's condition
            "f_2": "fix(t_2) if t_2.failed",  # its own guard, in its own round
            "t_3": "tests(f_2) if t_2.failed",
            "f_3": "fix(t_3) if t_3.failed",
            "p": "first(f_3, f_2, f, c)",  # the latest first
        }
    )
    assert flow == by_hand
    assert validate(flow, library) is None


def test_one_round_is_the_body_as_written():
    assert workflow(LOOPED, loops=[{**LOOP, "max_unroll": 1}]) == workflow(LOOPED)


def test_a_guard_from_outside_becomes_the_condition_in_later_rounds():
    flow = workflow(
        {"c": "code(task)", "t": "tests(c)", "f": "fix(t) if t.failed", "u": "tests(f)", "p": "first(u, t)"},
        loops=[{"body": ["f", "u"], "while": "u.failed", "max_unroll": 2}],
    )
    assert flow.to_dict()["steps"] == {
        "c": {"op": "code", "in": ["task"]},
        "t": {"op": "tests", "in": ["c"]},
        "f": {"op": "fix", "in": ["t"], "when": "t.failed"},
        "u": {"op": "tests", "in": ["f"]},
        "f_2": {"op": "fix", "in": ["u"], "when": "u.failed"},
        "u_2": {"op": "tests", "in": ["f_2"], "when": "u.failed"},
        "p": {"op": "first", "in": ["u_2", "u", "t"]},
    }


def test_two_loops_one_after_the_other(library):
    flow = workflow(
        {**LOOPED, "u": "tests(p)", "g": "fix(u) if u.failed", "q": "first(g, p)"},
        loops=[{**LOOP, "max_unroll": 2}, {"body": ["u", "g"], "while": "u.failed", "max_unroll": 2}],
    )
    assert flow.parents("p") == ("f_2", "f", "c")
    assert flow.parents("q") == ("g_2", "g", "p")
    assert flow.parents("u_2") == ("g",)
    assert validate(flow, library) is None


def test_behind_a_loop_an_operation_of_many_inputs_must_stand(library):
    flow = workflow({**LOOPED, "p": "tests(f)"}, loops=[LOOP])
    with pytest.raises(WorkflowError, match="'tests' takes one input, not 3 .f_3, f_2, f.; put vote"):
        validate(flow, library)


@pytest.mark.parametrize(
    ("loops", "answer", "message"),
    [
        ([{**LOOP, "max_unroll": 0}], "p", "loop: max_unroll must be a whole number of at least 1, not 0"),
        ([{**LOOP, "until": "t.failed"}], "p", "loop: unknown key 'until'; allowed: body, max_unroll, while"),
        ([{"body": ["t", "f"], "while": "t.failed"}], "p", "loop: missing key 'max_unroll'"),
        ([{**LOOP, "body": ["t", "g"]}], "p", "loop: body: unknown step 'g'; allowed: c, f, p, t"),
        ([{**LOOP, "while": "c.failed"}], "p", "loop: while must read a step of the body (t, f), not 'c.failed'"),
        ([LOOP, LOOP], "p", "loop: body names f, t more than once; a step belongs to one loop at most"),
        ([LOOP], "f", "answer 'f' stands inside a loop; put first_nonempty behind the loop and make it the answer"),
        (
            [{**LOOP, "body": ["c", "t", "f"]}],
            "p",
            "body c, t, f must read exactly one step outside itself, whose value",
        ),
    ],
)
def test_a_loop_that_cannot_be_written_out_is_refused(loops, answer, message):
    with pytest.raises(WorkflowError) as caught:
        workflow(LOOPED, loops=loops, answer=answer)
    assert message in str(caught.value)


def test_a_guard_may_not_look_into_a_loop():
    with pytest.raises(WorkflowError, match="step 'p': guard 't.failed' reads a step of a loop it does not belong to"):
        workflow({**LOOPED, "p": "first(f, c) if t.failed"}, loops=[LOOP])
