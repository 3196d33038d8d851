"""The notation and the edits: read back, refused by the schema, drawn at random."""

import random

import pytest

from graphflow.methods.edits import apply_edit, draw_edit, written
from graphflow.methods.notation import operations_of, read_workflow, write_operations, write_workflow
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.workflow import WorkflowError, validate
from tests.generator.small import COT, FIX, LIBRARY, RUN, VOTE

OPERATIONS = load_operations(CONF / "operations")
WORKFLOWS = load_workflows(CONF / "workflows", OPERATIONS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_is_written_is_read_back(name):
    workflow = WORKFLOWS[name]
    assert read_workflow(write_workflow(workflow).split("\n")).fingerprint == workflow.fingerprint


def test_a_workflow_and_operations_as_models_read_them():
    assert write_workflow(FIX).split("\n") == [
        "program: program(task)",
        "run: run(program)",
        "fix: fix(run) when run.failed",
        "vote: vote(fix, program)",
        "answer vote",
    ]
    assert write_operations(LIBRARY, ["fix", "run", "vote"]).split("\n") == [
        "fix(result) -> code; after code: fix does its work",
        "run(code) -> result; sets failed",
        "vote(answer | result | code, ...) -> answer",
    ]
    assert operations_of([COT, RUN, FIX], "humaneval") == ["fix", "program", "run", "vote"]


def test_an_edit_makes_the_workflow_that_it_says():
    edit = "```\nadd program: program(task)\nadd run: run(program); add vote: vote(cot, run)\nanswer vote\n```"
    assert apply_edit(COT, edit, LIBRARY, 8).fingerprint == VOTE.fingerprint
    assert written(edit) == "add program: program(task); add run: run(program); add vote: vote(cot, run); answer vote"
    back = apply_edit(VOTE, "answer run", LIBRARY, 8, "back")
    assert back.fingerprint == RUN.fingerprint and back.name == "back" and back.kinds == VOTE.kinds
    assert [step.id for step in back.steps] == ["program", "run"], "what nobody reads goes"
    assert apply_edit(RUN, "add cot: cot(task); answer cot", LIBRARY, 8).fingerprint == COT.fingerprint
    sampled = apply_edit(COT, "set cot: cot(task) x3; add v: vote(cot); answer v", LIBRARY, 8)
    assert [step.samples for step in sampled.steps] == [3, 1]


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        ("", "must have 1 to 8 parts, got 0"),
        ("I would add a vote", "must begin with add, set, answer and a step's id, got 'I would add a vote'"),
        ("add vote", "add must have the form 'add ID: OP"),
        ("answer cot: cot(task)", "answer must have the form 'answer ID'"),
        ("add run: run cot", "a call must have the form"),
        ("add cot: cot(task)", "there is a step 'cot'"),
        ("set kot: cot(task)", "unknown step 'kot' .did you mean 'cot'"),
        ("add v: vot(cot); answer v", "unknown operation 'vot' .did you mean 'vote'"),
        ("add r: run(cot); answer r", "input 'cot' has the type 'answer', but 'run' accepts code"),
        ("add p: program(task)", "changes nothing"),
        ("answer vote", "unknown step 'vote'"),
        ("set cot: cot(task) x9; add v: vote(cot); answer v", "may make 8 calls at most, this makes 9"),
        ("set cot: cot(task)", "changes nothing"),
        ("add v: vote(cot) when cot.wrong; answer v", "unknown field of 'cot' 'wrong'"),
    ],
)
def test_what_is_not_valid_is_refused_by_name(edit, error):
    with pytest.raises(WorkflowError, match=error):
        apply_edit(COT, edit, LIBRARY, 8)


@pytest.mark.parametrize("kind", ["gsm8k", "hotpotqa", "humaneval"])
def test_drawn_edits_are_valid_new_and_find_what_people_wrote(kind):
    start = WORKFLOWS["code" if kind == "humaneval" else "direct"]
    ops = operations_of([*WORKFLOWS.values()], kind)
    tried, found = set(), set()
    for seed in range(25):
        edit = draw_edit(start, OPERATIONS, ops, 8, random.Random(seed), frozenset(tried))
        assert edit and edit not in tried
        assert edit == draw_edit(start, OPERATIONS, ops, 8, random.Random(seed), frozenset(tried))
        tried.add(edit)
        made = apply_edit(start, edit, OPERATIONS, 8)
        validate(made, OPERATIONS)
        assert {step.op for step in made.steps} <= set(ops) and made.llm_calls(OPERATIONS) <= 8
        found.add(made.fingerprint)
    people = {workflow.fingerprint for workflow in WORKFLOWS.values() if kind in workflow.kinds} - {start.fingerprint}
    assert len(people & found) >= 2


def test_nothing_is_drawn_once_everything_was_tried():
    ops = ["cot", "program"]
    tried = set()
    while edit := draw_edit(COT, LIBRARY, ops, 1, random.Random(len(tried)), frozenset(tried)):
        tried.add(edit)
    assert "set cot: program(task)" in tried and len(tried) < 10
