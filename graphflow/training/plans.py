"""Traces of what methods ask while they serve a task: plans, joins, requests, decisions, search texts, suggestions.

The plan of a task is that of somebody who knows it: a program where numbers are large, a look-up for each name, tests
where words are vague. Contexts are those that the methods make (`graphflow.engine.state` says what a join reads).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from graphflow.benchmarks.mini.problem import NAMES, Problem, draw
from graphflow.benchmarks.mini.repairs import failing_test, mistakes
from graphflow.benchmarks.mini.suite import MAKERS
from graphflow.benchmarks.mini.traces import (
    BRANCHES,
    Branch,
    Role,
    Turn,
    call,
    draft,
    given,
    hard_by_hand,
    mistaken,
    repair,
)
from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools import ToolBox
from graphflow.methods import agentkb, llmcompiler, taskweaver
from graphflow.methods.agentkb import Entry, experience_of, said_of
from graphflow.methods.llmcompiler import LLMCompiler
from graphflow.wgraph.workflow import Workflow

CODE = ("humaneval", "mbpp")
PASSED, NO_TESTS = "passed", "no tests"
DISAGREE, FAILED, BAD_PLAN, BROKEN = 0.35, 0.08, 0.12, 0.12  # shares of what goes wrong


def task_of(problem: Problem, kind: str) -> Task:
    """The problem as methods see it."""
    return Task("training", f"mini-{kind}", kind, problem.text, problem.passages)


def tool(text: str) -> Turn:
    """A tool's result."""
    return Turn(Role.TOOL, text)


def question_of(problem: Problem) -> str:
    """The sentence of a task that asks, or its first one."""
    return agentkb.REASON.script(task_of(problem, ""), [], ToolBox()).text


def results_of(problem: Problem) -> str:
    """What the tests that a task shows say of a function that is right."""
    return PASSED if problem.visible_tests else NO_TESTS


def in_form(problem: Problem) -> str:
    """The answer alone, in the form that the task asks for."""
    return problem.final.format(problem.answer) if "boxed" in problem.final else problem.answer


def tagged(name: str, text: str) -> str:
    """A block as `graphflow.methods.planning.block` reads it."""
    return f"<{name}>{text}</{name}>"


# llmcompiler


def plan_of(problem: Problem, kind: str) -> str:
    """The lines of a plan without the one that joins."""
    if kind in CODE:
        tested = ["run_tests($1)", "fix_program($2)"] if "?" in problem.structure else []
        return _lines(["code_generate()", *tested])
    if kind == "hotpotqa":
        names = [name for name, _ in problem.hops]
        if _compares(problem):
            return _lines([f'retrieve("{name}")' for name in names])
        looks = range(1, 2 * len(names) - 1, 2)
        further = [line for k in looks for line in (f"lookup_query(${k})", f"retrieve(${k + 1})")]
        return _lines([f'retrieve("{names[0]}")', *further])
    if not problem.programmable:
        return _lines(["generate_cot()"])
    by_hand = [] if hard_by_hand(problem) else ["generate_cot()"]
    return _lines(["program()", "run_python($1)", *by_hand])


def _lines(calls: Sequence[str]) -> str:
    return "\n".join(f"{number}. {line}" for number, line in enumerate([*calls, "join()"], 1))


def _compares(problem: Problem) -> bool:
    return problem.structure.startswith("compare")


def compiled(problem: Problem, kind: str, method: LLMCompiler, rng: random.Random) -> list[Branch]:
    """Branches of a task for ``llmcompiler``: its plan, perhaps asked for twice, and what is said to the results."""
    plan = plan_of(problem, kind)
    planned = call(llmcompiler.PLAN, plan)
    if rng.random() < BAD_PLAN:
        bad = _bad_plan(plan, rng)
        said = method.problem(task_of(problem, kind), [StepOutput(bad)], ToolBox())
        planned = [*draft(llmcompiler.PLAN, bad), tool(said.text), *planned]
    if kind == "hotpotqa":
        return _joined_passages(problem, planned, rng)
    finish = rng.choice((llmcompiler.FINISH, llmcompiler.JOIN)).name
    if kind in CODE:
        shown = problem.answer
        if "?" in problem.structure and (found := mistakes(problem)) and rng.random() < 0.7:
            wrong, remark = rng.choice(found)
            failure = failing_test(problem, wrong)
            fixed = repair(problem, wrong, remark)[1] if failure else []
            return [planned, *_repaired(problem, wrong, failure, fixed, plan, finish)]
        return [planned, [*given([plan, shown]), *call(finish, tagged("answer", problem.answer))]]
    outcomes, right = _outcomes(problem, rng)
    if outcomes[0].startswith("error: ") and not right and rng.random() < 0.5:  # another plan, where one is allowed
        wanted = call(llmcompiler.JOIN.name, tagged("replan", "There is no value: solve it by hand."))
        return [planned, [*given([plan, *outcomes]), *wanted, *call(llmcompiler.PLAN, _lines(["generate_cot()"]))]]
    said = f"{right} is right." if right else problem.solution()
    return [planned, [*given([plan, *outcomes]), *call(finish, f"{said} {tagged('answer', in_form(problem))}")]]


def _bad_plan(plan: str, rng: random.Random) -> str:
    """A plan with a mistake: no such operation, a line that is not there, or no call at all."""
    first = plan.splitlines()[0]
    return rng.choice(
        [
            plan.replace(first.split(". ")[1].split("(")[0], rng.choice(("solve", "search", "compute", "answer")), 1),
            f"{first}\n2. run_python($3)\n3. join()",
            f"{first}\n2. fix_program($1)\n3. join()"
            if "retrieve" in first
            else f"{first}\n2. retrieve($4)\n3. join()",
            f"First {first.split('. ')[1]}, then join()",
        ]
    )


def _outcomes(problem: Problem, rng: random.Random) -> tuple[list[str], str]:
    """What the lines of a plan gave, and the letter of the first that is right; the plan has letter A."""
    if not problem.programmable:
        wrong = rng.random() < DISAGREE
        return ([mistaken(problem, rng)[0]], "") if wrong else ([problem.solution()], "B")
    roll = rng.random()
    value = problem.answer
    if roll < FAILED:
        value = "error: solve() returned nothing"
    elif roll < 2 * FAILED:
        value = mistaken(problem, rng)[1]
    if hard_by_hand(problem):
        return [value], "B" if value == problem.answer else ""
    worked = mistaken(problem, rng)[0] if value == problem.answer and rng.random() < DISAGREE else problem.solution()
    return [value, worked], "B" if value == problem.answer else "C"


def _repaired(problem: Problem, wrong: str, failure: str, fixed: Branch, plan: str, finish: str) -> list[Branch]:
    """A draft with its tests; what fix_program wrote is all that the join sees of them."""
    if not failure:  # the mistake does not show: the code stays
        fixed = call("fix_program", problem.answer)
        wrong = problem.answer
    tested: Branch = [*draft("code_generate", wrong), tool(failure or results_of(problem)), *fixed]
    return [tested, [*given([plan, fixed[-1].text]), *call(finish, tagged("answer", problem.answer))]]


def _joined_passages(problem: Problem, planned: Branch, rng: random.Random) -> list[Branch]:
    """Two look-ups side by side are labelled; one after the other they stand in one context."""
    finish = rng.choice((llmcompiler.FINISH, llmcompiler.JOIN)).name
    end = call(finish, f"{' '.join(problem.facts)} {tagged('answer', problem.answer)}")
    (name, passage), *further = problem.hops
    if _compares(problem):
        return [[*planned, *given([found for _, found in problem.hops]), *end]]
    looked = [*planned, tool(name), tool(passage)]
    for name, passage in further:
        looked += [*call("lookup_query", name), tool(passage)]
    return [[*looked, *end]]


# taskweaver


def woven(problem: Problem, kind: str, rng: random.Random) -> list[Branch]:
    """The one branch of a task for ``taskweaver``: plan, cells with their runs, observations."""
    if kind in CODE:
        return [_woven_code(problem, rng)]
    requests, cells = (_searches if kind == "hotpotqa" else _calculation)(problem)
    plan = "\n".join(f"{number}. {request}" for number, request in enumerate(requests, 1))
    branch = call(taskweaver.PLAN.name, plan)
    for place, (cell, result) in enumerate(cells, 1):
        branch += _cell(cell, rng) if kind != "hotpotqa" else call(taskweaver.CELL.name, cell)
        branch.append(tool(result))
        seen = problem.facts[place - 1] if kind == "hotpotqa" else f"The value is {result}."
        if place < len(cells):
            decision = tagged("next", f"Find {problem.hops[place][0]}.")
        else:
            decision = tagged("answer", in_form(problem))
        operation = taskweaver.CONCLUDE if place == taskweaver.CELLS else taskweaver.OBSERVE
        branch += call(operation.name, f"{seen} {decision}")
        if place == len(cells) < taskweaver.CELLS and rng.random() < 0.1:  # as where no post is left
            branch[-2:] = call(taskweaver.CONCLUDE.name, f"{seen} {decision}")
    return [branch]


def _calculation(problem: Problem) -> tuple[list[str], list[tuple[str, str]]]:
    """The request of a calculation, which is the task's question, its cell and the value of that.

    A planner that writes the equations itself does the interpreter's work, without a program to check it.
    """
    request = f"Write a program: {question_of(problem)}"
    if problem.programmable:
        return [request], [(problem.code(), problem.answer)]
    body = problem.code().rpartition("    return ")[0]
    return [request], [(f'{body}    return rf"{problem.form}"', problem.answer)]


def _cell(cell: str, rng: random.Random) -> Branch:
    """A cell; sometimes one that names what is not there, its error and the repair."""
    body, _, end = cell.rpartition("return ")
    if "def solve():\n" not in cell or end not in NAMES or rng.random() > BROKEN:
        return call(taskweaver.CELL.name, cell)
    name = rng.choice("pqxyz")
    wrong, remark = f"{body}return {name}", f"# {name} is not defined, it should be {end}"
    error = tool(f"error: NameError: name '{name}' is not defined")
    return [*draft(taskweaver.CELL.name, wrong), error, *call("fix_program", f"{remark}\n{cell}")]


def _searches(problem: Problem) -> tuple[list[str], list[tuple[str, str]]]:
    """Requests of a question over passages, and for each its cell and the passages that it finds."""
    names = [name for name, _ in problem.hops]
    compared = [f"Find {name}." for name in names[1:]]
    later = compared if _compares(problem) else ["Find what that leads to."] * len(compared)
    cells = []
    for name in names:
        found = " ".join(passage for passage in problem.passages if name in passage)
        cells.append((f'def solve():\n    return " ".join(p for p in passages if "{name}" in p)', found))
    return [f"Find {names[0]}.", *later], cells


def _woven_code(problem: Problem, rng: random.Random) -> Branch:
    branch = call(taskweaver.PLAN.name, f"1. Write {problem.entry_point} and try it on the examples.")
    wrong_ones = [(wrong, remark, failing_test(problem, wrong)) for wrong, remark in mistakes(problem)]
    wrong_ones = [one for one in wrong_ones if one[2]]
    if wrong_ones and rng.random() < 0.5:
        wrong, remark, failure = rng.choice(wrong_ones)
        branch += [*draft(taskweaver.CELL.name, wrong), tool(failure), *repair(problem, wrong, remark)[1]]
    else:
        branch += call(taskweaver.CELL.name, problem.answer)
    said = "The examples pass." if problem.visible_tests else "There are no examples."
    return [*branch, tool(results_of(problem)), *call(taskweaver.OBSERVE.name, f"{said} {tagged('answer', 'done')}")]


# agentkb


def looked_up(problem: Problem, kind: str, names: Sequence[str], rng: random.Random) -> list[Branch]:
    """Branches of a task for ``agentkb``: search text and suggestion, and the work that is done behind one."""
    hits = [_entry(kind, names, rng) for _ in range(agentkb.HITS)]
    advice = suggestion(hits)
    told = [*call(agentkb.REASON.name, question_of(problem)), tool(said_of(hits)), *call(agentkb.REFINE.name, advice)]
    begun = [branch for branch in BRANCHES[kind](problem, rng) if _alone(branch)]
    chosen = rng.choice(begun)
    after = 1 if chosen[0].role is Role.TASK else 0  # the question itself stands in the root here
    return [told, [tool(advice), *chosen[after:]]]


def _alone(branch: Branch) -> bool:
    """Whether a branch begins with the task and needs no outputs of others."""
    return branch[0].role in (Role.OPERATION, Role.TASK) and all(turn.role is not Role.GIVEN for turn in branch[:2])


def _entry(kind: str, names: Sequence[str], rng: random.Random) -> Entry:
    """An entry of a knowledge base: another task of the kind, and workflows that solved it or did not."""
    order = rng.sample(names, min(len(names), rng.randint(2, 6)))
    solved = rng.choice((0, *range(1, len(order) + 1), *range(1, len(order) + 1)))
    bad = order[solved:][::-1]
    text = draw(MAKERS[kind], rng, "train").text
    return Entry(text, f"mini-{kind}", kind, "", bool(solved), experience_of(order[:solved], bad))


def suggestion(hits: Sequence[Entry]) -> str:
    """What to take from entries: what did best on the nearest task that was solved, and what did not solve it."""
    for hit in hits:
        if hit.success:
            good, _, rest = hit.experience.rstrip(".").partition(" solved it")
            bad = rest.removeprefix("; ").split(",")[0].removesuffix(" did not")
            avoid = f" Do not begin with {bad}." if bad else ""
            return f"Do as {good.split(', ')[0]} does.{avoid}"
    return "Nothing has solved such tasks yet: check the answer twice."


def workflow_names(workflows: Sequence[Workflow], kind: str) -> list[str]:
    """Names of the workflows that are made for a kind."""
    return sorted(workflow.name for workflow in workflows if kind in workflow.kinds)
