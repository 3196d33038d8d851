"""AutoFlow: CoRE text is parsed, errors and rewards are fed back, the best on validation is kept."""

import json
import random

import pytest

from graphflow.engine.tools import ToolBox
from graphflow.methods.autoflow import INVALID, SHOWN, Attempt, AutoFlow
from graphflow.methods.base import MethodError
from graphflow.methods.core_language import read_flow, write_flow
from graphflow.methods.edits import apply_edit, draw_edit
from graphflow.methods.notation import operations_of
from graphflow.methods.trials import BudgetSpent, TrialConfig, Trials
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.workflow import WorkflowError
from tests.generator.small import COT, FIX, LIBRARY, RUN, VOTE
from tests.methods.searching import REPOSITORY, TASKS, World, worth

OPERATIONS = load_operations(CONF / "operations")
WORKFLOWS = load_workflows(CONF / "workflows", OPERATIONS)
RUN_FLOW = "a:::process:::program(task):::next::b\nb:::terminal:::run(a):::"
VOTE_FLOW = (
    "a:::process:::cot(task):::next::b\nb:::process:::program(task):::next::c\n"
    "c:::process:::run(b):::next::d\nd:::terminal:::vote(a, c):::"
)
FIX_FLOW = """\
Here is the flow:
program:::Process:::program(task):::next::run
run ::: decision ::: run(program) ::: failed::fix::not failed::pick
fix:::process:::fix(run):::next::pick
pick:::terminal:::vote(fix, program):::"""


def searched(says=None, config=None, journal=None, stop=0, score=worth, **more):
    method = AutoFlow(LIBRARY, REPOSITORY, scripted=says is None, **more)
    world = World(method, says, stop, score)
    trials = Trials(TASKS, world, config, journal, scripted=says is None)
    method.search(trials)
    return method, world, trials


def test_flows_are_workflows():
    assert read_flow(RUN_FLOW, LIBRARY).fingerprint == RUN.fingerprint
    assert read_flow(VOTE_FLOW, LIBRARY).fingerprint == VOTE.fingerprint
    fix = read_flow(FIX_FLOW, LIBRARY, ("humaneval",), "fixed")
    assert fix.fingerprint == FIX.fingerprint, "a decision is a guard on what only one branch leads to"
    assert (fix.name, fix.kinds) == ("fixed", ("humaneval",))
    other = FIX_FLOW.replace("failed::fix::not failed::pick", "failed::pick::not failed::fix")
    assert str(read_flow(other, LIBRARY).step("fix").when) == "not run.failed"


def test_a_condition_holds_until_its_branches_meet():
    flow = """\
code:::process:::code_generate(task):::next::tests
tests:::decision:::run_tests(code):::failed::reflect::not failed::pick
reflect:::decision:::reflect(tests):::issues::fix::not issues::again
fix:::process:::fix_program(reflect):::next::pick
again:::process:::fix_program(tests):::next::pick
pick:::terminal:::first_nonempty(fix, again, code):::"""
    with pytest.raises(WorkflowError, match="guard 'not reflect.issues' must read a step before it"):
        read_flow(flow, OPERATIONS)
    workflow = read_flow(flow.replace("fix_program(tests)", "fix_program(reflect)"), OPERATIONS)
    guards = {step.id: str(step.when or "") for step in workflow.steps}
    assert guards == {
        "code": "",
        "tests": "",
        "reflect": "tests.failed",
        "fix": "reflect.issues",
        "again": "not reflect.issues",
        "pick": "",
    }


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            ("program:::Process:::", "program::Process:::"),
            "must have the form name:::type:::instruction:::branches, got",
        ),
        (("Process", "proces"), "unknown type 'proces' .did you mean 'process'"),
        (("program(task)", "write a program"), "a call must have the form"),
        (("program(task)", "progam(task)"), "unknown operation 'progam' .did you mean 'program'"),
        (("program(task)", "program(task) when run.failed"), "a condition is written as a decision"),
        (("next::run", "next::rnu"), "unknown step 'rnu' .did you mean 'run'"),
        (("next::run", "run"), "branches must be pairs key::name, got 'run'"),
        (("next::run", "then::run"), r"the branches of a process here must be next; got \['then'\]"),
        (
            ("failed::fix::not failed::pick", "failed::fix"),
            "the branches of a decision here must be failed, not failed",
        ),
        (("run(program)", "cot(task)"), "the branches of a decision here must be possible: cot has no field"),
        (("fix:::process:::fix(run):::next::pick", "fix:::process:::fix(run):::next::run"), "'run' is none"),
        (("next::run", "next::pick"), "step 'run' is never reached from 'program', where the flow begins"),
        (("pick:::terminal", "pick:::process"), "the branches of a process here must be next; got"),
        (
            ("fix:::process:::fix(run):::next::pick", "fix:::terminal:::fix(run):::"),
            "exactly one terminal step, got fix",
        ),
        (("vote(fix, program)", "vote(fix)"), "is skipped if not run.failed"),
        (("vote(fix, program)", "fix(program)"), "'run', 'fix' never reach the answer 'pick'"),
        (("program:::Process", "run:::Process"), "step name 'run' is given 2 times"),
        (("", ""), "none"),
    ],
)
def test_what_is_no_flow_is_refused_by_name(change, error):
    text = FIX_FLOW.replace(*change) if change[0] else "just run the program"
    with pytest.raises(WorkflowError, match=error):
        read_flow(text, LIBRARY)


def test_what_is_written_is_read_back():
    for workflow in (COT, RUN, VOTE, FIX):
        assert read_flow(write_flow(workflow), LIBRARY).fingerprint == workflow.fingerprint
    for workflow in WORKFLOWS.values():
        if "loop" not in workflow.name:
            assert read_flow(write_flow(workflow), OPERATIONS).fingerprint == workflow.fingerprint
    ops, start, same = operations_of([*WORKFLOWS.values()], "gsm8k"), WORKFLOWS["direct"], 0
    for seed in range(60):
        made = apply_edit(start, draw_edit(start, OPERATIONS, ops, 8, random.Random(seed)), OPERATIONS, 8)
        same += read_flow(write_flow(made), OPERATIONS).fingerprint == made.fingerprint
    assert same >= 50


def test_rewards_and_errors_are_fed_back_and_the_best_is_kept():
    method, world, trials = searched(says=[VOTE_FLOW, "no flow", RUN_FLOW], epochs=3)
    assert method.build(TASKS[0]).fingerprint == VOTE.fingerprint
    assert [(own["reward"], bool(own["error"])) for own in method.history["words"]] == [
        (0.3, False),
        (0.8, False),
        (INVALID, True),
        (0.6, False),
    ]
    assert "Best flow:\ncot:::terminal:::cot(task):::\n(performance 0.3000" in world.read[0]
    assert f"Best flow:\n{VOTE_FLOW}\n(performance 0.8000" in world.read[1]
    error = "(epoch 2, performance -2.0000; it cannot be executed: a flow must have lines of the form"
    assert f"no flow\n{error}" in world.read[2] and world.read[2].count(VOTE_FLOW) == 2, "as the best and as one of all"
    assert trials.spent.executions == 30, "what is not valid is not executed"


def test_ten_epochs_of_the_script():
    method, world, _ = searched()
    text = world.read[-1]
    assert "Ann has 0 apples" in text and "run(code) -> result; sets failed" in text
    flows = [attempt["flow"] for attempt in method.history["words"]]
    assert max(text.count("(epoch ") for text in world.read) == SHOWN, "the last ones, besides the best"
    valid = [not attempt["error"] for attempt in method.history["words"]]
    assert not any(flow in flows[max(0, n - SHOWN) : n] for n, flow in enumerate(flows) if valid[n]), "none as before"
    errors = [attempt["error"] for attempt in method.history["words"]]
    for epoch, text in enumerate(world.read):  # the page behind so many flows
        assert text.count("cannot be executed") == int(bool(errors[epoch])), "of what is not valid the last alone"
    assert any(errors[:-1])
    rewards = [attempt["reward"] for attempt in method.history["words"]]
    assert len(rewards) == 11 and len(world.read) == 10 and method.scripted == ("autoflow_flow",)
    assert max(rewards) > 0.3 and method.build(TASKS[0]).fingerprint in world.served
    assert worth(method.build(TASKS[0])) / 10 == max(rewards)


def test_the_script_writes_flows_and_sometimes_mistakes():
    method = AutoFlow(LIBRARY, REPOSITORY, scripted=True)
    _, world, _ = searched(says=[RUN_FLOW], epochs=1)
    script, valid, flows = method.tools["autoflow_flow"], 0, set()
    for number in range(160):
        task = TASKS[0].__class__("p", "", "", f"{world.read[0]}\n(again {number})")
        text = script(task, [], ToolBox()).text
        assert text == script(task, [], ToolBox()).text
        flows.add(text)
        try:
            read_flow(text, LIBRARY)
            valid += 1
        except WorkflowError:
            pass
    assert 120 <= valid <= 155 and len(flows) > 20, "about one in eight is not valid"


def test_too_many_calls_are_not_valid():
    flow = "a:::process:::cot(task) x9:::next::b\nb:::terminal:::vote(a):::"
    method, _, _ = searched(says=[flow], epochs=1)
    assert method.history["words"][1]["error"] == "a flow may make 8 calls at most, this makes 9"


def test_a_stopped_search_goes_on_as_if_it_had_not_been(tmp_path):
    whole, world, spent = searched(journal=tmp_path / "whole.jsonl")
    with pytest.raises(KeyboardInterrupt):
        searched(journal=tmp_path / "stopped.jsonl", stop=15)
    again, rest, trials = searched(journal=tmp_path / "stopped.jsonl")
    assert again.history == whole.history and trials.spent == spent.spent
    assert len(rest.served) == len(world.served) - 15


def test_a_spent_budget_ends_the_search_with_the_best_so_far():
    method, _, trials = searched(says=[RUN_FLOW, VOTE_FLOW, VOTE_FLOW], config=TrialConfig(llm_calls=25))
    assert method.build(TASKS[0]).fingerprint == RUN.fingerprint and trials.spent.llm_calls <= 25
    with pytest.raises(BudgetSpent):
        searched(config=TrialConfig(llm_calls=5))


def test_what_was_found_is_kept_in_files(tmp_path):
    method, _, _ = searched(says=[RUN_FLOW], epochs=1)
    method.save(tmp_path)
    assert json.loads((tmp_path / "words.json").read_text())[1]["flow"] == RUN_FLOW
    loaded = AutoFlow(LIBRARY, REPOSITORY)
    with pytest.raises(MethodError, match="must be fitted"):
        loaded.build(TASKS[0])
    loaded.load(tmp_path)
    assert loaded.build(TASKS[0]) == method.build(TASKS[0])


def test_a_page_without_room_leaves_out_the_oldest_flows():
    method = AutoFlow(LIBRARY, REPOSITORY)
    attempts = [Attempt(0, "first", 0.1), Attempt(1, "second", 0.9), Attempt(2, "third", INVALID, "no end")]
    whole = method.page(TASKS, attempts, attempts)
    trials = Trials(TASKS, World(method), room=lambda operation, text: len(text) < len(whole))
    shown = method.shown(trials, attempts)
    assert "(epoch 0" in whole and "(epoch 0" not in shown and "(epoch 1" in shown and "no end" in shown
    assert method.shown(Trials(TASKS, World(method)), attempts) == whole
    none = Trials(TASKS, World(method), room=lambda operation, text: False)
    assert "second\n(performance 0.9000" in method.shown(none, attempts), "the best is always there"
