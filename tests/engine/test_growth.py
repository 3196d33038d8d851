"""Workflows that grow: the same as those that were whole from the beginning, and what is not growth."""

from dataclasses import replace

import pytest

from graphflow.engine.config import EngineConfig
from graphflow.engine.executor import Executor
from graphflow.kv import KVConfig, StateMode
from graphflow.wgraph.workflow import Guard, Step, Workflow
from tests.engine.serving import CHAIN, LIBRARY, TASKS
from tests.tiny import tiny_backbone


def first(workflow, count):
    """A workflow's first steps; the last of them is the answer."""
    steps = workflow.steps[:count]
    return replace(workflow, name=f"{workflow.name}, {count} steps", steps=steps, answer=steps[-1].id)


def serve(build, grow, mode="stateful", tasks=TASKS, **engine):
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig(mode), EngineConfig(kv_dtype="float32", **engine))
    return sorted(executor.run(tasks, build, grow), key=lambda episode: episode.task_id), executor


def by_one(whole):
    """Gives the first step of a workflow, and one more step whenever an answer is there."""
    return (
        lambda tasks: [first(whole, 1)] * len(tasks),
        lambda task, so_far, outputs: (
            None
            if len(so_far.steps) == len(whole.steps)
            else whole
            if len(so_far.steps) + 1 == len(whole.steps)
            else first(whole, len(so_far.steps) + 1)
        ),
    )


@pytest.mark.parametrize("mode", [mode.value for mode in StateMode])
def test_what_has_grown_is_what_was_whole_from_the_beginning(mode):
    build, grow = by_one(CHAIN)
    grown, _ = serve(build, grow, mode)
    whole, _ = serve(lambda tasks: [CHAIN] * len(tasks), None, mode)
    for one, other in zip(grown, whole, strict=True):
        assert not one.error and one.answer == other.answer
        assert (one.workflow, one.fingerprint) == (other.workflow, other.fingerprint)
        assert [step.texts for step in one.steps] == [step.texts for step in other.steps]
        assert one.total("prefill_tokens") == other.total("prefill_tokens")
        assert (one.op_bytes, one.dynamic_bytes) == (other.op_bytes, other.dynamic_bytes)


def test_what_is_added_depends_on_what_was_written():
    """Tasks of one batch go different ways, and are asked until nothing is added."""
    seen = []
    more = Workflow("more", (), (Step("write", "write", ("task",)), Step("check", "check", ("write",))), "check")

    def grow(task, workflow, outputs):
        seen.append((task.id, {id: [output.text for output in values] for id, values in outputs.items()}))
        return more if task is TASKS[0] and "check" not in outputs else None

    episodes, _ = serve(lambda tasks: [first(more, 1)] * len(tasks), grow)
    assert [[step.step for step in episode.steps] for episode in episodes] == [
        ["task", "write", "check"] if episode.task_id == TASKS[0].id else ["task", "write"] for episode in episodes
    ]
    for episode in episodes:
        asked = [outputs for id, outputs in seen if id == episode.task_id]
        assert len(asked) == len(episode.steps) - 1
        assert asked[-1] == {step.step: [text.strip() for text in step.texts] for step in episode.steps[1:]}


CHANGED = replace(CHAIN, steps=(replace(CHAIN.steps[0], op="fix"), *CHAIN.steps[1:]))
OTHER = Workflow("other", (), (Step("elsewhere", "write", ("task",)),), "elsewhere")


def broken(*_):
    raise LookupError("nothing found")


@pytest.mark.parametrize(
    ("give", "error"),
    [
        (lambda *_: CHANGED, "must keep the steps that it grows from: '.*' was changed"),
        (lambda *_: OTHER, "must keep the steps that it grows from: '.*' is missing"),
        (lambda *_: first(CHAIN, 1), "must have more steps than it grows from"),
        (broken, "LookupError: nothing found"),
    ],
)
def test_what_is_not_growth_fails_its_task_alone(give, error):
    def grow(task, workflow, outputs):
        return give() if task is TASKS[0] else None

    episodes, executor = serve(lambda tasks: [first(CHAIN, 1)] * len(tasks), grow)
    failed = {episode.task_id: episode.error for episode in episodes if episode.error}
    assert list(failed) == [TASKS[0].id]
    with pytest.raises(ValueError, match=error):
        raise ValueError(failed[TASKS[0].id])
    assert executor.batch.rows == 0


def test_a_skipped_answer_may_grow():
    """An answer whose guard does not hold is there too: nothing was written, and something else can be tried."""
    write = Step("write", "write", ("task",))
    check = Step("check", "check", ("write",))
    field = LIBRARY["check"].fields[0]
    steps = (write, check, Step("fix", "fix", ("check",), when=Guard("check", field, negated=False)))
    opposite = (write, check, replace(steps[2], when=Guard("check", field, negated=True)))
    again = Step("again", "check", ("write", "check"))

    def grow(task, workflow, outputs):
        if outputs.keys() & {"fix", "again"}:
            return None
        return replace(workflow, steps=(*workflow.steps, again), answer="again")

    for own in (steps, opposite):
        episodes, _ = serve(lambda tasks, own=own: [Workflow("w", (), own, "fix")] * len(tasks), grow)
        for episode in episodes:
            ran = {step.step for step in episode.steps}
            assert not episode.error and ("again" in ran) != ("fix" in ran)
