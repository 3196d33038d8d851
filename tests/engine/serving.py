"""A small library, tasks and workflows, and serving them on tiny backbones."""

from __future__ import annotations

from contextlib import contextmanager

from graphflow.engine import calls as calls_module
from graphflow.engine.episode import Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.engine.fidelity import exact_logits
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import Step, Workflow

TYPES = ("task", "answer", "review", "result", "code", "facts")


def llm(name, prompt, **more):
    return Operation(name, Kind.LLM, TYPES, "answer", prompt=prompt, max_tokens=6, **more)


LIBRARY = Library(
    {
        op.name: op
        for op in (
            llm("write", "write the answer one two three four"),
            llm("check", "check the answer five six seven", fields=("issues",)),
            llm("fix", "fix the answer eight nine ten a b c"),
            llm("ensemble_select", "check one two", arity="many", judge=True),
            Operation("vote", Kind.CONTROL, TYPES, "answer", arity="many"),
            Operation("first_nonempty", Kind.CONTROL, TYPES, "answer", arity="many"),
            Operation("run_python", Kind.TOOL, TYPES, "result", fields=("failed",)),
        )
    }
)
TASKS = [
    Task(f"t{i}", "tiny", "gsm8k", text)
    for i, text in enumerate(["solve one", "solve one two three d e f g five six seven", "solve a b c nine", "ten"])
]
CHAIN = Workflow(
    "chain",
    ("gsm8k",),
    (
        Step("write", "write", ("task",)),
        Step("check", "check", ("write",)),
        Step("fix", "fix", ("check",)),
        Step("again", "check", ("fix",)),
    ),
    "again",
)
JOIN = Workflow(
    "join",
    ("gsm8k",),
    (
        Step("left", "write", ("task",)),
        Step("right", "fix", ("task",)),
        Step("samples", "write", ("task",), samples=3),
        Step("both", "check", ("left", "right", "samples")),
    ),
    "both",
)


def serve(backbone, workflow, kv, tasks=TASKS, library=LIBRARY, **config):
    config = {"kv_dtype": "float32", "fidelity": len(tasks), **config}
    executor = Executor(backbone, library, kv, EngineConfig(**config))
    episodes = sorted(executor.run(tasks, lambda arriving: [workflow] * len(arriving)), key=lambda e: e.task_id)
    assert [episode.task_id for episode in episodes] == sorted(task.id for task in tasks)
    return episodes, executor


def steps(episodes):
    return [record for episode in episodes for record in episode.steps if record.kl is not None]


FORKS = Workflow(
    "forks",
    ("gsm8k",),
    (
        Step("plan", "check", ("task",)),
        Step("samples", "write", ("plan",), samples=3),
        Step("other", "fix", ("plan",)),
        Step("run", "run_python", ("other",)),
        Step("best", "ensemble_select", ("samples", "run")),
        Step("end", "check", ("best",)),
    ),
    "end",
)


@contextmanager
def logit_errors():
    """Collects the largest difference of each measured step's logits from those of a stand-alone run."""
    errors, original = [], calls_module.compare

    def measured(backbone, context, output, used):
        exact = exact_logits(backbone, [*context, *output[:-1]], len(output))
        errors.append(float((exact - used).abs().max()))
        return original(backbone, context, output, used)

    calls_module.compare = measured
    try:
        yield errors
    finally:
        calls_module.compare = original


def outputs(episodes):
    """Every step's texts, in the order of steps."""
    return [sorted((record.step, record.texts) for record in episode.steps) for episode in episodes]
