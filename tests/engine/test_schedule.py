"""Schedulers on queues made by hand, and the longest way to the answer."""

import pytest

from graphflow.engine.schedule import PATIENCE, Schedule, Waiting, scheduler, take, ways
from graphflow.wgraph.workflow import Guard, Step, Workflow
from tests.engine.serving import FORKS, LIBRARY


def queue():
    """write, check, write, fix, check became ready in this order."""
    return [
        Waiting(0, "write", rows=1, remaining=2),
        Waiting(1, "check", rows=3, remaining=1, resident=True),
        Waiting(2, "write", rows=1, remaining=4, resident=True),
        Waiting(3, "fix", rows=1, remaining=4),
        Waiting(4, "check", rows=1, remaining=3),
    ]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("fifo", [0, 1, 2, 3, 4]),
        ("same_operation", [0, 2, 1, 4, 3]),
        ("critical_path", [2, 3, 4, 0, 1]),
        ("resident_first", [1, 2, 0, 3, 4]),
    ],
)
def test_orders_by_hand(kind, expected):
    own = scheduler(Schedule(kind))
    assert [step.number for step in own.order(queue())] == expected
    assert [step.number for step in own.order(queue()[::-1])] == expected, "whatever order the queue is given in"


def test_places_go_to_the_head_of_the_queue():
    ordered = scheduler(Schedule.CRITICAL_PATH).order(queue())  # 2, 3, 4, 0, 1; rows 1, 1, 1, 1, 3
    assert [step.number for step in take(ordered, 3)] == [2, 3, 4]
    assert [step.overtaken for step in ordered] == [0, 0, 0, 3, 3]
    assert take(scheduler(Schedule.RESIDENT_FIRST).order(queue()), 2) == [], "a step of three samples is not passed by"


def test_nobody_is_overtaken_for_ever():
    """A step that is never resident, and a resident one that arrives each time."""
    own, old = scheduler(Schedule.RESIDENT_FIRST), Waiting(0, "fix")
    for number in range(1, 1000):
        ordered = own.order([old, Waiting(number, "write", resident=True)])
        if take(ordered, 1) == [old]:
            break
    assert number == PATIENCE + 1


def test_the_longest_way_counts_language_model_steps():
    # plan > samples > best > end, plan > other > run (a tool) > best > end
    assert ways(FORKS, LIBRARY) == {"plan": 4, "samples": 3, "other": 3, "run": 2, "best": 2, "end": 1}
    guarded = Workflow(
        "guarded",
        ("gsm8k",),
        (
            Step("write", "write", ("task",)),
            Step("check", "check", ("write",)),
            Step("fix", "fix", ("write",), when=Guard("check", "issues")),
        ),
        "fix",
    )
    assert ways(guarded, LIBRARY) == {"write": 3, "check": 2, "fix": 1}, "a guard is waited for"
