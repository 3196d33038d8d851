"""The executor on tiny random backbones: context rule, guards, exactness of every state mode, counting."""

import pytest
import torch

from graphflow.engine.batch import Batch
from graphflow.engine.episode import Episode
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.kv import KVConfig, OperationStore
from graphflow.wgraph.workflow import Guard, Step, Workflow
from tests.engine.serving import CHAIN, JOIN, LIBRARY, TASKS, serve, steps
from tests.tiny import FAMILIES, tiny_backbone

LOSSLESS = {
    "stateful": KVConfig("stateful"),
    "request scope, everything kept": KVConfig("differential", "request", density=1.0, value_bits=32),
    "path scope, cold": KVConfig("differential", "path", min_observations=1000),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("workflow", [CHAIN, JOIN], ids=["chain", "join"])
def test_lossless_settings_equal_the_plain_path(family, name, workflow):
    """Forks, joins, samples and ragged batches; Gemma's window is shorter than the contexts."""
    episodes, _ = serve(tiny_backbone(family), workflow, LOSSLESS[name])
    for record in steps(episodes):
        assert record.kl == pytest.approx(0, abs=1e-5), (record.step, record.kl)
        assert record.agrees


def test_stateless_and_pruned_residuals_are_not_lossless():
    """The check above can fail: approximations are seen by it."""
    backbone = tiny_backbone()
    lossy = [KVConfig("stateless"), KVConfig("differential", "request", density=0.05, value_bits=8)]
    for kv in lossy:
        episodes, _ = serve(backbone, CHAIN, kv)
        assert max(record.kl for record in steps(episodes)) > 1e-4


def test_keeping_all_of_one_request_s_residual_reproduces_it_in_path_scope():
    """One observation kept whole: the same task served again reuses the prompt's state and gives the same output."""
    kv = KVConfig("no_pruning", "path", density=1.0, value_bits=32, min_observations=1, exact_head=0)
    executor = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig(kv_dtype="float32", fidelity=1))
    first, second = (next(iter(executor.run(TASKS[1:2], lambda a: [CHAIN]))) for _ in range(2))
    assert [r.texts for r in first.steps] == [r.texts for r in second.steps]
    assert max(r.kl for r in steps([second])) == pytest.approx(0, abs=1e-5)
    assert first.total("fallback") == 4 and second.total("fallback") == 0
    assert first.total("reused_tokens") < second.total("reused_tokens")


def test_batching_does_not_change_outputs():
    backbone = tiny_backbone()
    alone, _ = serve(backbone, JOIN, KVConfig("stateful"), concurrency=1, max_batch=1)
    together, _ = serve(backbone, JOIN, KVConfig("stateful"), concurrency=4)
    assert [[r.texts for r in sorted(e.steps, key=lambda r: r.step)] for e in alone] == [
        [r.texts for r in sorted(e.steps, key=lambda r: r.step)] for e in together
    ]


def test_samples_differ_and_repeat_with_the_seed():
    backbone = tiny_backbone()
    texts = []
    for seed in (0, 0, 1):
        episodes, _ = serve(backbone, JOIN, KVConfig("stateful"), seed=seed, fidelity=0, sample_temperature=2.0)
        texts.append([r.texts for e in episodes for r in e.steps if r.step == "samples"])
    assert texts[0] == texts[1] != texts[2]
    assert any(len(set(samples)) > 1 for samples in texts[0])


def test_a_chain_sees_its_context_once_and_a_join_sees_labelled_outputs():
    backbone, seen = tiny_backbone(), []
    original = Batch.join

    def spy(self, requests, keep_logits=False):
        seen.extend(backbone.tokenizer.decode([*r.context.tokens, *r.pending]) for r in requests)
        return original(self, requests, keep_logits)

    Batch.join = spy
    try:
        serve(backbone, CHAIN, KVConfig("stateful"), tasks=TASKS[:1])
        chain = list(seen)
        seen.clear()
        episodes, _ = serve(backbone, JOIN, KVConfig("stateful"), tasks=TASKS[:1])
    finally:
        Batch.join = original
    assert chain[0].replace(" ", "") == "<|bos|><|task|>solveone<|end|>"
    for shorter, longer in zip(chain[:-1], chain[1:], strict=True):
        assert longer.startswith(shorter)
    join = seen[-1]
    assert join.count("<|given|>") == 5 and join.startswith(seen[0]), "the task, then five outputs of other branches"
    assert "<|op|>" not in join, "a join goes on from the task, before any operation"
    assert episodes[0].steps[-1].path == ()


def test_a_guard_that_does_not_hold_skips_its_step():
    """No code in the output: the program fails, so ``fix`` runs; where the guard is negated it does not."""
    for negated, ran in ((False, True), (True, False)):
        workflow = Workflow(
            "guarded",
            ("gsm8k",),
            (
                Step("write", "write", ("task",)),
                Step("run", "run_python", ("write",)),
                Step("fix", "fix", ("run",), when=Guard("run", "failed", negated)),
                Step("pick", "first_nonempty", ("fix", "write")),
            ),
            "pick",
        )
        (episode,), _ = serve(tiny_backbone(), workflow, KVConfig("stateful"), tasks=TASKS[:1])
        assert ("fix" in [r.step for r in episode.steps]) is ran
        source = next(r for r in episode.steps if r.step == ("fix" if ran else "write"))
        assert episode.answer == source.texts[0].strip() and not episode.error


def test_a_selection_hands_on_the_candidate_and_counts_an_unreadable_letter():
    workflow = Workflow(
        "select",
        ("gsm8k",),
        (Step("s", "write", ("task",), samples=3), Step("pick", "ensemble_select", ("s",))),
        "pick",
    )
    (episode,), _ = serve(tiny_backbone(), workflow, KVConfig("stateful"), tasks=TASKS[:1])
    samples = next(r for r in episode.steps if r.step == "s").texts
    assert episode.answer in [text.strip() for text in samples]
    assert next(r for r in episode.steps if r.step == "pick").parse_fallbacks == 1, "words are no letters"


def test_tokens_and_bytes_are_counted_by_hand():
    """One step on one task: segments and bytes worked out from the word tokenizer."""
    workflow = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")
    per_token = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
    (episode,), executor = serve(tiny_backbone(), workflow, KVConfig("stateful"), tasks=TASKS[:1], fidelity=0)
    task, call = episode.steps
    assert task.prefill_tokens == 5  # <|bos|> <|task|> solve one <|end|>
    assert (call.prefill_tokens, call.reused_tokens) == (9, 5)  # <|op|> seven words <|out|>; the task
    assert episode.op_bytes == 9 * per_token
    assert episode.dynamic_bytes == (5 + call.output_tokens - 1) * per_token  # the last output token has no KV
    assert executor.store_bytes().total == executor.store.paths.nbytes
    assert episode.llm_calls == 1 and executor.peak_bytes >= episode.op_bytes + episode.dynamic_bytes
    (stateless,), executor = serve(
        tiny_backbone(), workflow, KVConfig("stateless", exact_head=1), tasks=TASKS[:1], fidelity=0
    )
    assert stateless.steps[1].prefill_tokens == 2 and stateless.steps[1].reused_tokens == 12
    assert stateless.op_bytes == 2 * per_token  # its own first and last token of the prompt
    cores = sum(len(prompt) - 2 for prompt in executor.prompts.values())
    assert executor.store_bytes().base == cores * per_token


def test_an_episode_survives_json():
    (episode,), _ = serve(tiny_backbone(), CHAIN, KVConfig("stateful"), tasks=TASKS[:1])
    assert Episode.from_dict(episode.to_dict()) == episode


@pytest.mark.parametrize(
    ("field", "value"),
    [("concurrency", 0), ("max_batch", 0), ("kv_dtype", "int3"), ("sample_temperature", 0.0), ("fidelity", -1)],
)
def test_engine_settings_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"engine.{field} must be .*{value}"):
        EngineConfig(**{field: value})


def test_the_store_is_asked_in_the_dtype_that_is_kept():
    executor = Executor(tiny_backbone(), LIBRARY, KVConfig("stateless"), EngineConfig(kv_dtype="bfloat16"))
    assert isinstance(executor.store, OperationStore) and executor.store.shape.dtype is torch.bfloat16
