"""Many tasks, a tenth of them cancelled, failing or out of time: each ends in one episode, and nothing stays behind."""

import gc
import random
from collections import Counter

import pytest

from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.executor import Executor
from graphflow.engine.tools import TOOLS
from graphflow.kv import CodedSegment, EncodedSegment, KVConfig, Segment
from tests.engine.serving import CHAIN, FORKS, JOIN, LIBRARY
from tests.tiny import tiny_backbone

MODES = {
    "stateful": KVConfig("stateful"),
    "differential": KVConfig("differential", min_observations=2, exact_head=1, workspace_items=4),
    "prefix, bounded": KVConfig("prefix", store_bytes=400_000),
}


class Ticking(Executor):
    """Every look at the clock is a millisecond, so that who runs out of time does not depend on the machine."""

    ticks = 0

    def clock(self):
        self.ticks += 1
        return self.ticks / 1000


def own_segments():
    """Segments that are alive and are no store's."""
    kinds = (Segment, EncodedSegment, CodedSegment)
    return sum(type(found) in kinds and not found.shared for found in gc.get_objects())


@pytest.fixture
def no_collector():
    """Nothing may wait for the garbage collector: what a task held is freed when it ends."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def stress(monkeypatch, count, mode, shared, seed, **config):
    dice = random.Random(seed)
    broken = {f"t{i}" for i in range(count) if dice.random() < 0.1}

    def tool(task, inputs, toolbox):
        if task.id in broken:
            raise RuntimeError(f"injected into {task.id}")
        return StepOutput("five six", {"failed": dice.random() < 0.5})

    monkeypatch.setitem(TOOLS, "run_python", tool)
    monkeypatch.setattr("graphflow.engine.loop.time.sleep", lambda seconds: None)  # the clock ticks by itself
    words = "one two three four five six seven a b c d e".split()
    tasks = [Task(f"t{i}", "tiny", "gsm8k", " ".join(dice.choices(words, k=dice.randint(1, 30)))) for i in range(count)]
    deal = {task.id: dice.choice((CHAIN, JOIN, FORKS)) for task in tasks}
    before = own_segments()
    settings = {"concurrency": 24, "max_batch": 12, "prefill_chunk": 64, "kv_dtype": "float32", "seed": seed, **config}
    executor = Ticking(tiny_backbone(shared=shared), LIBRARY, MODES[mode], EngineConfig(**settings))
    empty = executor.store_bytes()
    ended, cancelled, left = Counter(), set(), [task.id for task in tasks]
    errors = Counter()
    for episode in executor.run(tasks, lambda arriving: [deal[task.id] for task in arriving]):
        ended[episode.task_id] += 1
        kind = episode.error.split(":")[0].split(" ")[0]
        errors[kind] += 1
        assert (kind == "cancelled") == (episode.task_id in cancelled) or kind in ("step", "timeout")
        assert (kind == "step") <= (episode.task_id in broken and deal[episode.task_id] is FORKS)
        assert bool(episode.answer) <= (not episode.error)
        assert episode.error or deal[episode.task_id].answer in [record.step for record in episode.steps]
        left.remove(episode.task_id)
        if left and dice.random() < 0.1:
            victim = dice.choice(left[:30])
            if executor.cancel(victim):
                cancelled.add(victim)
    assert ended == Counter(task.id for task in tasks), "every task in exactly one episode"
    assert set(errors) >= {"", "step", "cancelled"}, errors
    assert executor.batch.rows == 0 and executor.batch.nbytes == 0 and not executor.batch.flights
    del episode
    assert own_segments() == before, "a segment of some task is still alive"
    held = executor.store_bytes()
    assert executor.store._workspace.pinned_bytes == 0
    assert held.base == empty.base
    assert held.total == held.base + held.residual + held.statistics + held.workspace + held.prompts + held.text
    return executor, errors


@pytest.mark.parametrize(
    ("mode", "shared", "config"),
    [
        ("stateful", False, {"scheduler": "critical_path", "timeout_s": 0.6}),
        ("differential", True, {"scheduler": "resident_first", "prefetch": 2, "arrivals": "poisson", "rate": 40.0}),
    ],
    ids=["stateful", "differential"],
)
def test_two_hundred_tasks(monkeypatch, no_collector, mode, shared, config):
    executor, errors = stress(monkeypatch, 200, mode, shared, seed=1, **config)
    held = executor.store_bytes()
    if mode == "stateful":
        assert errors["timeout"] > 0, errors
        assert held.base == held.residual == held.workspace == 0
    else:
        assert held.residual > 0 and executor.prefetch.decoded > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "shared"),
    [("stateful", False), ("differential", True), ("prefix, bounded", False)],
)
def test_two_thousand_tasks(monkeypatch, no_collector, mode, shared):
    config = {"scheduler": "same_operation", "timeout_s": 3.0, "arrivals": "bursts", "rate": 30.0}
    executor, _ = stress(monkeypatch, 2000, mode, shared, seed=2, memory_bytes=4_000_000, **config)
    assert executor.peak_bytes <= 4_000_000
