"""The loop around the batch: late arrivals, chunks, failures, timeouts, cancellation, memory, prefetch."""

from dataclasses import replace

import pytest

from graphflow.backbone.lanes import Lanes
from graphflow.backbone.load import Backbone
from graphflow.engine.batch import Batch
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, StepOutput
from graphflow.engine.executor import Executor
from graphflow.engine.prefill import Prefill
from graphflow.engine.schedule import Schedule
from graphflow.engine.tools import TOOLS
from graphflow.kv import KVConfig
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Step, Workflow
from tests.engine.serving import CHAIN, FORKS, JOIN, LIBRARY, TASKS, logit_errors, outputs, serve, steps
from tests.tiny import FAMILIES, tiny_backbone

ONE = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")
TOOL = Workflow("tool", ("gsm8k",), (Step("write", "write", ("task",)), Step("run", "run_python", ("write",))), "run")
MANY = [replace(task, id=f"{task.id}-{copy}") for copy in range(4) for task in TASKS]


class Ticking(Executor):
    """Every look at the clock is a millisecond."""

    ticks = 0

    def clock(self):
        self.ticks += 1
        return self.ticks / 1000


def run(executor, workflow, tasks=TASKS):
    return sorted(executor.run(tasks, lambda arriving: [workflow] * len(arriving)), key=lambda e: e.task_id)


def spy(monkeypatch, seen):
    """Notes, at every step of the batch, the operations in it, and the requests that join."""
    step, join = Batch.step, Batch.join

    def stepping(self):
        seen.append(("step", [flight.request.op for flight in self.flights]))
        return step(self)

    def joining(self, requests, keep_logits=False):
        seen.append(("join", [request.op for request in requests]))
        return join(self, requests, keep_logits)

    monkeypatch.setattr(Batch, "step", stepping)
    monkeypatch.setattr(Batch, "join", joining)


def test_steps_join_while_others_decode_and_operations_share_the_batch(monkeypatch):
    """A long step and a short one; what reads the short one begins before the long one ends."""
    seen, library = [], Library([*LIBRARY.values(), replace(LIBRARY["fix"], name="long", max_tokens=20)])
    spy(monkeypatch, seen)
    both = Step("long", "long", ("task",)), Step("short", "write", ("task",))
    workflow = Workflow("w", ("gsm8k",), (*both, Step("end", "check", ("short",))), "end")
    executor = Executor(tiny_backbone(), library, KVConfig("stateful"), EngineConfig(kv_dtype="float32", fidelity=1))
    (episode,) = run(executor, workflow, TASKS[:1])
    assert [what for what, _ in seen[:2]] == ["join", "step"]
    join = next(index for index, event in enumerate(seen) if event == ("join", ["check"]))
    assert seen[join + 1] == ("step", ["check", "long"]), "prefilled beside a row that decodes"
    assert seen[join + 2] == ("step", ["long", "check"]), "two operations in one batch"
    assert max(record.kl for record in steps([episode])) == pytest.approx(0, abs=1e-5)
    assert [record.step for record in episode.steps] == ["task", "short", "end"], "the answer does not wait for others"
    assert executor.batch.rows == 0


@pytest.mark.parametrize("shared", [False, True], ids=["dense", "shared"])
@pytest.mark.parametrize(("family", "chunk"), zip(FAMILIES, (1, 7, 32), strict=True))
def test_chunked_prefill_is_exact(family, chunk, shared):
    with logit_errors() as errors:
        serve(tiny_backbone(family, shared=shared), FORKS, KVConfig("stateful"), prefill_chunk=chunk)
    assert len(errors) > 20 and max(errors) < 1e-4


@pytest.mark.parametrize("shared", [False, True], ids=["dense", "shared"])
@pytest.mark.parametrize("chunk", [0, 5])
@pytest.mark.parametrize("family", FAMILIES)
def test_many_lanes_and_groups_are_exact(monkeypatch, family, chunk, shared):
    """A lane costs as much as two slots, a pass as much as two tokens: most rows run apart."""
    seen, advance = [], Lanes.advance
    monkeypatch.setattr(Backbone, "lanes", lambda self, shape: Lanes(lambda: self.batch((), shape), 2))
    monkeypatch.setattr(Lanes, "advance", lambda self, where: seen.append(len(self.lanes)) or advance(self, where))
    tasks = [replace(task, text=task.text + " one" * 9 * place) for place, task in enumerate(TASKS)]
    with logit_errors() as errors:
        serve(tiny_backbone(family, shared=shared), FORKS, KVConfig(), tasks, prefill_chunk=chunk, padding=2)
    assert len(errors) > 20 and max(errors) < 1e-4
    assert max(seen) > 2


def test_who_is_cancelled_in_a_group_does_not_change_the_others():
    """Before the group's prefill begins, between two chunks of it, and while its rows decode."""
    for steps_before in (0, 1, 4):
        executor = Executor(tiny_backbone(), LIBRARY, KVConfig(), EngineConfig(prefill_chunk=6, kv_dtype="float32"))
        requests = [executor.calls.request(executor.calls.call(job, job.ready()[0])) for job in jobs(executor, 3)]
        batch = executor.batch
        expected = [reply.outputs for reply in executor.decoder.generate(requests)]
        first, second, third = batch.join(requests)
        (group,) = batch._groups
        for _ in range(steps_before):
            assert not batch.step()
        batch.cancel(second)
        assert group.flights == ([first, second, third] if steps_before else [first, third])
        ended = [flight for _ in range(20) for flight in batch.step()]
        assert {flight: flight.reply.outputs for flight in ended} == {first: expected[0], third: expected[2]}
        assert not batch.flights and not batch.nbytes


def test_chunks_are_bounded_and_rows_decode_between_them(monkeypatch):
    widths, decoded, advance = [], [], Prefill.advance

    def watched(self):
        before = self.cache.slots
        advance(self)
        widths.append((self.cache.slots - before) * len(self.cache.positions))

    monkeypatch.setattr(Prefill, "advance", watched)
    backbone = tiny_backbone()
    executor = Executor(backbone, LIBRARY, KVConfig("stateful"), EngineConfig(prefill_chunk=4, kv_dtype="float32"))
    batch, tokens = executor.batch, []
    requests = [executor.calls.request(executor.calls.call(job, job.ready()[0])) for job in jobs(executor, 3)]
    batch.join(requests[:1])
    while batch.joining:
        batch.step()
    widths.clear()
    batch.join(requests[1:])
    while batch.joining:
        before = [len(row.output) for row in batch._active if row]
        batch.step()
        tokens.append(len(before))
        decoded.append([len(row.output) for row in batch._active if row])
    assert len(widths) > 1 and max(widths) <= 4
    assert decoded[0][0] < decoded[1][0], "the first row went on meanwhile"


def jobs(executor, count):
    """Admitted tasks of one step."""
    from graphflow.engine.job import Job

    roots = executor.memory.begin([task.text for task in TASKS[:count]])
    return [Job(task, ONE, 0.0, 0.0, root.branch, False) for task, root in zip(TASKS, roots, strict=False)]


def test_no_scheduler_changes_an_output():
    backbone = tiny_backbone()
    expected, _ = serve(backbone, JOIN, KVConfig("stateful"), concurrency=1, max_batch=1, fidelity=0)
    for kind, mode in zip(Schedule, ("stateful", "prefix", "stateful", "prefix"), strict=True):
        got, _ = serve(backbone, JOIN, KVConfig(mode), scheduler=kind.value, max_batch=4, fidelity=0)
        assert outputs(got) == outputs(expected), (kind, mode)


def test_the_scheduler_decides_who_joins(monkeypatch):
    """Two places, six ready steps of each task: same_operation fills both with one operation, where it can."""
    wide = Workflow(
        "wide",
        ("gsm8k",),
        (
            *(Step(f"{op}{i}", op, ("task",)) for i in range(2) for op in ("write", "check", "fix")),
            Step("end", "first_nonempty", ("write0", "check0", "fix0", "write1", "check1", "fix1")),
        ),
        "end",
    )
    mixed = {}
    for kind in ("fifo", "same_operation"):
        seen = []
        with monkeypatch.context() as patch:
            spy(patch, seen)
            serve(tiny_backbone(), wide, KVConfig("stateful"), tasks=TASKS[:1], max_batch=2, scheduler=kind, fidelity=0)
        mixed[kind] = [len(set(ops)) for what, ops in seen if what == "step" and len(ops) == 2]
    assert set(mixed["same_operation"][:3]) == {1} and 2 in mixed["fifo"][:3]


def faulty(task, inputs, toolbox):
    if task.id.startswith("t1"):
        raise OSError("the disk is full")
    return StepOutput("fine", {"failed": False})


def test_what_a_tool_raises_fails_its_task_alone(monkeypatch):
    monkeypatch.setitem(TOOLS, "run_python", faulty)
    episodes, _ = serve(tiny_backbone(), TOOL, KVConfig("stateful"), fidelity=0)
    assert [e.error for e in episodes] == ["", "step 'run': OSError: the disk is full", "", ""]
    assert [e.answer for e in episodes] == ["fine", "", "fine", "fine"]
    assert [r.step for r in episodes[1].steps] == ["task", "write"]
    assert Episode.from_dict(episodes[1].to_dict()) == episodes[1]
    old = {key: value for key, value in episodes[0].to_dict().items() if key != "waited_s"}
    assert Episode.from_dict(old) == episodes[0], "records of before are read"


@pytest.mark.parametrize("where", ["begin", "request", "prefill", "keep", "read"])
def test_what_a_step_raises_fails_its_task_alone(monkeypatch, where):
    """When its text or its prompt is prefilled, its request made, its state kept or its output read."""
    backbone, kv = tiny_backbone(), KVConfig("stateful")
    expected, _ = serve(backbone, ONE, kv, fidelity=0)
    executor = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32"))
    bad = tuple(backbone.encode(backbone.turns.write_task(TASKS[2].text)))

    def raising(owner, name, guilty):
        original = getattr(owner, name)

        def instead(*args, **kwargs):
            if guilty(*args):
                raise RuntimeError("no luck")
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, instead)

    if where == "begin":
        raising(executor.memory, "begin", lambda texts: TASKS[2].text in texts)
    elif where == "request":
        raising(executor.memory, "request", lambda branch, *_: branch.context.tokens == bad)
    elif where == "prefill":
        raising(backbone, "batch", lambda rows, _: any(len(row) and row[0][0].tokens == bad for row in rows))
    elif where == "keep":
        raising(Batch, "_keep", lambda self, prefill, row, flight: flight.request.context.tokens == bad)
    else:
        raising(executor.memory, "branches", lambda branch, *_: branch.context.tokens == bad)
    got = run(executor, ONE)
    step = "task" if where == "begin" else "write"
    assert [e.error for e in got] == ["", "", f"step {step!r}: RuntimeError: no luck", ""]
    assert [e.answer for e in got if not e.error] == [e.answer for e in expected if e.task_id != "t2"]


def test_a_task_out_of_time_fails_wherever_it_is():
    """One place: the others time out before they are admitted; the workflow in flight ends in the middle."""
    config = EngineConfig(concurrency=1, timeout_s=0.025, arrivals="bursts", rate=1000.0)
    executor = Ticking(tiny_backbone(), LIBRARY, KVConfig("stateful"), config)
    episodes = run(executor, CHAIN)
    assert len(episodes) == len(TASKS)
    assert all(e.error == "timeout: not done 0.025 s after it arrived (engine.timeout_s)" for e in episodes)
    assert any(e.steps for e in episodes) and any(not e.steps and e.waited_s > 0.025 for e in episodes)
    assert executor.batch.rows == 0 and executor.batch.nbytes == 0


def test_cancelled_tasks_end_wherever_they_are():
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig("stateful"), EngineConfig(concurrency=2))
    assert not executor.cancel("t0"), "nothing runs"
    short = Workflow("short", ("gsm8k",), ONE.steps, "write")
    deal = {"t0-0": short}
    found = []
    for episode in executor.run(MANY[:6], lambda a: [deal.get(task.id, CHAIN) for task in a]):
        if not found:
            assert episode.task_id == "t0-0"
            assert executor.cancel("t1-0") and executor.cancel("t1-1"), "in flight, and not arrived"
            assert not executor.cancel("t0-0") and not executor.cancel("nobody")
        found.append(episode)
    errors = {e.task_id: e.error for e in found}
    assert errors == {t.id: "cancelled" if t.id in ("t1-0", "t1-1") else "" for t in MANY[:6]}


def test_memory_is_never_exceeded_and_no_task_is_lost():
    backbone = tiny_backbone()
    kv = KVConfig("stateful")
    free, executor = serve(backbone, FORKS, kv, tasks=MANY, concurrency=16, fidelity=0)
    need = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32")).budget.task(14, FORKS)
    limit = 2 * sum(need)
    assert executor.peak_bytes > limit, "the limit matters"
    bound, executor = serve(backbone, FORKS, kv, tasks=MANY, concurrency=16, fidelity=0, memory_bytes=limit)
    assert 0 < executor.peak_bytes <= limit
    assert outputs(bound) == outputs(free) and not any(e.error for e in bound)


def test_a_task_that_can_never_fit_fails_with_its_reason():
    backbone, kv = tiny_backbone(), KVConfig("stateful")
    _, alone = serve(backbone, ONE, kv, tasks=TASKS[3:], fidelity=0)
    limit = 3 * alone.peak_bytes
    episodes, _ = serve(backbone, CHAIN, kv, fidelity=0, memory_bytes=limit)
    assert all(e.error.startswith("memory: ") and str(e.error).endswith(f"{limit:,}") for e in episodes)
    episodes, executor = serve(backbone, ONE, kv, tasks=TASKS[3:], fidelity=0, memory_bytes=limit)
    assert not episodes[0].error and executor.peak_bytes <= limit


def test_tasks_arrive_by_themselves():
    config = EngineConfig(arrivals="poisson", rate=200.0, concurrency=1, kv_dtype="float32")
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig("stateful"), config)
    episodes = run(executor, CHAIN, MANY)
    assert len(episodes) == len(MANY) and not any(e.error for e in episodes)
    last = max(episodes, key=lambda e: e.waited_s)
    assert last.waited_s > 0, "one place: some task waited"
    for e in episodes:
        assert e.latency_s >= e.waited_s and e.steps[0].start_s >= e.waited_s >= 0
    closed, _ = serve(tiny_backbone(), CHAIN, KVConfig("stateful"), tasks=MANY, fidelity=0)
    assert outputs(closed) == outputs(episodes)


def test_state_of_the_next_steps_is_decoded_ahead():
    backbone = tiny_backbone()
    kv = KVConfig("no_pruning", min_observations=1, exact_head=1, workspace_items=2)
    answers = []
    for most in (0, 8):
        executor = Executor(backbone, LIBRARY, kv, EngineConfig(concurrency=1, prefetch=most, kv_dtype="float32"))
        run(executor, CHAIN, TASKS[:1])
        assert executor.prefetch.decoded == 0, "nothing is stored yet"
        episodes = run(executor, CHAIN, TASKS[1:])
        answers.append(outputs(episodes))
        assert (executor.prefetch.decoded > 0) == (most > 0)
        last = CHAIN.steps[-1].op, ("write", "check", "fix")
        assert executor.prefetch.resident(*last), "decoded, and known to be"
        assert len(executor.store._workspace) <= 2
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheduler", "lifo"),
        ("arrivals", "never"),
        ("rate", 0.0),
        ("timeout_s", -1.0),
        ("memory_bytes", -1),
        ("prefill_chunk", -1),
        ("prefetch", -1),
        ("gather", -0.5),
    ],
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"engine.{field} must be .*{value}"):
        EngineConfig(**{field: value})


def test_a_run_that_is_given_up_leaves_nothing_in_the_batch():
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig("stateful"), EngineConfig(kv_dtype="float32"))
    given_up = executor.run(MANY, lambda a: [CHAIN] * len(a))
    next(given_up)
    given_up.close()
    assert executor.batch.rows == 0 and executor.batch.nbytes == 0
    assert steps(run(executor, CHAIN)) == []
