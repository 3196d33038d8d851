"""LLMCompiler: a plan's lines become steps that run in parallel, invalid plans are survived, a join decides."""

from __future__ import annotations

import pytest

from graphflow.methods import MethodConfig, MethodError, build_method
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.methods.planning import PlanError
from graphflow.wgraph.workflow import Step, Workflow, validate
from tests.methods.served import KINDS, REPOSITORY, WORKFLOWS, Said, ran, serve, task

TWO_WAYS = "1. program()\n2. run_python($1)\n3. generate_cot()\n4. join()"
FINISHED = "They agree.\n<answer>f(7) = (7)</answer>\nDone."


def compiled(plan: str, scripted: bool = False, asked: str = "gsm8k") -> Workflow:
    method = LLMCompiler(REPOSITORY, WORKFLOWS, scripted)
    return method.compile(method.build(task(asked)), plan)


def steps(workflow: Workflow) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {step.id: (step.op, step.inputs) for step in workflow.steps if not step.id.startswith("plan")}


def test_dependencies_are_the_references() -> None:
    assert steps(compiled(TWO_WAYS)) == {
        "step_1_1": ("program", ("task",)),
        "step_1_2": ("run_python", ("step_1_1",)),
        "step_1_3": ("generate_cot", ("task",)),
        "join_1": ("llmcompiler_finish", ("plan_1", "step_1_1", "step_1_2", "step_1_3")),
    }
    assert steps(compiled(TWO_WAYS, scripted=True))["join_1"] == ("ensemble_select", ("step_1_2", "step_1_3"))
    assert steps(compiled("1. generate_cot()", scripted=True))["join_1"] == ("first_nonempty", ("step_1_1",))


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ("1. progam()", "line 1: unknown operation 'progam' \\(did you mean 'program'\\?\\)"),
        ("1. llmcompiler_plan()", "line 1: unknown operation 'llmcompiler_plan'"),
        ("1. run_python()", "input 'task' has the type 'task', but 'run_python' accepts code"),
        ("1. generate_cot()\n2. program()\n3. run_python($1, $2)", "has the type 'answer', but 'run_python' accepts"),
        ("1. program()\n2. program()\n3. run_python($1, $2)", "'run_python' takes one input, not 2"),
        ("1. retrieve()", "has the type 'task', but 'retrieve' accepts query"),
    ],
)
def test_plans_are_checked_as_workflows_are(plan: str, error: str) -> None:
    for scripted in (False, True):
        with pytest.raises(PlanError, match=error):
            compiled(plan, scripted)


@pytest.mark.parametrize("kind", KINDS)
def test_the_scripted_plans_are_valid(kind: str) -> None:
    method = LLMCompiler(REPOSITORY, WORKFLOWS, scripted=True)
    plan = method.tools["llmcompiler_plan"](task(kind), [], None)  # type: ignore[arg-type]
    workflow = method.compile(method.build(task(kind)), plan.text)
    assert len(workflow.steps) > 2 and method.scripted == ("llmcompiler_plan",)


@pytest.mark.parametrize("places", [8, 1])
def test_independent_steps_run_at_the_same_time(places: int) -> None:
    """Two chains, each step waiting for its own input alone; with one place in the batch they cannot overlap."""
    asked = task("hotpotqa", passages=("one two", "three"))
    episode = serve(LLMCompiler(REPOSITORY, WORKFLOWS, scripted=True), asked, max_batch=places, max_tokens_scale=0.1)
    record = {found.step: found for found in episode.steps}
    assert not episode.error
    looked, facts = record["step_1_1"], record["step_1_6"]
    assert looked.op == "lookup_query" and facts.op == "extract_facts"
    together = max(looked.start_s, facts.start_s) < min(looked.end_s, facts.end_s)
    assert together == (places > 1)
    for before, after in ((1, 2), (2, 3), (3, 4), (4, 5), (6, 7)):
        assert record[f"step_1_{before}"].end_s <= record[f"step_1_{after}"].start_s
    assert record["join_1"].start_s >= max(record[f"step_1_{k}"].end_s for k in (5, 7))


def test_the_decision_is_what_stands_in_its_block() -> None:
    method = LLMCompiler(REPOSITORY, WORKFLOWS)
    plan = "1. answer_generate()\n2. generate_cot()"
    said = Said({
        "llmcompiler_plan": [plan], "answer_generate": ["7"], "generate_cot": ["6 + 1 = 7"],
        "llmcompiler_finish": [FINISHED],
    })  # fmt: skip
    episode = serve(method, task("math"), said)
    assert method.asking.read(task("math"), episode.answer) == "f(7) = (7)"
    assert method.asking.read(task("math"), "no block at all") == "no block at all"
    assert said.read["llmcompiler_finish"] == [[plan, "7", "6 + 1 = 7"]]
    assert said.read["answer_generate"] == said.read["generate_cot"] == [["solve one two"]]


def test_words_reach_what_takes_a_query() -> None:
    """Searches for constants, side by side, are the plans of the original on HotpotQA."""
    asked = task("hotpotqa", passages=("Ann lives in Oslo.", "Bob lives in Bergen.", "Cats sleep."))
    plan = "1. retrieve(\"Bob\")\n2. retrieve('Ann')\n3. join()"
    said = Said({"llmcompiler_plan": [plan], "llmcompiler_finish": [FINISHED]})
    episode = serve(LLMCompiler(REPOSITORY, WORKFLOWS), asked, said)
    assert not episode.error
    assert said.read["llmcompiler_finish"] == [[plan, "Bob lives in Bergen.", "Ann lives in Oslo."]]


def test_an_invalid_plan_is_asked_for_again_with_the_error() -> None:
    plans = ["1. run_python($2)", "1. answer_generate()"]
    said = Said({"llmcompiler_plan": plans, "answer_generate": ["7"], "llmcompiler_finish": [FINISHED]})
    episode = serve(LLMCompiler(REPOSITORY, WORKFLOWS), task("gsm8k"), said)
    assert ran(episode) == ["plan_1", "problem_1", "plan_1_again", "step_1_1", "join_1"]
    assert said.read["llmcompiler_plan"][1] == ["error: line 1: $2 does not stand before it (there is none)"]
    assert said.read["llmcompiler_finish"] == [["1. answer_generate()", "7"]]
    assert episode.answer == FINISHED


@pytest.mark.parametrize(
    ("kind", "op"), [("gsm8k", "generate_cot"), ("hotpotqa", "answer_generate"), ("mbpp", "code_generate")]
)
def test_two_invalid_plans_end_in_one_generating_step(kind: str, op: str) -> None:
    said = Said({"llmcompiler_plan": ["?", "1. program($9)"], op: ["def f(): pass"], "llmcompiler_finish": [FINISHED]})
    episode = serve(LLMCompiler(REPOSITORY, WORKFLOWS), task(kind), said)
    assert ran(episode) == ["plan_1", "problem_1", "plan_1_again", "step_1_1", "join_1"]
    assert [record.op for record in episode.steps][-2] == op and not episode.error


REPLAN = "<replan>the second name</replan>"


@pytest.mark.parametrize(
    ("plans", "decisions", "joins"),
    [
        (1, {"llmcompiler_finish": [REPLAN]}, ["join_1"]),  # the only plan: what it wants does not count
        (2, {"llmcompiler_join": [FINISHED]}, ["join_1"]),
        (2, {"llmcompiler_join": [REPLAN], "llmcompiler_finish": [REPLAN]}, ["join_1", "join_2"]),
        (2, {"llmcompiler_join": [f"{REPLAN} {FINISHED}"]}, ["join_1"]),
    ],
)
def test_a_join_may_ask_for_another_plan(plans: int, decisions: dict[str, list[str]], joins: list[str]) -> None:
    method = LLMCompiler(REPOSITORY, WORKFLOWS, max_replans=plans)
    said = Said({"llmcompiler_plan": ["1. answer_generate()"], "answer_generate": ["7"], **decisions})
    episode = serve(method, task("math"), said)
    assert [step for step in ran(episode) if step.startswith("join")] == joins
    assert not episode.error
    if len(joins) == 2:
        assert said.read["llmcompiler_plan"][1] == [REPLAN]


def test_settings_are_checked_and_scripts_go_by_the_turn_format() -> None:
    with pytest.raises(MethodError, match="method.max_replans must be 1 or 2, got 3"):
        MethodConfig("llmcompiler", max_replans=3)
    for turns, scripted in (("mini", ("llmcompiler_plan",)), ("qwen", ())):
        method = build_method(MethodConfig("llmcompiler"), REPOSITORY, WORKFLOWS, turns=turns)
        assert method.scripted == scripted


@pytest.mark.parametrize("kind", ["gsm8k", "hotpotqa", "mbpp"])
def test_garbage_ends_in_the_fallback(kind: str) -> None:
    """A model that never saw a plan: its operations are valid, its plans are not, and the task is answered."""
    method = LLMCompiler(REPOSITORY, WORKFLOWS)
    library = method.asking.library(REPOSITORY)
    joined = (Step("reply", "answer_generate", ("task",)), Step("join", "llmcompiler_join", ("reply",)))
    validate(Workflow("joined", (), joined, "join"), library)
    assert "run_python(code) -> result" in library["llmcompiler_plan"].prompt
    episode = serve(method, task(kind))
    assert ran(episode) == ["plan_1", "problem_1", "plan_1_again", "step_1_1", "join_1"]
    assert not episode.error and episode.llm_calls == 4
