import pytest

from graphflow.errors import UnknownNameError
from graphflow.wgraph.workflow import TASK, Guard, Step, Workflow, WorkflowError
from tests.wgraph.build import workflow

REVIEWED = {
    "a": "think(task)",
    "check": "review(a)",
    "b": "revise(check) if check.issues",
    "pick": "first(b, a)",
}


def test_guards_are_read_and_written():
    assert Guard.parse("tests.failed") == Guard("tests", "failed")
    assert Guard.parse("not review.issues") == Guard("review", "issues", negated=True)
    assert Guard.parse("run_tests#2.failed") == Guard("run_tests#2", "failed")
    assert str(Guard("review", "issues", negated=True)) == "not review.issues"


@pytest.mark.parametrize("text", ["failed", "a.b.c", "tests.", ".failed", "tests.is bad"])
def test_a_bad_guard_is_refused(text):
    with pytest.raises(WorkflowError, match="guard must be 'step.field' or 'not step.field', not"):
        Guard.parse(text)


def test_what_a_workflow_knows_about_its_steps(library):
    flow = workflow(
        {"a": "think(task) x3", "v": "vote(a)", "t": "tests(code)", "code": "code(task)", "j": "judge(v, t)"}
    )
    assert flow.parents("j") == ("v", "t")
    assert flow.parents("a") == (TASK,)
    assert flow.ancestors("j") == {"v", "t", "a", "code", TASK}
    assert flow.ancestors("a") == {TASK}
    assert flow.step("a") == Step("a", "think", (TASK,), samples=3)
    assert flow.llm_calls(library) == 3 + 1 + 1  # think x3, code, judge; vote and tests are none
    with pytest.raises(UnknownNameError, match="unknown step 'tt'"):
        flow.ancestors("tt")


def test_steps_are_kept_in_topological_order_and_else_as_declared():
    flow = workflow({"pick": "first(b, a)", "b": "think(task)", "a": "think(p)", "p": "plan(task)"}, answer="pick")
    assert [step.id for step in flow.steps] == ["b", "p", "a", "pick"]


def test_plain_values_and_back():
    flow = workflow({**REVIEWED, "a": "think(task) x2"})
    raw = flow.to_dict()
    assert raw["steps"]["b"] == {"op": "revise", "in": ["check"], "when": "check.issues"}
    assert raw["steps"]["a"] == {"op": "think", "in": ["task"], "samples": 2}
    assert Workflow.from_dict(raw) == flow


def test_the_fingerprint_ignores_names_and_the_order_of_declaration():
    other = workflow(
        {"z": "first(y, w)", "y": "revise(x) if x.issues", "x": "review(w)", "w": "think(task)"},
        answer="z",
        name="other",
        kinds=("math",),
    )
    assert workflow(REVIEWED).fingerprint == other.fingerprint
    assert len(other.fingerprint) == 12
    assert int(other.fingerprint, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"a": "think(task) x2"},  # samples
        {"a": "plan(task)"},  # operation
        {"pick": "first(a, b)"},  # order of inputs
        {"pick": "first(b)"},  # an input less
        {"b": "revise(check)"},  # no guard
        {"b": "revise(check) if not check.issues"},  # the opposite guard
        {"b": "revise(check) if check.other"},  # another field
        {"b": "revise(check) if a.issues"},  # another guard step
    ],
)
def test_the_fingerprint_sees_every_difference_of_structure(change):
    assert workflow({**REVIEWED, **change}).fingerprint != workflow(REVIEWED).fingerprint


def test_the_fingerprint_tells_one_shared_step_from_two_equal_ones():
    # Both unfold to the tree vote(think(plan(task)), think(plan(task))).
    shared = workflow({"p": "plan(task)", "a": "think(p)", "b": "think(p)", "v": "vote(a, b)"})
    apart = workflow({"p": "plan(task)", "q": "plan(task)", "a": "think(p)", "b": "think(q)", "v": "vote(a, b)"})
    assert shared.fingerprint != apart.fingerprint


def test_the_fingerprint_sees_the_order_of_inputs_that_were_met_before():
    steps = {"a": "think(task)", "b": "code(task)", "j": "judge(a, b)", "p": "first(a, b, j)"}
    assert workflow(steps).fingerprint != workflow({**steps, "j": "judge(b, a)"}).fingerprint


def test_the_fingerprint_sees_which_step_answers():
    steps = {"a": "think(task)", "v": "vote(a)"}
    assert workflow(steps, answer="v").fingerprint != workflow(steps, answer="a").fingerprint


@pytest.mark.parametrize(
    ("steps", "answer", "message"),
    [
        ({"a": "think(tsk)"}, "a", "step 'a': in: unknown step 'tsk' (did you mean 'task'?); allowed: a, task"),
        ({"a": "think(task)"}, "b", "workflow 'w': answer: unknown step 'b'; allowed: a"),
        ({"a": "think()"}, "a", "step 'a': in must name at least one step (or 'task'), not []"),
        ({"a": "think(task) x0"}, "a", "step 'a': samples must be a whole number of at least 1, not 0"),
        ({"a": "vote(b, b)", "b": "think(task)"}, "a", "step 'a': in names a step twice: b, b"),
        (
            {"task": "think(task)"},
            "task",
            "step id must be a name of letters, digits and underscores other than 'task'",
        ),
        ({"a b": "think(task)"}, "a b", "step id must be a name"),
        ({"a": "think(task) if issues"}, "a", "guard must be 'step.field' or 'not step.field', not 'issues'"),
        (
            {"a": "review(b)", "b": "revise(c)", "c": "review(a)"},
            "b",
            "workflow 'w': the steps form a cycle: a -> c -> b -> a",
        ),
        ({"a": "revise(a)"}, "a", "workflow 'w': the steps form a cycle: a -> a"),
        ({}, "a", "steps must be a mapping of step ids to steps, not {}"),
    ],
)
def test_what_is_no_dag_with_an_answer_is_refused(steps, answer, message):
    with pytest.raises(WorkflowError) as caught:
        workflow(steps, answer=answer)
    assert message in str(caught.value)


def test_an_id_names_one_step():
    step = Step("a", "think", (TASK,))
    with pytest.raises(WorkflowError, match="step id 'a' is given 2 times"):
        Workflow("w", (), (step, step), "a")
    with pytest.raises(WorkflowError, match="samples must be at least 1, not 0"):
        Step("a", "think", (TASK,), samples=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"step": {}},
            "workflow: unknown key 'step' (did you mean 'steps'?); allowed: answer, kinds, loops, name, steps",
        ),
        ({"kinds": "gsm8k"}, "kinds must be a list of names, for example [task], not 'gsm8k'"),
        ({"answer": 3}, "answer must be a text, not 3"),
        ({"loops": {"body": []}}, "loops must be a list of loops, not"),
        (
            {"steps": {"a": {"op": "think", "in": ["task"], "sample": 2}}},
            "step 'a': unknown key 'sample' (did you mean",
        ),
        ({"steps": {"a": {"op": "think"}}}, "step 'a': missing key 'in'; required: op, in"),
        ({"steps": {"a": "think"}}, "step 'a' must be a mapping with the keys op, in, samples, when, not 'think'"),
        ({"steps": {"a": {"op": "think", "in": "task"}}}, "step 'a': in must be a list of names"),
        ({"steps": {1: {"op": "think", "in": ["task"]}}}, "step id must be a text, not 1"),
    ],
)
def test_wrong_keys_and_values_are_refused(change, message):
    raw = {"name": "w", "kinds": ["gsm8k"], "steps": {"a": {"op": "think", "in": ["task"]}}, "answer": "a"}
    with pytest.raises(WorkflowError) as caught:
        Workflow.from_dict({**raw, **change})
    assert message in str(caught.value)
