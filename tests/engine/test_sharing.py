"""Exact sharing by tokens in both layouts: exactness, counting, the bound, and the tokens that models learn from."""

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM

from graphflow.backbone.load import Backbone
from graphflow.backbone.turns import FORMATS
from graphflow.benchmarks.mini.traces import Role, Turn, calls
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.engine import batch
from graphflow.engine.episode import Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.kv import BudgetError, KVConfig
from graphflow.wgraph.workflow import Step, Workflow
from tests.backbone.test_turns import learn
from tests.engine.serving import CHAIN, FORKS, JOIN, LIBRARY, TASKS, logit_errors, outputs, serve
from tests.tiny import COMMON, FAMILIES, tiny_backbone

PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
ONE = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["prefix", "operation_first"])
def test_logits_are_those_of_stand_alone_runs(family, mode):
    """Forks, samples, a selection and a join, twice over, so that the second pass lives on the tree."""
    backbone = tiny_backbone(family)
    executor = Executor(backbone, LIBRARY, KVConfig(mode), EngineConfig(kv_dtype="float32", fidelity=9))
    with logit_errors() as errors:
        for workflow in (FORKS, JOIN):
            list(executor.run(TASKS, lambda arriving, workflow=workflow: [workflow] * len(arriving)))
    assert len(errors) > 4 * 10
    assert max(errors) < 1e-4


@pytest.mark.parametrize("workflow", [CHAIN, JOIN, FORKS], ids=["chain", "join", "forks"])
def test_prefix_writes_what_stateful_writes(workflow):
    backbone = tiny_backbone()
    stateful, _ = serve(backbone, workflow, KVConfig("stateful"))
    shared, executor = serve(backbone, workflow, KVConfig("prefix"))
    assert outputs(shared) == outputs(stateful)
    assert sum(e.op_bytes for e in shared) + sum(e.dynamic_bytes for e in shared) == executor.store_bytes().total
    assert sum(e.total("prefill_tokens") for e in shared) <= sum(e.total("prefill_tokens") for e in stateful)


@pytest.mark.parametrize("mode", ["prefix", "operation_first"])
def test_a_bound_is_kept_and_changes_no_output(mode):
    backbone = tiny_backbone()
    free, _ = serve(backbone, CHAIN, KVConfig(mode), concurrency=2)
    bound, executor = serve(backbone, CHAIN, KVConfig(mode, store_bytes=100 * PER_TOKEN), concurrency=2)
    assert outputs(bound) == outputs(free)
    assert executor.store_bytes().total <= 100 * PER_TOKEN and executor.memory.tree.evicted
    assert sum(e.total("prefill_tokens") for e in bound) >= sum(e.total("prefill_tokens") for e in free)


def test_instructions_are_never_evicted_and_must_fit():
    executor = serve(tiny_backbone(), CHAIN, KVConfig("operation_first", store_bytes=50 * PER_TOKEN))[1]
    held = {ids: executor.memory.tree.match(ids).length for ids in executor.prompts.values()}
    assert all(len(ids) == length for ids, length in held.items())
    with pytest.raises(BudgetError, match="store_bytes must be at least"):
        Executor(tiny_backbone(), LIBRARY, KVConfig("operation_first", store_bytes=64), EngineConfig())


def test_tokens_and_bytes_by_hand_task_first():
    """Task 5 tokens, prompt 9; the second of two equal tasks runs the prompt's last token alone."""
    backbone = tiny_backbone()
    executor = Executor(backbone, LIBRARY, KVConfig("prefix"), EngineConfig(kv_dtype="float32"))
    first, again = (next(iter(executor.run(TASKS[:1], lambda arriving: [ONE]))) for _ in range(2))
    task, call = first.steps
    assert (task.prefill_tokens, task.reused_tokens) == (5, 0)  # <|bos|> <|task|> solve one <|end|>
    assert (call.prefill_tokens, call.reused_tokens) == (9, 5)
    assert (call.operation_tokens, call.operation_reused) == (9, 0)
    assert first.op_bytes == 9 * PER_TOKEN
    assert first.dynamic_bytes == (5 + call.output_tokens - 1) * PER_TOKEN
    task, call = again.steps
    assert (task.prefill_tokens, task.reused_tokens) == (0, 5)
    assert (call.prefill_tokens, call.reused_tokens) == (1, 13)
    assert (call.operation_tokens, call.operation_reused) == (9, 8)
    assert again.op_bytes == again.dynamic_bytes == 0, "everything was there"
    assert executor.store_bytes().total == executor.memory.tree.nbytes == first.op_bytes + first.dynamic_bytes


def test_tokens_and_bytes_by_hand_operation_first():
    """Instruction 10 tokens, task 4, opening 1: the task runs again for every operation, its history with it."""
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig("operation_first"), EngineConfig(kv_dtype="float32"))
    pinned = executor.store_bytes()
    # <|bos|> <|op|>, the words of four prompts, <|end|>; the first two tokens once, and 'check' and 'the answer' too
    words = {op.name: op.prompt.split() for op in LIBRARY.values() if op.prompt}
    prefixes = {("<|bos|>", "<|op|>", *text[:n]) for text in words.values() for n in range(len(text) + 1)}
    assert pinned.base == pinned.total == (1 + len(prefixes) + len(words)) * PER_TOKEN
    workflow = Workflow("two", ("gsm8k",), (*ONE.steps, Step("fix", "fix", ("write",))), "fix")
    (episode,) = executor.run(TASKS[:1], lambda arriving: [workflow])
    task, write, fix = episode.steps
    assert (task.prefill_tokens, task.reused_tokens) == (0, 0)
    assert (write.prefill_tokens, write.reused_tokens) == (5, 10)  # the task's 4 and the opening
    assert (write.operation_tokens, write.operation_reused) == (10, 10)
    assert write.output_tokens == 6, "it ran to its limit and did not stop by itself"
    history = 1 + 6 + 1  # the opening, the output, the closing
    assert fix.prefill_tokens == 4 + history + 1
    assert fix.reused_tokens == fix.operation_reused == fix.operation_tokens == 3 + len(words["fix"])
    assert episode.op_bytes == 2 * PER_TOKEN, "the opening of each call"
    ran = 4 + (write.output_tokens - 1) + 4 + history + (fix.output_tokens - 1)
    assert episode.dynamic_bytes == ran * PER_TOKEN


# What each step writes, in the order in which they run; none begins with white space (`graphflow.backbone.turns`).
WRITTEN = {
    "write": "The sum is 2 + 2.\n\n#### 4",
    "again": "def solve():\n    return 4",
    "fix": "a\n\n\nb: no",
    "check": "issues: the second line",
    "select": "A",
    "end": "ok",
}
HISTORY = Workflow(
    "history",
    ("gsm8k",),
    (
        Step("write", "write", ("task",)),
        Step("run", "run_python", ("write",)),
        Step("fix", "fix", ("run",)),
        Step("check", "check", ("fix",)),
        Step("again", "fix", ("task",)),
        Step("select", "ensemble_select", ("check", "again")),
        Step("end", "check", ("select",)),
    ),
    "end",
)


def scripted(monkeypatch, backbone, workflow, task, end=0, mode="operation_first"):
    """Serves a task, what each step writes given; tokens before each output, and texts of steps."""
    seen, original = [], batch.Batch.join
    written = (i for text in WRITTEN.values() for i in (*backbone.encode(text), backbone.stops[end]))

    def spy(self, requests, keep_logits=False):
        (request,) = requests
        seen.append((request.op, [*request.context.tokens, *request.pending, *request.prompt]))
        return original(self, requests, keep_logits)

    monkeypatch.setattr(batch, "_choose", lambda logits, temperature, generator: next(written))
    monkeypatch.setattr(batch.Batch, "join", spy)
    config = EngineConfig(concurrency=1, max_batch=1, max_tokens_scale=50, kv_dtype="float32")
    executor = Executor(backbone, LIBRARY, KVConfig(mode), config)
    (episode,) = executor.run([task], lambda arriving: [workflow])
    assert [record.step for record in episode.steps if record.output_tokens] == list(WRITTEN), "one call at a time"
    return seen, {record.step: record.texts[0] for record in episode.steps if record.texts}


@pytest.mark.parametrize("mode", ["operation_first", "prefix"])
@pytest.mark.parametrize("name", ["qwen", "llama", "gemma"])
def test_any_stop_of_a_family_ends_an_output_and_contexts_close_the_turn_as_ever(name, mode):
    config = Qwen2Config(**{**COMMON, "vocab_size": 1024, "max_position_embeddings": 4096})
    backbone = Backbone(name, Qwen2ForCausalLM(config), learn(name), FORMATS[name])
    task = Task("t", "tiny", "gsm8k", f"What is {backbone.turns.stop} 2 + 2?")
    found = []
    for end in range(len(backbone.stops)):
        with pytest.MonkeyPatch.context() as patch:
            found.append(scripted(patch, backbone, HISTORY, task, end, mode))
    assert len(found) > 1 and all(other == found[0] for other in found)
    turns, (_, tokens) = backbone.turns, found[0][0][0]
    written = turns.instruction if mode == "operation_first" else (turns.bos, *turns.operation)
    marks = "".join((*written, *turns.task)).count(turns.stop)
    assert tokens.count(backbone.stop) == marks  # those of the format, and none that the task names


@pytest.mark.parametrize("name", FORMATS)
def test_operation_first_serves_the_tokens_that_models_are_trained_on(name, monkeypatch):
    """Drafts, a tool result and candidates in the history; the trace of the same episode is written for training."""
    config = Qwen2Config(**{**COMMON, "vocab_size": 1024, "max_position_embeddings": 4096})
    backbone = Backbone(name, Qwen2ForCausalLM(config), learn(name), FORMATS[name])
    task = Task("t", "tiny", "gsm8k", "What is 2 + 2?\n\nEnd with '#### N'.")
    seen, texts = scripted(monkeypatch, backbone, HISTORY, task)

    def said(step, op):
        return [Turn(Role.OPERATION, op), Turn(Role.OUTPUT, WRITTEN[step])]

    start = Turn(Role.TASK, task.text)
    tool = Turn(Role.TOOL, texts["run"])
    first = [start, *said("write", "write"), tool, *said("fix", "fix"), *said("check", "check")]
    other = [start, *said("again", "fix")]
    given = [Turn(Role.GIVEN, f"A: {texts['check']}"), Turn(Role.GIVEN, f"B: {texts['again']}")]
    chosen = [start, *given, *said("select", "ensemble_select")]
    # The candidate that is picked goes on where it was written.
    after = [*first, *said("end", "check")]
    write, fix, check = calls([first])
    want = [write, *calls([other]), fix, check, *calls([chosen]), calls([after])[-1]]
    assert [call.operation for call in want] == [op for op, _ in seen]
    prompts = {op.name: op.prompt for op in LIBRARY.values() if op.prompt}
    writer = TraceWriter(backbone.tokenizer, backbone.turns, prompts)
    for call, (_, tokens) in zip(want, seen, strict=True):
        (document,) = writer.write_calls(call.operation, "", [call], 4096)
        output = writer.ids(call.output + backbone.turns.closing)
        assert tokens == document.ids[: -len(output)], backbone.tokenizer.decode(tokens)
