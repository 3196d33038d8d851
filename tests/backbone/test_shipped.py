"""The shipped backbone: what it was trained on is what the engine feeds it, and it can do its work."""

import random

import pytest
from tokenizers import Tokenizer

from graphflow.backbone.load import BackboneConfig, load_backbone, training_record
from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.benchmarks.mini.traces import make_calls, make_trace
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.engine.batch import Batch
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.engine.sandbox import bubblewrap_problem
from graphflow.kv import KVConfig
from graphflow.paths import ASSETS, CONF
from graphflow.wgraph.library import load_operations, load_workflows

SHIPPED = sorted(folder.parent.name for folder in ASSETS.glob("*/config.json"))
SOLVING = [name if name == "qwen-mini" else pytest.param(name, marks=pytest.mark.slow) for name in SHIPPED]


@pytest.fixture(scope="module", params=SHIPPED)
def backbone(request):
    return load_backbone(BackboneConfig(name=request.param))


def test_something_is_shipped_with_its_record():
    assert "qwen-mini" in SHIPPED
    record = training_record("qwen-mini")
    assert record["parameters"] > 2e6 and record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    weights = ASSETS / "qwen-mini" / "model.safetensors"
    assert weights.stat().st_size < 12 * 2**20


def test_the_tokenizer_is_the_one_it_was_trained_with(backbone):
    """`AutoTokenizer` would cut programs by the rules of the model's family instead of those in tokenizer.json."""
    trained = Tokenizer.from_file(str(ASSETS / backbone.name / "tokenizer.json"))
    rng = random.Random("tokenizer")
    for kind in ("gsm8k", "humaneval", "mbpp"):
        for _ in range(5):
            trace = make_trace(kind, rng)
            for text in (trace.root, *(turn.text for branch in trace.branches for turn in branch)):
                assert backbone.encode(text) == trained.encode(text, add_special_tokens=False).ids
    assert len(backbone.tokenizer) == trained.get_vocab_size() == backbone.model.config.vocab_size


def test_parts_of_a_context_tokenise_as_the_whole(backbone):
    """No merge crosses a boundary: ids of segments in a row are the ids of the text as one."""
    rng = random.Random("boundaries")
    prompts = {op.name: op.prompt for op in load_operations(CONF / "operations").operations.values()}
    writer = TraceWriter(backbone.tokenizer, backbone.turns, prompts)
    for kind in ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp"):
        for _ in range(10):
            trace = make_trace(kind, rng)
            for branch in trace.branches:
                pieces = [writer.ids(writer.root(trace)), *(piece.ids for piece in writer.pieces(branch))]
                text = writer.root(trace) + "".join(writer.text(turn) for turn in branch)
                assert [i for ids in pieces for i in ids] == backbone.encode(text), text
            for operation, root, calls in make_calls(kind, rng, 2):
                for call in calls:
                    (document,) = writer.write_calls(operation, root, [call], 2048)
                    root_text = "".join(writer.call_root(operation, root))
                    text = root_text + writer.call_text(call, bool(root)) + call.output
                    assert document.ids == backbone.encode(text + backbone.turns.closing), text


def test_the_engine_feeds_contexts_as_they_were_trained(backbone, monkeypatch):
    """Review after a worked solution: the context is task, prompt, output, prompt, exactly as in a trace."""
    seen, original = [], Batch.join

    def spy(self, requests, keep_logits=False):
        flights = original(self, requests, keep_logits)
        seen.extend(
            (r.op, [*r.context.tokens, *r.pending, *r.prompt], flight.reply)
            for r, flight in zip(requests, flights, strict=True)
        )
        return flights

    monkeypatch.setattr(Batch, "join", spy)
    library = load_operations(CONF / "operations")
    workflow = load_workflows(CONF / "workflows", library)["cot_review_revise"]
    (example,) = build_benchmark(BenchmarkConfig(name="mini-gsm8k")).examples("test", 1)
    list(Executor(backbone, library, KVConfig("stateful"), EngineConfig()).run([example.task], lambda a: [workflow]))
    (_, first, reply), (_, second, _) = seen[:2]
    turns, prompts = backbone.turns, {op.name: op.prompt for op in library.operations.values()}
    task, cot = turns.write_task(example.task.text), turns.write_operation(prompts["generate_cot"])
    draft = backbone.decode(reply.outputs[0])
    assert first == backbone.encode(task + cot)
    assert second == backbone.encode(task + cot + draft + turns.closing + turns.write_operation(prompts["review"]))


@pytest.mark.skipif(bool(bubblewrap_problem("bwrap")), reason="programs need bubblewrap")
@pytest.mark.parametrize("backbone", SOLVING, indirect=True, scope="module")
@pytest.mark.parametrize(("kind", "workflow"), [("math", "program_run"), ("humaneval", "code")])
def test_it_solves_a_good_part_of_what_it_was_trained_for(backbone, kind, workflow):
    library = load_operations(CONF / "operations")
    chosen = load_workflows(CONF / "workflows", library)[workflow]
    benchmark = build_benchmark(BenchmarkConfig(name=f"mini-{kind}"))
    examples = benchmark.examples("test", 24)
    executor = Executor(backbone, library, KVConfig("stateful"), EngineConfig(concurrency=24))
    episodes = {e.task_id: e for e in executor.run([e.task for e in examples], lambda a: [chosen] * len(a))}
    scores = benchmark.score_many(examples, [episodes[e.task.id].answer for e in examples])
    assert sum(scores) / len(scores) >= 0.4
