"""Lessons are what methods read: plans compile, cells give what they say, edits and flows are valid, contexts agree."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from graphflow.benchmarks.mini.traces import SUITE, Branch, Role, make_problems
from graphflow.engine.episode import StepOutput
from graphflow.engine.tools import ToolBox
from graphflow.methods import agentkb, llmcompiler, taskweaver
from graphflow.methods.aflow import EDIT
from graphflow.methods.autoflow import FLOW
from graphflow.methods.edits import apply_edit
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.methods.notation import read_workflow, section
from graphflow.methods.planning import block, numbered
from graphflow.methods.search_tree import TRIED
from graphflow.training.lessons import LESSONS, Lessons, asked_operations
from graphflow.training.plans import compiled, looked_up, plan_of, suggestion, task_of, woven
from tests.methods.served import KINDS, REPOSITORY, WORKFLOWS

DRAWS = 40


def problems(kind: str):
    rng = random.Random(kind)
    return [rng.choice(make_problems(kind, rng)[1]) for _ in range(DRAWS)]


def outputs(branch: Branch, *operations: str) -> list[str]:
    """What is learnt of some operations."""
    named = zip(branch, branch[1:], strict=False)
    return [
        after.text
        for before, after in named
        if before.role is Role.OPERATION and before.text in operations and after.role is Role.OUTPUT
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_plans_compile_and_joins_give_the_answer(kind: str) -> None:
    method, rng = LLMCompiler(REPOSITORY, WORKFLOWS), random.Random(1)
    for problem in problems(kind):
        task = task_of(problem, kind)
        grown = method.compile(method.build(task), plan_of(problem, kind))
        assert len(grown.steps) > 2
        branches = compiled(problem, kind, method, rng)
        plans = [text for branch in branches for text in outputs(branch, llmcompiler.PLAN)]
        joined = [text for b in branches for text in outputs(b, llmcompiler.FINISH.name, llmcompiler.JOIN.name)]
        assert plan_of(problem, kind) in plans and len(joined) == 1
        for plan in plans:
            said = method.problem(task, [StepOutput(plan)], ToolBox())
            assert said.text == llmcompiler.VALID
        decided = block(joined[0], "answer")
        assert decided is None or problem.answer in decided
        assert decided is not None or block(joined[0], "replan")


def test_invalid_plans_come_with_what_is_wrong_with_them() -> None:
    method, rng = LLMCompiler(REPOSITORY, WORKFLOWS), random.Random(2)
    errors, asked = [], 0
    for kind in KINDS:
        for problem in problems(kind):
            first = compiled(problem, kind, method, rng)[0]
            asked += 1
            if any(turn.role is Role.DRAFT and before.text == llmcompiler.PLAN for before, turn in pairwise(first)):
                wrong, said = first[1].text, first[2].text
                assert method.problem(task_of(problem, kind), [StepOutput(wrong)], ToolBox()).text == said
                errors.append(said.removeprefix("error: "))
    assert 0.06 * asked < len(errors) < 0.2 * asked, "one plan in eight"
    assert len({re.sub(r"[\d'\"].*", "", said) for said in errors}) >= 3, "mistakes of several kinds"


@pytest.mark.parametrize("kind", ["gsm8k", "math", "hotpotqa"])
def test_cells_give_what_the_trace_says(kind: str) -> None:
    """The cells before a cell run with it, as they do in the method."""
    rng, cells = random.Random(3), 0
    for problem in problems(kind):
        (branch,) = woven(problem, kind, rng)
        earlier = ""
        for place, turn in enumerate(branch):
            if turn.role is not Role.TOOL:
                continue
            scope: dict = {"passages": list(problem.passages)}
            source = branch[place - 1].text
            try:
                exec(f"{earlier}\n{source}", scope)
                value = str(scope["solve"]())
                earlier, cells = f"{earlier}\n{source}", cells + 1
            except NameError as error:
                value = f"error: NameError: {error}"
            assert turn.text == value
        last = outputs(branch, taskweaver.OBSERVE.name, taskweaver.CONCLUDE.name)[-1]
        assert problem.answer in (block(last, "answer") or "")
        plan = outputs(branch, taskweaver.PLAN.name)[0]
        assert 1 <= len(numbered(plan)) <= taskweaver.CELLS
    assert cells >= DRAWS


def test_code_is_repaired_until_the_examples_pass() -> None:
    rng, failures = random.Random(4), 0
    for kind in ("humaneval", "mbpp"):
        for problem in problems(kind):
            (branch,) = woven(problem, kind, rng)
            results = [turn.text for turn in branch if turn.role is Role.TOOL]
            failures += len(results) - 1
            assert results[-1] == ("passed" if problem.visible_tests else "no tests")
            assert all(text.startswith("failed: ") for text in results[:-1])
            before = branch[max(place for place, turn in enumerate(branch) if turn.role is Role.TOOL) - 1].text
            assert before.endswith(problem.answer)
    assert failures


@pytest.mark.parametrize("kind", KINDS)
def test_suggestions_name_what_solved_the_nearest_task(kind: str) -> None:
    rng = random.Random(5)
    for problem in problems(kind)[:10]:
        told, work = looked_up(problem, kind, ["alpha", "beta", "gamma"], rng)
        assert outputs(told, agentkb.REASON.name) == [agentkb.REASON.script(task_of(problem, kind), [], ToolBox()).text]
        advice = outputs(told, agentkb.REFINE.name)[0]
        assert work[0].text == advice and work[0].role is Role.TOOL and work[1].role is not Role.TASK
        solved = [line for line in told[2].text.splitlines() if " solved it" in line and "nothing" not in line]
        assert not solved or f"Do as {solved[0].split(': ')[1].split(',')[0].split(' ')[0]} does." in advice
        assert solved or advice.startswith("Nothing")
    failed = agentkb.Entry("", "", "", "", False, agentkb.experience_of([], ["a"]))
    known = agentkb.Entry("", "", "", "", True, agentkb.experience_of(["b", "c"], ["d", "e"]))
    assert suggestion([failed, known]) == "Do as b does. Do not begin with d."


@pytest.mark.parametrize("kind", KINDS)
def test_edits_are_valid_and_were_not_tried(kind: str) -> None:
    lessons, rng = Lessons(REPOSITORY, WORKFLOWS), random.Random(6)
    learnt, kinds = 0, set()
    for _ in range(16):
        trace = lessons.searches.edits(kind, rng)
        lines = trace.root.split("\n")
        workflow = read_workflow(section(lines, "Workflow:"))
        experience = section(lines, "Experience:")
        tried = [line.rpartition("] ")[2] for line in experience]
        refused = {line.split(": ")[1].split(" ")[0] for line in experience if line.startswith(f"{TRIED}refused")}
        applied = [edit for edit, line in zip(tried, experience, strict=True) if "better, " in line]
        known = {apply_edit(workflow, edit, REPOSITORY, 8).fingerprint for edit in applied}
        kinds |= refused
        for text in (text for branch in trace.branches for text in outputs(branch, EDIT.name)):
            assert text.replace("\n", "; ") not in tried
            assert apply_edit(workflow, text, REPOSITORY, 8).fingerprint not in known
            learnt += 1
    assert learnt >= 48
    assert {"this", "workflow"} <= kinds, "edits that give what is known, and edits that are not valid"


@pytest.mark.parametrize("kind", KINDS)
def test_flows_are_valid_and_new(kind: str) -> None:
    lessons, rng = Lessons(REPOSITORY, WORKFLOWS), random.Random(7)
    learnt = 0
    for _ in range(8):
        trace = lessons.searches.flows(kind, rng)
        for text in (text for branch in trace.branches for text in outputs(branch, FLOW.name)):
            lessons.searches.autoflow.read(text)
            assert text not in trace.root
            learnt += 1
    assert learnt >= 24


def test_every_operation_that_a_method_has_written_is_taught() -> None:
    lessons, rng = Lessons(REPOSITORY, WORKFLOWS), random.Random(8)
    seen = set()
    for _ in range(150):
        for branch in lessons.trace(rng, SUITE).branches:
            seen |= {turn.text for turn in branch if turn.role is Role.OPERATION}
    assert set(lessons.prompts) <= seen and seen <= set(lessons.prompts) | set(REPOSITORY)
    assert len(LESSONS) == 5 and len(asked_operations(REPOSITORY)) == len(lessons.prompts) == 11
