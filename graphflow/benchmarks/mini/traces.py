"""Operation traces of training problems: what a mini backbone learns from.

A trace is a tree like a context in the engine: the task, and branches that each hold operation prompts, outputs and
tool results. Operations that judge or repair see right and wrong inputs. The layout is the engine's, token for token.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from graphflow.benchmarks.mini import hotpotqa
from graphflow.benchmarks.mini.problem import Problem, draw, evaluate, split_of
from graphflow.benchmarks.mini.suite import MAKERS


class Role(Enum):
    """Who wrote a turn: OUTPUT alone carries the training loss."""

    TASK = "task"
    OPERATION = "operation"
    OUTPUT = "output"
    DRAFT = "draft"  # an output that is read but not learnt, because it may be wrong
    TOOL = "tool"
    GIVEN = "given"


@dataclass(frozen=True)
class Turn:
    """One segment of a trace; ``text`` is an operation's name for OPERATION and ``label: text`` for GIVEN."""

    role: Role
    text: str


Branch = list[Turn]


@dataclass(frozen=True)
class Trace:
    """The shared beginning of a context and branches that go on from it.

    Attributes:
        root: Text of the task, or its first part (the passages) where several questions are asked about it.
        branches: Alternatives that do not see each other; one may begin with the rest of the task.
    """

    root: str
    branches: list[Branch]


def call(operation: str, output: str) -> Branch:
    """An operation and what it should write."""
    return [Turn(Role.OPERATION, operation), Turn(Role.OUTPUT, output)]


def given(candidates: list[str]) -> Branch:
    """Labelled outputs of other branches: A, B, ..."""
    return [Turn(Role.GIVEN, f"{'ABCDEFGH'[i]}: {text}") for i, text in enumerate(candidates)]


def _wrong(problem: Problem, rng: random.Random) -> tuple[int, int]:
    delta = rng.choice((-20, -10, -2, -1, 1, 2, 10, 20, 100))
    return rng.randrange(len(problem.lines)), delta


def _reviewed(problem: Problem, rng: random.Random) -> Branch:
    """A worked solution, right or wrong, its review, and the revision."""
    if rng.random() < 0.4:
        return [Turn(Role.OPERATION, "generate_cot"), Turn(Role.DRAFT, problem.solution()), *call("review", "ok")]
    line, delta = _wrong(problem, rng)
    wrong = problem.solution(line, delta)
    right = _equation(problem, line)
    return [
        Turn(Role.OPERATION, "generate_cot"),
        Turn(Role.DRAFT, wrong),
        *call("review", f"issues: {right}"),
        *call("revise", problem.solution()),
    ]


def _equation(problem: Problem, line: int) -> str:
    return problem.steps()[line]


def _selection(right: list[str], wrong: list[str], rng: random.Random) -> Branch:
    """Three candidates of which one or two are right; the first right one is to be picked.

    ``right`` and ``wrong`` are ways to write a right and a wrong candidate.
    """
    candidates = [(True, rng.choice(right)), (rng.random() < 0.5, ""), (False, rng.choice(wrong))]
    candidates[1] = (candidates[1][0], rng.choice(right if candidates[1][0] else wrong))
    rng.shuffle(candidates)
    letter = "ABC"[[good for good, _ in candidates].index(True)]
    return [*given([text for _, text in candidates]), *call("ensemble_select", letter)]


NO_VALUE = "error: solve() returned nothing"


def arithmetic_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of a word or mathematics problem."""
    solution = problem.solution()
    short = problem.final.format(problem.answer) if "boxed" in problem.final else problem.answer
    branches = [call("generate_cot", solution), _reviewed(problem, rng)]
    if len(problem.lines) == 1 or rng.random() < 0.3:
        branches.append(call("answer_generate", short))
    program = call("program", problem.code() if problem.programmable else "def solve():\n    return None")
    after_plan = program if problem.programmable and rng.random() < 0.5 else call("generate_cot", solution)
    branches.append([*call("decompose", problem.plan()), *after_plan])
    if not problem.programmable or rng.random() < 0.15:
        program = [*program, Turn(Role.TOOL, NO_VALUE), *call("generate_cot", solution)]
    branches.append(program)
    right, wrong = [solution], []
    for _ in range(2):
        line, delta = _wrong(problem, rng)
        wrong.append(problem.solution(line, delta))
        if problem.programmable:
            value = str(evaluate(problem.lines, line, delta)[-1][3])
            if value != problem.answer:
                wrong += [value, problem.final.format(value)]
    if problem.programmable:
        right += [problem.answer, short]
    branches.append(_selection(right, wrong, rng))
    return branches


def hotpot_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of one question; the question itself comes first in each."""
    (first, passage), (second, other) = problem.hops
    facts = " ".join(problem.facts)
    looked = [*call("lookup_query", first), Turn(Role.TOOL, passage)]
    both = [*looked, *call("lookup_query", second), Turn(Role.TOOL, other)]
    branches = [
        call("answer_generate", problem.answer),
        [*call("extract_facts", facts), *call("answer_generate", problem.answer)],
        [*both, *call("answer_generate", problem.answer)],
    ]
    if rng.random() < 0.2:
        branches.append([*looked, *call("answer_generate", problem.answer)])
    if rng.random() < 0.2:
        others = [word for word in " ".join(problem.passages).replace(".", "").split() if word[0].isupper()]
        wrong = [word for word in others if word != problem.answer] or ["unknown"]
        branches.append(_selection([problem.answer], wrong, rng))
    question = Turn(Role.TASK, f"\nQuestion: {problem.question}")
    return [[question, *branch] for branch in branches]


def code_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of a code problem: first draft, repair after a failing test, choice among candidates."""
    branches = [call("code_generate", problem.answer)]
    wrong, remark = rng.choice(problem.mutants)
    failure = failing_test(problem, wrong)
    if failure:
        draft = [Turn(Role.OPERATION, "code_generate"), Turn(Role.DRAFT, wrong), Turn(Role.TOOL, failure)]
        if rng.random() < 0.5:
            branches.append([*draft, *call("fix_program", problem.answer)])
        else:
            branches.append([*draft, *call("reflect", remark), *call("fix_program", problem.answer)])
    if rng.random() < 0.4:
        branches.append(
            _selection([problem.answer], [m for m, _ in rng.sample(problem.mutants, min(2, len(problem.mutants)))], rng)
        )
    return branches


def failing_test(problem: Problem, source: str) -> str:
    """What ``run_tests`` reports for a function of the grammar; empty if the visible tests pass."""
    scope: dict[str, object] = {}
    exec(source, scope)  # a source of this package's own grammar
    for test in problem.visible_tests:
        expression, expected = test.removeprefix("assert ").split(" == ", 1)
        value = repr(eval(expression, scope))
        if value != expected:
            return f"failed: {expression} gave {value}, expected {expected}"
    return ""


def make_trace(kind: str, rng: random.Random, growth: float = 1.0) -> Trace:
    """One trace of a training problem.

    Args:
        kind: Benchmark kind.
        rng: Source of randomness.
        growth: How far look-up tasks have grown, from two people (0) to the suite's size (1).

    Returns:
        The trace; for hotpotqa with three questions about the same passages.
    """
    if kind == "hotpotqa":
        while True:
            world = hotpotqa.distinct_world(rng, rng.randrange(2, 3 + round(3 * growth)), rng.randrange(1, 4))
            asked = [hotpotqa.problem_of(world, hotpotqa.ask(rng, world)) for _ in range(4)]
            train = [problem for problem in asked if split_of(problem.text) == "train"]
            if train:
                return Trace(hotpotqa.context(world), [b for p in train for b in hotpot_branches(p, rng)])
    problem = draw(MAKERS[kind], rng, "train")
    branches = arithmetic_branches if kind in ("gsm8k", "math") else code_branches
    return Trace(problem.text, branches(problem, rng))
