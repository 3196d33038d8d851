"""The capacity planner: against bytes that the engine measured, against counts by hand, and as a command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from graphflow.backbone.load import Backbone
from graphflow.backbone.turns import MINI
from graphflow.engine.episode import Episode, StepRecord, Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.experiment.capacity.dry import Assumptions, DryWalk
from graphflow.experiment.capacity.order import ticks
from graphflow.experiment.capacity.replay import Footprint, Replay, Sizes
from graphflow.experiment.capacity.shapes import architecture, kv_shape
from graphflow.experiment.capacity.tokenizers import stand_in
from graphflow.experiment.capacity.traffic import Call, Request, measured
from graphflow.experiment.compose import compose
from graphflow.kv import KVConfig, KVShape, Scope, StateMode
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import Guard, Step, Workflow
from tests.tiny import tiny_backbone

TYPES = ("task", "answer", "review", "result", "code")
FLIGHT = 6  # tasks in flight; as many runs before a path is learned, so that it matters when steps join
LENGTHS = {"write": 8, "check": 3, "fix": 14}  # tokens of outputs: the tiny backbone never stops


def llm(name: str, prompt: str, **more) -> Operation:
    return Operation(name, Kind.LLM, TYPES, "answer", prompt=prompt, max_tokens=LENGTHS.get(name, 1), **more)


LIBRARY = Library(
    [
        llm("write", "write the answer one two three four five six seven eight nine ten a b c d e f"),
        llm("check", "check the answer five six seven eight nine ten solve fix write", fields=("issues",)),
        llm("fix", "fix the answer eight nine ten a b c one two three four five six"),
        llm("unused", "solve one two three four five six seven"),
        Operation("vote", Kind.CONTROL, TYPES, "answer", arity="many"),
        Operation("first_nonempty", Kind.CONTROL, TYPES, "answer", arity="many"),
    ]
)
CHAIN = Workflow(
    "chain",
    ("gsm8k",),
    (Step("write", "write", ("task",)), Step("check", "check", ("write",)), Step("fix", "fix", ("check",))),
    "fix",
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
WORDS = "solve one two three four five six seven eight nine ten a b c d e f g".split()
TASKS = [Task(f"t{i}", "tiny", "gsm8k", " ".join(WORDS[: 4 + i % 9])) for i in range(16)]
STATES = {
    "stateful": KVConfig(mode=StateMode.STATEFUL),
    "stateless": KVConfig(mode=StateMode.STATELESS, exact_head=0),
    "stateless, head": KVConfig(mode=StateMode.STATELESS, exact_head=4),
    "differential": KVConfig(mode=StateMode.DIFFERENTIAL, min_observations=6, prune_every=8, coverage=0.8),
    "differential, 8 bits": KVConfig(mode=StateMode.DIFFERENTIAL, min_observations=6, value_bits=8, density=0.1),
    "request": KVConfig(mode=StateMode.DIFFERENTIAL, scope=Scope.REQUEST, min_observations=6),
    "no pruning": KVConfig(mode=StateMode.NO_PRUNING, min_observations=6),
}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A backbone that writes the same word for ever: what a run keeps then depends on the state mode alone."""
    made = tiny_backbone()
    made.stop = -1
    word = made.encode("one")[0]
    made.logits = lambda hidden: torch.nn.functional.one_hot(torch.full(hidden.shape[:-1], word), 64) * 1e4  # type: ignore[method-assign]
    return made


def deal(tasks: Sequence[Task]) -> list[Workflow]:
    return [JOIN if int(task.id[1:]) % 4 == 3 else CHAIN for task in tasks]


def engine(backbone: Backbone, kv: KVConfig) -> tuple[Executor, list[Episode]]:
    executor = Executor(backbone, LIBRARY, kv, EngineConfig(concurrency=FLIGHT, kv_dtype="bfloat16"))
    return executor, list(executor.run(TASKS, deal))


def prompts(backbone: Backbone) -> dict[str, int]:
    written = {op.name: op.prompt for op in LIBRARY.operations.values() if op.kind is Kind.LLM}
    return {name: len(backbone.encode(backbone.turns.write_operation(text))) for name, text in written.items()}


def walk_of(backbone: Backbone) -> DryWalk:
    return DryWalk(LIBRARY, MINI, lambda text: len(backbone.encode(text)), Assumptions(LENGTHS))


def in_order(episodes: Sequence[Episode]) -> list[Episode]:
    return sorted(episodes, key=lambda episode: int(episode.task_id[1:]))


@pytest.fixture(scope="module")
def traffic(backbone: Backbone) -> list[Request]:
    return measured(in_order(engine(backbone, STATES["stateful"])[1]), prompts(backbone))


@pytest.fixture(scope="module", params=STATES)
def served(request, backbone: Backbone) -> tuple[KVConfig, Executor, list[Episode]]:
    return STATES[request.param], *engine(backbone, STATES[request.param])


def plan(kv: KVConfig, backbone: Backbone, traffic: list[Request]) -> Footprint:
    return Replay(kv, backbone.shape(torch.bfloat16), prompts(backbone), concurrency=FLIGHT).serve(traffic)


def test_planned_bytes_are_the_engines(served, backbone: Backbone, traffic: list[Request]) -> None:
    """From the tokens of one stateful run: what the engine really keeps in every state, by category."""
    kv, executor, episodes = served
    found, held = plan(kv, backbone, traffic), executor.store_bytes()
    real = {
        "store": held.base + held.residual,
        "operation": sum(episode.op_bytes for episode in episodes),
        "text": sum(episode.dynamic_bytes for episode in episodes),
        "prefill": sum(episode.total("prefill_tokens") for episode in episodes),
        "reused": sum(episode.total("reused_tokens") for episode in episodes),
    }
    for name, value in real.items():
        assert getattr(found, name) == pytest.approx(value, rel=0.02), name
    assert (found.store > 0) == (kv.mode is not StateMode.STATEFUL) and found.operation > 0 and found.text > 0


@pytest.mark.parametrize(
    ("concurrency", "max_batch", "gather"), [(4, 32, 0.5), (8, 32, 0.0), (8, 6, 0.5), (16, 7, 1.5)]
)
def test_steps_join_in_the_engines_order(
    concurrency: int, max_batch: int, gather: float, backbone: Backbone, monkeypatch
) -> None:
    """The same operations join together, in the same order; with few rows some wait that could run."""
    config = EngineConfig(concurrency=concurrency, max_batch=max_batch, gather=gather, kv_dtype="bfloat16")
    executor, groups = Executor(backbone, LIBRARY, STATES["stateful"], config), []
    join = executor.batch.join

    def joining(requests, keep_logits):
        groups.append([request.op for request in requests])
        return join(requests, keep_logits)

    monkeypatch.setattr(executor.batch, "join", joining)
    assert len(list(executor.run(TASKS, deal))) == len(TASKS)
    walk = walk_of(backbone)
    walked = [walk.request(task, workflow) for task, workflow in zip(TASKS, deal(TASKS), strict=True)]
    planned = [[flight.call.op for flight in tick.joined] for tick in ticks(walked, concurrency, max_batch, gather)]
    assert [group for group in planned if group] == groups
    assert len(set(map(len, groups))) > 1


@pytest.mark.parametrize(
    ("gather", "expected"),
    [
        # 3 tokens end in step 1, 6 in step 4, 2 and 1 where they join; c is let in when a's request is done.
        (0.5, [(0, "ab", ""), (1, "", "a"), (2, "A", "A"), (3, "c", "c"), (4, "", "b")]),
        # A alone is not twice the one row that decodes; with b gone it joins, and c with it.
        (2.0, [(0, "ab", ""), (1, "", "a"), (2, "", ""), (4, "", "b"), (5, "Ac", "Ac")]),
    ],
)
def test_the_order_by_hand(gather: float, expected: list[tuple[int, str, str]]) -> None:
    def call(op: str, tokens: int, *after: int) -> Call:
        return Call(op, (), 5, 0, 1, tokens - 1, after)

    requests = [Request(5, (call("a", 3), call("A", 2, 0))), Request(5, (call("b", 6),)), Request(5, (call("c", 1),))]
    found = [
        (tick.at, *("".join(flight.call.op for flight in flights) for flights in (tick.joined, tick.ended)))
        for tick in ticks(requests, concurrency=2, max_batch=8, gather=gather)
    ]
    assert found == expected


def test_planned_peak_is_near_the_engines(served, backbone: Backbone, traffic: list[Request]) -> None:
    """Resident KV is an estimate: what is decoded and in flight at the worst moment is not planned token by token."""
    kv, executor, _ = served
    found = plan(kv, backbone, traffic)
    float32 = 2  # the tiny backbone computes in float32, so its batches take twice what is planned in bfloat16
    assert found.resident + float32 * found.batch == pytest.approx(executor.peak_bytes, rel=0.1)


def test_a_dry_walk_gives_the_tokens_of_the_run(backbone: Backbone, traffic: list[Request]) -> None:
    walk = walk_of(backbone)
    assert walk.prompts == prompts(backbone)
    dry = [walk.request(task, workflow) for task, workflow in zip(TASKS, deal(TASKS), strict=True)]
    for mine, real in zip(dry, traffic, strict=True):
        assert mine.task == real.task
        assert Counter((call.op, call.path, call.samples, call.output) for call in mine.calls) == Counter(
            (call.op, call.path, call.samples, call.output) for call in real.calls
        )
    # An output that stops ends with the stop token, one that is cut off has it added: one token a further call.
    assert sum(request.text for request in dry) == pytest.approx(sum(request.text for request in traffic), rel=0.03)


def test_a_dry_walk_by_hand() -> None:
    """Words count one token; a turn's brackets are none in this format but the closing one."""
    turns = replace(MINI, bos="", task=("", ""), operation=("", ""), given=("", ""), closing="end")
    library = Library([llm("write", "write it"), llm("check", "check it now", fields=("issues",))])
    steps = (
        Step("write", "write", ("task",)),
        Step("check", "check", ("write",)),
        Step("again", "write", ("check",), when=Guard("check", "issues")),
    )
    task = Task("t", "b", "gsm8k", "one two three four")

    def walk(guards: float) -> Request:
        assumed = Assumptions({"check": 5}, other=10, guards=guards)
        dry = DryWalk(library, turns, lambda text: len(text.split()), assumed)
        return dry.request(task, Workflow("w", ("gsm8k",), steps, "again"))

    # write: the task's 4 tokens before it; 10 tokens out, the last without KV. check: 4 + 2 + 9, and 1 pending token
    # that closes the output. again: 16 + 3 + 4, and 1 pending.
    write = Call("write", (), 4, 0, 1, 9)
    check = Call("check", ("write",), 16, 1, 1, 4, after=(0,))
    again = Call("write", ("write", "check"), 24, 1, 1, 9, after=(1,))
    assert walk(1.0) == Request(4, (write, check, again))
    assert walk(0.0) == Request(4, (write, check))
    assert walk(1.0).text == 4 + 9 + 1 + 4 + 1 + 9


def test_a_call_waits_through_tools_and_skipped_steps() -> None:
    """`picked` reads `again`, which is skipped and waits for the test of `a`; `b` does not wait for `a`."""
    test = Operation("test", Kind.TOOL, TYPES, "result", fields=("failed",))
    library = Library([llm("write", "write it"), test, LIBRARY["first_nonempty"]])
    steps = (
        Step("a", "write", ("task",)),
        Step("b", "write", ("task",)),
        Step("tested", "test", ("a",)),
        Step("again", "write", ("b",), when=Guard("tested", "failed")),
        Step("picked", "first_nonempty", ("again", "b")),
        Step("last", "write", ("picked",)),
    )
    walk = DryWalk(library, MINI, lambda text: len(text.split()), Assumptions(guards=0.0))
    made = walk.request(Task("t", "b", "gsm8k", "one"), Workflow("w", ("gsm8k",), steps, "last"))
    assert [call.after for call in made.calls] == [(), (), (0, 1)]


def test_bytes_by_hand() -> None:
    """Two layers of 2 heads x 4 channels in 2 bytes: 64 bytes a token."""
    shape = KVShape(2, 2, 4, torch.bfloat16)
    assert shape.bytes_per_token == 64
    request = Request(10, (Call("op", (), 10, 0, 1, 5),))
    replay = Replay(KVConfig(mode=StateMode.STATEFUL), shape, {"op": 20})
    assert replay.serve([request] * 3) == Footprint(
        store=0, operation=3 * 20 * 64, text=3 * 15 * 64, resident=3 * 35 * 64, batch=3 * 35 * 64, prefill=90, reused=30
    )
    stateless = Replay(KVConfig(mode=StateMode.STATELESS, exact_head=4), shape, {"op": 20}).serve([request])
    assert (stateless.store, stateless.operation) == (15 * 64, 5 * 64)  # head 4 and tail 1 of 20 run


@pytest.mark.parametrize("bits", [8, 16])
def test_what_a_residual_takes_is_what_the_codec_stores(bits: int) -> None:
    """One layer times the layers: 4 groups of 2 x 12 x 4 = 96 entries, 24 of each kept, 12 bytes of bitmap each."""
    kv, shape = KVConfig(value_bits=bits), KVShape(2, 2, 4, torch.bfloat16)
    scales = 4 * 2 * 2 if bits == 8 else 0  # a float16 a group and head
    assert Sizes(kv, shape).residual(12) == 4 * (24 * bits // 8 + 12) + scales


def test_pruned_paths_are_served_exactly() -> None:
    """Nine of ten requests take one path: with a coverage of .8 the other path's prompt is kept by its request."""
    shape = KVShape(1, 1, 2, torch.float32)  # 16 bytes a token
    common = Request(5, (Call("op", ("a",), 5, 0, 1, 0),))
    rare = Request(5, (Call("op", ("b",), 5, 0, 1, 0),))
    requests = ([common] * 9 + [rare]) * 20
    kept = {}
    for mode in (StateMode.DIFFERENTIAL, StateMode.NO_PRUNING):
        kv = KVConfig(mode=mode, coverage=0.8, min_observations=2)
        replay = Replay(kv, shape, {"op": 30}, concurrency=1)
        replay.serve(requests)
        kept[mode] = replay.serve(requests)
    ran = (1 + 1 + 1) * 16  # the first token, the last one and one of the others
    assert kept[StateMode.NO_PRUNING].operation == 200 * ran
    assert kept[StateMode.DIFFERENTIAL].operation == 180 * ran + 20 * 30 * 16
    assert kept[StateMode.NO_PRUNING].store > kept[StateMode.DIFFERENTIAL].store


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mode": StateMode.PREFIX}, "kv.mode must be one of stateful, .* got 'prefix'"),
        ({"store_bytes": 10**6}, "kv.store_bytes must be 0 to plan capacity, got 1000000"),
        ({"dynamic_codec": "int8"}, "kv.dynamic_codec must be 'none' to plan capacity, got 'int8'"),
    ],
)
def test_what_counts_cannot_tell_is_refused(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replay(replace(KVConfig(), **changed), KVShape(1, 1, 2, torch.float32), {})


def test_a_run_that_shared_prompts_is_refused() -> None:
    step = StepRecord("a", "op", prefill_tokens=5, reused_tokens=30, output_tokens=3, texts=("x",))
    with pytest.raises(ValueError, match="ran 5 tokens, its prompt has 20: capacity is planned from a run in stateful"):
        measured([Episode("t", "b", "w", "f", steps=[step])], {"op": 20})


@pytest.mark.parametrize(
    ("name", "parameters", "nbytes", "gigabytes"),
    [
        ("qwen2.5-7b", 7_615_616_512, 57_344, 15.2),
        ("llama3.1-8b", 8_030_261_248, 131_072, 16.1),
        ("gemma2-9b", 9_241_705_984, 344_064, 18.5),
    ],
)
def test_random_backbones_have_the_true_shape(name: str, parameters: int, nbytes: int, gigabytes: float) -> None:
    """Published sizes; weights in 2 bytes each are the memory that a dry run needs."""
    config = compose([f"backbone=random-{name}", "benchmark=gsm8k", "benchmark.limit=4"]).backbone
    real = compose([f"backbone={name}"]).backbone
    assert config.random and (config.hub_id, config.turns) == (real.hub_id, real.turns)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture(config), dtype=torch.bfloat16)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert kv_shape(config, "bfloat16").bytes_per_token == nbytes == kv_shape(real, "bfloat16").bytes_per_token
    assert round(2 * parameters / 1e9, 1) == gigabytes


@pytest.mark.parametrize(
    ("turns", "text", "count"),
    [
        ("qwen", "<|im_start|>user\nIt's 1,234.<|im_end|>\n", 14),  # start user \n It 's space 1 , 2 3 4 . end \n
        ("llama", "<|eot_id|>1234567 eggs", 5),  # 123 456 7
        ("gemma", "<start_of_turn>model\n12", 5),
    ],
)
def test_the_stand_in_counts_pieces(turns: str, text: str, count: int) -> None:
    assert stand_in(turns)(text) == count
