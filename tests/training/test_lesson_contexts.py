"""A model reads in a lesson what it reads when the method serves: message by message, as a server sees them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from graphflow.backbone.server import ChatServer
from graphflow.benchmarks.mini.problem import Problem
from graphflow.benchmarks.mini.traces import Branch, Role, make_problems
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepOutput
from graphflow.engine.remote.dialogue import Turn, messages
from graphflow.engine.remote.executor import RemoteExecutor
from graphflow.engine.sandbox import Sandbox, SandboxConfig
from graphflow.engine.tools import ToolBox
from graphflow.generator.features import HashingEncoder
from graphflow.kv import KVConfig, StateMode
from graphflow.methods import Method, llmcompiler
from graphflow.methods.agentkb import LOOKUP, AgentKB, Entry
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.methods.taskweaver import TaskWeaver
from graphflow.training.plans import compiled, looked_up, plan_of, task_of, woven
from tests.chat import Chat
from tests.methods.served import REPOSITORY, WORKFLOWS, isolated

Expected = dict[str, str]


def turn_of(turn, prompts: dict[str, str]) -> Turn:
    """A turn of a trace as a server sees it."""
    match turn.role:
        case Role.OPERATION:
            return Turn("user", prompts[turn.text])
        case Role.OUTPUT | Role.DRAFT:
            return Turn("assistant", turn.text)
        case Role.TOOL:
            return Turn("user", f"Result:\n{turn.text}")
        case _:
            return Turn("user", turn.text)


def key(turns: list[Turn]) -> str:
    return json.dumps(messages(turns))


def expected(root: str, branches: list[Branch], prompts: dict[str, str]) -> Expected:
    """What is written after which messages."""
    found = {}
    for branch in branches:
        turns = [Turn("user", root)]
        for before, turn in zip([None, *branch], branch, strict=False):
            if before is not None and before.role is Role.OPERATION:
                found[key(turns)] = turn.text
            turns.append(turn_of(turn, prompts))
    return found


def served(method: Method, problem: Problem, kind: str, branches: list[Branch], known: dict[str, str]) -> set[str]:
    """The contexts of a lesson that came up when the method served its task; ``known`` is what other calls write."""
    task = replace(task_of(problem, kind), entry_point=problem.entry_point, visible_tests=problem.visible_tests)
    library = method.asking.library(REPOSITORY)
    wanted = expected(problem.text, branches, {op.name: op.prompt for op in library.values()})
    seen = set()

    def say(body: dict) -> str:
        asked = json.dumps(body["messages"])
        if asked in wanted:
            seen.add(asked)
            return wanted[asked]
        last = body["messages"][-1]["content"]
        return next((text for name, text in known.items() if last.endswith(library[name].prompt)), "unexpected")

    with Chat(say) as chat:
        toolbox = ToolBox(Sandbox(SandboxConfig(workers=1)), tools=method.tools)
        server, state = ChatServer(chat.config()), KVConfig(StateMode.STATEFUL)
        executor = RemoteExecutor(server, library, state, EngineConfig(concurrency=1), toolbox)
        (episode,) = executor.run([method.asking.ask(task)], method.build_many, method.grow)
    assert not episode.error
    return {asked for asked in wanted if asked not in seen}


def drawn(kind: str, make: Callable[[Problem], list[Branch]], wanted: Callable[[Problem, list[Branch]], bool]):
    """The first lesson of a kind that is as wanted."""
    rng = random.Random(f"contexts/{kind}")
    while True:
        problem = rng.choice(make_problems(kind, rng)[1])
        if wanted(problem, branches := make(problem)):
            return problem, branches


def said(branches: list[Branch]) -> list[str]:
    return [turn.text for branch in branches for turn in branch if turn.role in (Role.TOOL, Role.GIVEN, Role.DRAFT)]


@isolated
@pytest.mark.parametrize("kind", ["gsm8k", "math", "hotpotqa compare", "hotpotqa bridge", "humaneval", "mbpp"])
def test_llmcompiler(kind: str) -> None:
    """A lesson without errors, in which all that the plan's lines gave is right."""
    kind, _, form = kind.partition(" ")
    rng, method = random.Random(1), LLMCompiler(REPOSITORY, WORKFLOWS)

    def fits(problem: Problem, branches: list[Branch]) -> bool:
        known = {f"A: {plan_of(problem, kind)}", f"B: {problem.answer}"}
        known |= {f"{letter}: {problem.solution()}" for letter in "BC"}
        known |= {text for hop in problem.hops for text in (*hop, f"A: {hop[1]}", f"B: {hop[1]}")}
        finished = any(turn.text == "llmcompiler_finish" for branch in branches for turn in branch)
        return finished and set(said(branches)) <= known and problem.structure.startswith(form)

    problem, branches = drawn(kind, lambda problem: compiled(problem, kind, method, rng), fits)
    known = {"program": problem.code(), "generate_cot": problem.solution(), "code_generate": problem.answer}
    assert not served(method, problem, kind, branches, known)


@isolated
@pytest.mark.parametrize("kind", ["gsm8k", "math", "hotpotqa", "mbpp"])
def test_an_invalid_plan_is_asked_for_again(kind: str) -> None:
    rng, method = random.Random(5), LLMCompiler(REPOSITORY, WORKFLOWS)

    def fits(problem: Problem, branches: list[Branch]) -> bool:
        return sum(turn.text == llmcompiler.PLAN for turn in branches[0]) == 2

    problem, branches = drawn(kind, lambda problem: compiled(problem, kind, method, rng), fits)
    again = place_of(branches[0], llmcompiler.PLAN) + 1
    assert not served(method, problem, kind, [branches[0][: again + 1]], {})


@isolated
def test_a_program_without_a_value_is_planned_for_anew() -> None:
    """The program returns nothing, as in the lesson."""
    rng, method = random.Random(6), LLMCompiler(REPOSITORY, WORKFLOWS, max_replans=2)

    def fits(problem: Problem, branches: list[Branch]) -> bool:
        plans = [turn.text == llmcompiler.PLAN for branch in branches for turn in branch]
        return any("<replan>" in turn.text for turn in branches[-1]) and sum(plans) == 2

    problem, branches = drawn("gsm8k", lambda problem: compiled(problem, "gsm8k", method, rng), fits)
    assert not served(method, problem, "gsm8k", branches, {"program": "def solve():\n    pass"})


@isolated
def test_a_function_is_tried_and_fixed_before_it_is_joined() -> None:
    rng, method = random.Random(7), LLMCompiler(REPOSITORY, WORKFLOWS)

    def fits(problem: Problem, branches: list[Branch]) -> bool:
        return len(branches) == 3 or any(
            "fix_program" in turn.text for turn in branches[1] if turn.role is Role.OPERATION
        )

    problem, branches = drawn("mbpp", lambda problem: compiled(problem, "mbpp", method, rng), fits)
    assert any(turn.text.startswith("failed: ") for branch in branches for turn in branch)
    assert not served(method, problem, "mbpp", branches, {})


def place_of(branch: Branch, text: str) -> int:
    """Where a turn stands last."""
    return max(place for place, turn in enumerate(branch) if turn.text == text)


@isolated
@pytest.mark.parametrize("kind", ["gsm8k", "math", "hotpotqa", "humaneval"])
def test_taskweaver(kind: str) -> None:
    """A cell for each name where the kind has several; their values are the sandbox's."""
    rng = random.Random(2)

    def fits(problem: Problem, branches: list[Branch]) -> bool:
        cells = sum(turn.text == "taskweaver_cell" for turn in branches[0])
        drafts = sum(turn.role is Role.DRAFT for turn in branches[0])
        whole = cells == max(1, len(problem.hops))
        ends = branches[0][-2].text == ("taskweaver_conclude" if cells == 3 else "taskweaver_observe")
        return whole and ends and not drafts

    problem, branches = drawn(kind, lambda problem: woven(problem, kind, rng), fits)
    assert not served(TaskWeaver(REPOSITORY, WORKFLOWS), problem, kind, branches, {})


@isolated
def test_a_cell_that_failed_is_repaired() -> None:
    """The draft is the model's own: it is written here where its context comes up."""
    rng = random.Random(3)
    problem, branches = drawn(
        "gsm8k",
        lambda problem: woven(problem, "gsm8k", rng),
        lambda problem, branches: any(turn.role is Role.DRAFT for turn in branches[0]),
    )
    assert not served(TaskWeaver(REPOSITORY, WORKFLOWS), problem, "gsm8k", branches, {})


def test_agentkb() -> None:
    """The look-up gives what the lesson says it gave, and the workflow behind the suggestion is that of its work."""
    rng, cot = random.Random(4), WORKFLOWS["cot"]
    problem, branches = drawn(
        "gsm8k",
        lambda problem: looked_up(problem, "gsm8k", ["cot", "direct"], rng),
        lambda problem, branches: branches[1][1].text == "generate_cot" and len(branches[1]) == 3,
    )
    method = AgentKB(REPOSITORY, WORKFLOWS, HashingEncoder(64))
    method._know([Entry("some apples", "b", "gsm8k", cot.fingerprint, True, "")], {cot.fingerprint: cot})
    found = branches[0][2].text
    method.tools = {**method.tools, LOOKUP.name: lambda task, inputs, box: StepOutput(found)}
    assert not served(method, problem, "gsm8k", branches, {})
