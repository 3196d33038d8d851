"""A library and wGraph small enough to work out by hand, and tables made up over them.

task -> cot -----------------> vote        answers: cot, program, run, vote
task -> program -> run ------> vote        run.failed is a field; fix needs code before it
run -[run.failed]-> fix
"""

from __future__ import annotations

import random

from graphflow.engine.episode import Task
from graphflow.generator.outcomes import OutcomeTable
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import TYPES, Kind, Operation
from graphflow.wgraph.wgraph import WGraph, merge
from graphflow.wgraph.workflow import Workflow, WorkflowError, validate


def llm(name: str, accepts: str, produces: str, **more) -> Operation:
    about = f"{name} does its work"
    return Operation(name, Kind.LLM, tuple(accepts.split()), produces, prompt=name, semantics=about, **more)


LIBRARY = Library(
    [
        llm("cot", "task", "answer"),
        llm("program", "task", "code"),
        Operation("run", Kind.TOOL, ("code",), "result", fields=("failed",)),
        llm("fix", "result", "code", requires=("code",)),
        Operation("vote", Kind.CONTROL, ("answer", "result", "code"), "answer", arity="many"),
    ]
)


def workflow(name: str, answer: str, /, kinds: tuple[str, ...] = ("gsm8k",), **steps: dict) -> Workflow:
    made = Workflow.from_dict({"name": name, "kinds": list(kinds), "steps": steps, "answer": answer})
    validate(made, LIBRARY)
    return made


COT = workflow("cot", "cot", cot={"op": "cot", "in": ["task"]})
RUN = workflow("run", "run", program={"op": "program", "in": ["task"]}, run={"op": "run", "in": ["program"]})
VOTE = workflow(
    "vote",
    "vote",
    cot={"op": "cot", "in": ["task"]},
    program={"op": "program", "in": ["task"]},
    run={"op": "run", "in": ["program"]},
    vote={"op": "vote", "in": ["cot", "run"]},
)
FIX = workflow(
    "fix",
    "vote",
    ("humaneval",),
    program={"op": "program", "in": ["task"]},
    run={"op": "run", "in": ["program"]},
    fix={"op": "fix", "in": ["run"], "when": "run.failed"},
    vote={"op": "vote", "in": ["fix", "program"]},
)


def small_graph() -> WGraph:
    """Edges: 0 task->cot, 1 task->program, 2 program->run, 3 cot->vote, 4 run->vote."""
    return merge([COT, RUN, VOTE], LIBRARY)


def row(task: Task, made: Workflow, metric: float, seed: int = 0, tokens: int = 100, latency: float = 1.0) -> dict:
    return {
        "task_id": task.id,
        "benchmark": task.benchmark,
        "kind": task.kind,
        "text": task.text,
        "workflow": made.name,
        "fingerprint": made.fingerprint,
        "seed": seed,
        "metric": metric,
        "latency_s": latency,
        "tokens": tokens,
        "kv_bytes": 1000,
        "llm_calls": made.llm_calls(LIBRARY),
    }


RULES = {"long": RUN, "short": COT, "odd": VOTE}


def word_task(index: int) -> tuple[Task, Workflow]:
    """A task whose text has one word that says which workflow solves it."""
    draw = random.Random(index)
    word = draw.choice(sorted(RULES))
    thing = draw.choice(["apples", "pears", "coins"])
    text = f"Ann has {draw.randint(2, 99)} {thing}. This {word} one asks how many {thing} there are."
    return Task(f"t{index}", "words", "gsm8k", text), RULES[word]


def word_table(size: int) -> OutcomeTable:
    """The right workflow succeeds on 9 of 10 tasks, another one on 3 of 10."""
    table, draw = OutcomeTable(), random.Random(1)
    for index in range(size):
        task, right = word_task(index)
        for made in RULES.values():
            table.add(row(task, made, float(draw.random() < (0.9 if made is right else 0.3))), made)
    return table


def random_workflows(library: Library, draw: random.Random, count: int) -> list[Workflow]:
    """Valid workflows of up to 7 steps, put together at random: operations, inputs, samples and guards."""
    found: dict[str, Workflow] = {}
    while len(found) < count:
        types, steps = {"task": "task"}, {}
        for number in range(draw.randint(1, 7)):
            fitting = [
                (op, inputs) for op in library.values() if (inputs := [id for id in types if types[id] in op.accepts])
            ]
            op, inputs = draw.choice(fitting)
            size = 1 if op.arity == "one" else draw.randint(1, min(3, len(inputs)))
            step: dict = {"op": op.name, "in": draw.sample(inputs, size)}
            if op.kind is Kind.LLM and draw.random() < 0.2:
                step["samples"] = 3
            fields = [f"{id}.{name}" for id in steps for name in library[steps[id]["op"]].fields]
            if fields and draw.random() < 0.4:
                step["when"] = draw.choice(["", "not "]) + draw.choice(fields)
            id = f"s{number}"
            steps[id], types[id] = step, op.produces
        assert TYPES >= set(types.values())
        try:
            made = Workflow.from_dict(
                {"name": f"w{len(found)}", "kinds": ["math"], "steps": steps, "answer": list(steps)[-1]}
            )
            validate(made, library)
        except WorkflowError:
            continue
        found.setdefault(made.fingerprint, made)
    return list(found.values())
