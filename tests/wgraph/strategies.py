"""Random valid workflows for property tests."""

from hypothesis import strategies as st

from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import TYPES, Kind, Operation
from graphflow.wgraph.workflow import TASK, Guard, Step, Workflow
from tests.wgraph.conftest import llm

LIBRARY = Library(
    [
        llm("think", ("task", "plan", "answer", "review"), "answer"),
        llm("plan", ("task", "answer"), "plan"),
        llm("review", ("answer", "plan"), "review", fields=("issues", "doubt")),
        llm("judge", ("answer", "plan", "review"), "answer", arity="many"),
        Operation("tests", Kind.TOOL, ("answer",), "result", fields=("failed",)),
        Operation("gather", Kind.CONTROL, tuple(sorted(TYPES)), "answer", arity="many"),
    ]
)


@st.composite
def workflows(draw, always=True):
    """A workflow over `LIBRARY`: up to seven steps, a last one that gathers what nobody reads.

    With ``always`` the last step reads the task too and so is never skipped; without it some outcome of the guards may
    leave the workflow without an answer, and nothing else is wrong with it.
    """
    steps = []
    samples = {TASK: 1}
    types = {TASK: "task"}
    ancestors = {TASK: set()}
    for number in range(draw(st.integers(1, 7))):
        operation = draw(st.sampled_from([LIBRARY[name] for name in LIBRARY]))
        usable = [id for id in types if types[id] in operation.accepts]
        if operation.arity == "one":
            usable = [id for id in usable if samples[id] == 1]
        if not usable:
            continue
        size = 1 if operation.arity == "one" else draw(st.integers(1, min(3, len(usable))))
        inputs = tuple(draw(st.permutations(usable))[:size])
        before = set(inputs).union(*(ancestors[id] for id in inputs)) - {TASK}
        readable = [
            Guard(step.id, field, negated)
            for step in steps
            for field in LIBRARY[step.op].fields
            for negated in (False, True)
            if step.id in before and step.samples == 1
        ]
        guard = draw(st.none() | st.sampled_from(readable)) if readable else None
        drawn = draw(st.sampled_from([1, 1, 3])) if operation.kind is Kind.LLM else 1
        step = Step(f"s{number}", operation.name, inputs, drawn, guard)
        steps.append(step)
        samples[step.id], types[step.id], ancestors[step.id] = drawn, operation.produces, before | {TASK}
    read = {id for step in steps for id in step.inputs}
    loose = [step.id for step in steps if step.id not in read]
    if always or not loose:
        loose.append(TASK)
    steps.append(Step("last", "gather", tuple(draw(st.permutations(loose)))))
    return Workflow("w", ("gsm8k",), tuple(steps), "last")
