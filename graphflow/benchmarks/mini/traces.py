"""Operation traces of training problems: what a mini backbone learns from.

A trace is a tree like a context in the engine: the task, and branches that each hold operation prompts, outputs and
tool results. Operations that judge or repair see right and wrong inputs. `calls` takes the same branches apart into
single calls for the operation-first layout.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from graphflow.benchmarks.mini import hotpotqa
from graphflow.benchmarks.mini.drills import make_sheet
from graphflow.benchmarks.mini.problem import Line, Problem, draw, evaluate, split_of
from graphflow.benchmarks.mini.repairs import REPAIRED, changed, corrected, failing_test, mistakes, moved
from graphflow.benchmarks.mini.suite import MAKERS

DRILL = "drill"  # arithmetic sheets, beside the kinds of the suite


class Role(Enum):
    """Who wrote a turn: OUTPUT alone carries the full training loss."""

    TASK = "task"
    OPERATION = "operation"
    OUTPUT = "output"
    DRAFT = "draft"  # an output that is read but not learnt, because it may be wrong
    TOOL = "tool"
    GIVEN = "given"


Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Turn:
    """One segment of a trace.

    Attributes:
        role: Who wrote it.
        text: Its text; an operation's name for OPERATION and ``label: text`` for GIVEN.
        stress: Parts of an OUTPUT, from one character to before another, that its worth hangs on.
    """

    role: Role
    text: str
    stress: Spans = ()


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


@dataclass(frozen=True)
class Call:
    """One call of the model, its context without operation prompts.

    Attributes:
        operation: What is asked for.
        history: Turns after the task: outputs, tool results and candidates (TASK for the rest of a task's text).
        output: What should be written.
        stress: As in `Turn`.
    """

    operation: str
    history: tuple[Turn, ...]
    output: str
    stress: Spans = ()


def call(operation: str, output: str, *stress: tuple[int, int]) -> Branch:
    """An operation and what it should write."""
    return [Turn(Role.OPERATION, operation), Turn(Role.OUTPUT, output, stress)]


def draft(operation: str, output: str) -> Branch:
    """An operation and what it wrote, right or wrong; not learnt."""
    return [Turn(Role.OPERATION, operation), Turn(Role.DRAFT, output)]


def given(candidates: Sequence[str]) -> Branch:
    """Labelled outputs of other branches: A, B, ..."""
    return [Turn(Role.GIVEN, f"{'ABCDEFGH'[i]}: {text}") for i, text in enumerate(candidates)]


def calls(branches: Sequence[Branch]) -> list[Call]:
    """Every call of some branches, each once."""
    found: dict[Call, None] = {}
    for branch in branches:
        history: list[Turn] = []
        operation = ""
        for turn in branch:
            if turn.role is Role.OPERATION:
                operation = turn.text
                continue
            if turn.role is Role.OUTPUT:
                found[Call(operation, tuple(history), turn.text, turn.stress)] = None
            history.append(Turn(Role.DRAFT, turn.text) if turn.role is Role.OUTPUT else turn)
    return list(found)


def mistaken(problem: Problem, rng: random.Random) -> tuple[str, str, int]:
    """A worked solution with one mistake that is carried on: a wrong result, a wrong number or a wrong operation.

    Returns:
        The solution, its final answer, and the index of the line with the mistake; the answer is never the right one.
    """
    while True:
        index = rng.randrange(len(problem.lines))
        line, delta, kind = problem.lines[index], 0, rng.random()
        if kind < 0.6:
            delta = rng.choice((-20, -10, -2, -1, 1, 2, 10, 20, 100))
        elif kind < 0.85:
            line = _other_number(line, rng)
        else:
            line = Line(line.left, rng.choice([op for op in "+-*" if op != line.op]), line.right)
        lines = (*problem.lines[:index], line, *problem.lines[index + 1 :])
        wrong = replace(problem, lines=lines)
        answer = wrong.result(index, delta)
        if answer != problem.answer and (delta or lines != problem.lines):
            return " ".join([*wrong.steps(index, delta), problem.final.format(answer)]), answer, index


def _other_number(line: Line, rng: random.Random) -> Line:
    """The line with another number where it has one."""
    if isinstance(line.right, int):
        return Line(line.left, line.op, max(1, line.right + rng.choice((-3, -1, 1, 2, 10))))
    if isinstance(line.left, int):
        return Line(max(1, line.left + rng.choice((-3, -1, 1, 2, 10))), line.op, line.right)
    return line


def _checked(problem: Problem, rng: random.Random, program: bool = True) -> list[Branch]:
    """A worked solution, right or wrong: its review and revision, its judgement and the program that follows."""
    review, judge = [], []
    if rng.random() < 0.45:
        review = [*draft("generate_cot", problem.solution()), *call("review", "ok")]
    else:
        wrong, _, line = mistaken(problem, rng)
        review = [*draft("generate_cot", wrong), *call("review", f"issues: {problem.steps()[line]}")]
        review += call("revise", problem.solution())
    if rng.random() < 0.45:
        judge = [*draft("generate_cot", problem.solution()), *call("judge", "correct")]
    else:
        judge = [*draft("generate_cot", mistaken(problem, rng)[0]), *call("judge", "wrong")]
        judge += _program(problem) if program else []
    return [review, judge]


def selection(right: Sequence[str], wrong: Sequence[str], rng: random.Random) -> Branch:
    """Two or three candidates of which one or two are right; the first right one is to be picked.

    ``right`` and ``wrong`` are ways to write a right and a wrong candidate.
    """
    good = [True, False] if rng.random() < 0.3 else [True, rng.random() < 0.5, False]
    rng.shuffle(good)
    candidates = [rng.choice(right if one else wrong) for one in good]
    return [*given(candidates), *call("ensemble_select", "ABC"[good.index(True)])]


HARD_SHARE = 0.15  # of problems that are hard by hand whose worked steps are shown and checked: most cannot be learnt
NO_VALUE = "error: solve() returned nothing"


def _program(problem: Problem) -> Branch:
    return call("program", problem.code() if problem.programmable else "def solve():\n    return None")


def hard_by_hand(problem: Problem) -> bool:
    """Whether a step has numbers that nobody multiplies or adds in one go."""
    rows = evaluate(problem.lines)
    return any(row[3] > 199 or (row[1] in "*/" and min(row[0], row[2]) > 12) for row in rows)


def arithmetic_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of a word or mathematics problem."""
    solution = problem.solution()
    short = problem.final.format(problem.answer) if "boxed" in problem.final else problem.answer
    branches: list[Branch] = []
    if not hard_by_hand(problem) or rng.random() < HARD_SHARE:
        branches += [*_checked(problem, rng), call("generate_cot", solution)]
    if len(problem.lines) == 1 or rng.random() < 0.3:
        branches.append(call("answer_generate", short))
    program = _program(problem)
    by_program = problem.programmable and rng.random() < (0.8 if hard_by_hand(problem) else 0.5)
    after_plan = program if by_program else call("generate_cot", solution)
    branches.append([*call("decompose", problem.plan()), *after_plan])
    if not problem.programmable or rng.random() < 0.15:
        program = [*program, Turn(Role.TOOL, NO_VALUE), *call("generate_cot", solution)]
    branches.append(program)
    if rng.random() < 0.6:
        branches.append(_arithmetic_selection(problem, short, rng))
    return branches


def _arithmetic_selection(problem: Problem, short: str, rng: random.Random) -> Branch:
    """Candidates as workflows make them: worked solutions, values of programs and bare answers."""
    right, wrong = [problem.solution()], []
    for _ in range(2):
        worked, answer, _ = mistaken(problem, rng)
        wrong += [worked, answer, problem.final.format(answer)] if problem.programmable else [worked]
    if problem.programmable:
        right += [problem.answer, short]
    return selection(right, wrong, rng)


def hotpot_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of one question; the question itself comes first in each."""
    answer, facts = call("answer_generate", problem.answer), call("extract_facts", " ".join(problem.facts))
    looked: Branch = []
    partly: list[Branch] = []
    for name, passage in problem.hops:
        looked = [*looked, *call("lookup_query", name), Turn(Role.TOOL, passage)]
        partly.append(looked)
    if rng.random() < 0.3:  # nothing new to look up: the last name again
        name, passage = problem.hops[-1]
        looked = [*looked, *call("lookup_query", name), Turn(Role.TOOL, passage)]
    branches = [answer, [*facts, *answer], [*looked, *answer]]
    if len(partly) > 1 and rng.random() < 0.2:
        branches.append([*rng.choice(partly[:-1]), *answer])
    others = [word for word in " ".join(problem.passages).replace(".", "").split() if word[0].isupper()]
    if problem.answer.isdigit():
        others = [word for word in " ".join(problem.passages).replace(".", " ").split() if word.isdigit()]
    elif problem.answer in ("yes", "no"):
        others = ["yes", "no"]
    wrong = [word for word in others if word != problem.answer] or ["unknown"]
    if rng.random() < 0.35:
        branches.append([*draft("answer_generate", problem.answer), *call("judge", "correct")])
    if rng.random() < 0.45:
        judged = [*draft("answer_generate", rng.choice(wrong)), *call("judge", "wrong")]
        branches.append([*judged, *facts, *answer])
    if rng.random() < 0.25:
        branches.append(selection([problem.answer], wrong, rng))
    question = Turn(Role.TASK, f"\nQuestion: {problem.question}")
    return [[question, *branch] for branch in branches]


def repair(problem: Problem, wrong: str, remark: str) -> tuple[Branch, Branch]:
    """What ``reflect`` and ``fix_program`` write about a wrong source; stressed is what must not be copied from it."""
    comment = f"# {remark}\n"
    said, code = corrected(remark), changed(wrong, problem.answer)
    fix = call("fix_program", comment + problem.answer, moved(said, len("# ")), moved(code, len(comment)))
    return call("reflect", remark, said), fix


def code_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of a code problem: first draft, repair after a failing test, choice among candidates."""
    branches = [call("code_generate", problem.answer)]
    wrong_ones = mistakes(problem)
    failing = [(wrong, remark, failing_test(problem, wrong)) for wrong, remark in wrong_ones]
    failing = [found for found in failing if found[2]]
    if failing and rng.random() < REPAIRED[problem.rare]:
        wrong, remark, failure = rng.choice(failing)
        tried = [*draft("code_generate", wrong), Turn(Role.TOOL, failure)]
        if rng.random() < 0.15:
            wrong, remark, failure = rng.choice(failing)
            tried += [*draft("fix_program", wrong), Turn(Role.TOOL, failure)]
        reflect, fix = repair(problem, wrong, remark)
        branches.append([*tried, *fix])
        if rng.random() < 0.6:
            branches.append([*tried, *reflect, *fix])
    if rng.random() < 0.4:
        branches.append(selection([problem.answer], [source for source, _ in wrong_ones], rng))
    return branches


def sheet_branches(problem: Problem, rng: random.Random) -> list[Branch]:
    """Branches of an arithmetic sheet: the equations, and checks of equations that are right or wrong."""
    return [call("generate_cot", problem.solution()), *_checked(problem, rng, program=False)]


BRANCHES = {
    DRILL: sheet_branches,
    "gsm8k": arithmetic_branches,
    "math": arithmetic_branches,
    "hotpotqa": hotpot_branches,
    "humaneval": code_branches,
    "mbpp": code_branches,
}
QUESTIONS = 4  # about one set of passages
OPERATIONS = 2  # whose calls one draw of `make_calls` gives


@dataclass(frozen=True)
class Stage:
    """How hard training problems are: easy ones first, then the suite's own (our choice).

    Attributes:
        passages: Passages of a look-up task; 0 for the suite's number.
        simple: Share of look-up questions over one relation only; the suite asks none.
        level: Highest level of other problems; harder ones still come in one of ten draws.
    """

    passages: int = 0
    simple: float = 0.0
    level: int = 5

    def allows(self, problem: Problem, rng: random.Random) -> bool:
        """Whether a problem is easy enough."""
        return problem.level <= self.level or rng.random() < 0.1


SUITE = Stage()


def make_problems(
    kind: str, rng: random.Random, split: str = "train", stage: Stage = SUITE
) -> tuple[str, list[Problem]]:
    """Problems with a common beginning.

    Args:
        kind: Benchmark kind, or `DRILL`.
        rng: Source of randomness.
        split: Split that they belong to; sheets belong to none.
        stage: How hard they are; the default is the suite itself.

    Returns:
        The common beginning of their texts and the problems: one, or for hotpotqa up to four questions about the same
        passages.
    """
    if kind == DRILL:
        sheet = make_sheet(rng, stage.level)
        return sheet.text, [sheet]
    if kind != "hotpotqa":
        while not stage.allows(problem := draw(MAKERS[kind], rng, split), rng):
            pass
        return problem.text, [problem]
    while True:
        world = hotpotqa.make_world(rng, stage.passages or rng.randint(*hotpotqa.PASSAGES))
        asked = [hotpotqa.problem_of(world, hotpotqa.ask(rng, world, stage.simple)) for _ in range(QUESTIONS)]
        if found := [problem for problem in asked if split_of(problem) == split]:
            return hotpotqa.context(world), found


def make_trace(kind: str, rng: random.Random, stage: Stage = SUITE) -> Trace:
    """One trace of a training problem; arguments as for `make_problems`."""
    root, problems = make_problems(kind, rng, "train", stage)
    return Trace(root, [branch for problem in problems for branch in BRANCHES[kind](problem, rng)])


def make_calls(
    kind: str, rng: random.Random, problems: int, stage: Stage = SUITE
) -> Iterator[tuple[str, str, list[Call]]]:
    """Calls of training problems, two operations at a time: what the operation-first layout is trained on.

    Args:
        kind: Benchmark kind.
        rng: Source of randomness.
        problems: Problems to draw; for hotpotqa questions about one set of passages.
        stage: As for `make_problems`.

    Yields:
        Operation, the common beginning of the tasks (empty where there is none), and calls whose history begins with
        the (rest of the) task.
    """
    by_operation: dict[str, list[Call]] = {}
    root = ""
    if kind == "hotpotqa":
        trace = make_trace(kind, rng, stage)
        root, found = trace.root, calls(trace.branches)
    else:
        found = []
        for _ in range(problems):
            trace = make_trace(kind, rng, stage)
            task = Turn(Role.TASK, trace.root)
            found += [replace(one, history=(task, *one.history)) for one in calls(trace.branches)]
    for one in found:
        by_operation.setdefault(one.operation, []).append(one)
    operations = sorted(by_operation)
    for operation in rng.sample(operations, min(OPERATIONS, len(operations))):
        yield operation, root, by_operation[operation]
