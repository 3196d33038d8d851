"""Every way to keep state, served through workflows: exact where it says so, visibly lossy where it is."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphflow.engine.episode import Task
from graphflow.engine.executor import EngineConfig, Executor
from graphflow.engine.opening import NEUTRAL
from graphflow.kv import KVConfig
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Step, Workflow
from tests.engine.serving import CHAIN, FORKS, LIBRARY, TASKS, logit_errors, outputs, serve, steps
from tests.tiny import tiny_backbone

PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
WHOLE = {"value_bits": 32, "density": 1.0, "dynamic_density": 1.0}
KEEP_ALL = {"mode": "no_pruning", "scope": "path", "min_observations": 1, "exact_head": 0, "exact_rows": 0.0, **WHOLE}
EXACT = {
    "prefix": KVConfig("prefix"),
    "operation_first": KVConfig("operation_first"),
    "prefix, text kept whole by a codec": KVConfig("prefix", dynamic_codec="sparse", **WHOLE),
    "stateful, text kept whole": KVConfig("stateful", dynamic_codec="dense", **WHOLE),
    "stateful, text of full rank": KVConfig("stateful", dynamic_codec="low_rank", **WHOLE),
    "stateful, all rows of text": KVConfig("stateful", dynamic_codec="rows", **WHOLE),
    "blend, everything again": KVConfig("blend", rerun=1.0),
    "blend, cold": KVConfig("blend", min_observations=1000),
    "request, mean shift": KVConfig("differential", "request", codec="mean_shift", **WHOLE),
    "request, saliency and waterfill": KVConfig(
        "differential", "request", saliency="queries", allocate="waterfill", min_observations=2, **WHOLE
    ),
    "request, base after a task": KVConfig("differential", "request", base_anchor="neutral", **WHOLE),
}


@pytest.mark.parametrize("name", EXACT)
def test_settings_that_keep_everything_reproduce_stand_alone_runs(name):
    with logit_errors() as errors:
        serve(tiny_backbone(), FORKS, EXACT[name])
    assert len(errors) > 20 and max(errors) < 1e-4


WORDS = "one two three nine five a c".split()


@st.composite
def workflows(draw):
    """Up to five calls: chains, forks, joins, samples and selections of any inputs."""
    made = []
    for index in range(draw(st.integers(1, 5))):
        ids = ["task", *(step.id for step in made)]
        op = draw(st.sampled_from(["write", "check", "fix", "ensemble_select"] if made else ["write", "check", "fix"]))
        many = draw(st.integers(1, 3)) if made else 1
        inputs = tuple(dict.fromkeys(draw(st.sampled_from(ids[1:] or ids)) for _ in range(many)))
        samples = draw(st.sampled_from([1, 1, 2])) if op != "ensemble_select" else 1
        made.append(Step(f"s{index}", op, inputs if made else ("task",), samples))
    return Workflow("drawn", ("gsm8k",), tuple(made), made[-1].id)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    workflow=workflows(),
    mode=st.sampled_from([*EXACT.values(), KVConfig("stateful")]),
    family=st.sampled_from(["qwen2", "llama", "gemma2"]),
    words=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    prompts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), min_size=4, max_size=4),
    batch=st.integers(1, 8),
    shared=st.booleans(),
)
def test_random_workflows_prompts_and_lengths_are_exact(workflow, mode, family, words, prompts, batch, shared):
    backbone = tiny_backbone(family, shared=shared)
    tasks = [Task(f"t{index}", "tiny", "gsm8k", " ".join((WORDS * 6)[:count])) for index, count in enumerate(words)]
    said = dict(zip(("write", "check", "fix", "ensemble_select"), map(" ".join, prompts), strict=True))
    library = Library([replace(op, prompt=said.get(op.name, op.prompt)) for op in LIBRARY.values()])
    with logit_errors() as errors:
        serve(backbone, workflow, mode, tasks=tasks, library=library, max_batch=batch, concurrency=2)
    assert errors and max(errors) < 1e-4


@pytest.mark.parametrize(("bits", "mode"), [(8, "stateful_int8"), (4, "stateful_int4")])
def test_quantised_prompts_take_the_bytes_of_their_codes_and_scales(bits, mode):
    """A token of 8 channels is one group of keys and one of values, 4 bytes each: nothing here has 16 tokens."""
    one = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")
    (episode,), _ = serve(tiny_backbone(), one, KVConfig(mode, dynamic_codec=f"int{bits}"), tasks=TASKS[:1])

    def size(tokens):
        return 4 * 2 * 2 * 8 * tokens * bits // 8 + 4 * 4 * 2 * (tokens + tokens)

    assert episode.op_bytes == size(9)
    assert episode.dynamic_bytes == size(5) + size(episode.steps[-1].output_tokens - 1)
    plain, _ = serve(tiny_backbone(), one, KVConfig(mode), tasks=TASKS[:1])
    assert plain[0].dynamic_bytes == (5 + episode.steps[-1].output_tokens - 1) * PER_TOKEN


def test_what_quantisation_loses_shows_in_later_steps():
    backbone = tiny_backbone()

    def loss(mode, codec):
        episodes, _ = serve(backbone, CHAIN, KVConfig(mode, dynamic_codec=codec))
        return sum(record.kl for record in steps(episodes))

    exact, eight, four = loss("stateful", "none"), loss("stateful_int8", "int8"), loss("stateful_int4", "int4")
    assert exact < 1e-6 < eight < four
    assert 1e-6 < loss("stateful", "int4") < four, "text alone loses less than text and prompts"
    assert loss("prefix", "int4") > 1e-6 and loss("operation_first", "int4") > 1e-6


def test_text_in_a_tree_is_counted_as_it_is_encoded():
    episodes, executor = serve(tiny_backbone(), CHAIN, KVConfig("prefix", dynamic_codec="int8"))
    held = executor.store_bytes()
    assert held.prompts == sum(e.op_bytes for e in episodes)
    assert held.text == sum(e.dynamic_bytes for e in episodes)
    plain, _ = serve(tiny_backbone(), CHAIN, KVConfig("prefix"))
    assert held.text < 0.6 * sum(e.dynamic_bytes for e in plain)


def test_blend_without_tokens_is_stateless_and_with_some_is_between():
    backbone = tiny_backbone()

    def serve_twice(kv):
        executor = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32", fidelity=9))
        list(executor.run(TASKS, lambda arriving: [CHAIN] * len(arriving)))
        return sorted(executor.run(TASKS, lambda arriving: [CHAIN] * len(arriving)), key=lambda e: e.task_id)

    stateless = serve_twice(KVConfig("stateless", exact_head=1))
    none = serve_twice(KVConfig("blend", exact_head=1, rerun=0.0))
    half = serve_twice(KVConfig("blend", exact_head=1, rerun=0.5, min_observations=2))
    assert outputs(none) == outputs(stateless)
    assert sum(r.kl for r in steps(half)) < sum(r.kl for r in steps(none))
    first = next(record for record in half[0].steps if record.step == "write")
    # <|op|> seven words <|out|>: of the seven in the middle, 3.5 rounded up run again
    assert (first.operation_tokens, first.operation_reused, first.fallback) == (9, 3, False)
    assert first.prefill_tokens == 6


def test_rows_of_a_path_that_run_again():
    """They are the same rows whatever the workspace holds, bring the rest nearer, and cost nothing in exactness."""
    backbone = tiny_backbone()

    def serve_twice(tasks=TASKS, **settings):
        kv = KVConfig(**{"mode": "no_pruning", "exact_head": 1, "min_observations": 2, **settings})
        executor = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32", fidelity=9))
        list(executor.run(tasks, lambda arriving: [CHAIN] * len(arriving)))
        return sorted(executor.run(tasks, lambda arriving: [CHAIN] * len(arriving)), key=lambda e: e.task_id)

    none, half = serve_twice(), serve_twice(exact_rows=0.5)
    assert sum(r.kl for r in steps(half)) < sum(r.kl for r in steps(none))
    first = next(record for record in half[0].steps if record.step == "write")
    assert (first.operation_tokens, first.operation_reused, first.fallback) == (9, 3, False)
    assert half[0].op_bytes > none[0].op_bytes
    for attention in ("dense", "shared", "residual"):
        backbone = tiny_backbone(attention=attention)
        assert outputs(serve_twice(exact_rows=0.5, workspace_items=0)) == outputs(half)
    alone = serve_twice(TASKS[:1], **{**KEEP_ALL, "exact_rows": 0.5})
    assert max(record.kl for record in steps(alone)) < 1e-5
    assert any(record.operation_reused for record in steps(alone))


@pytest.mark.parametrize("control", ["zero", "other_path", "other_operation", "other_request"])
def test_controls_do_worse_than_the_right_residual(control):
    """One request observed and kept whole, then served again: its own residual is exact, any other is not."""
    backbone = tiny_backbone()

    def loss(control):
        kv = KVConfig(**KEEP_ALL, control=control)
        executor = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32", fidelity=9, concurrency=1))
        rest = TASKS[1:2] if control == "other_request" else []
        for tasks in (rest, TASKS[2:3]):
            episodes = list(executor.run(tasks, lambda arriving: [CHAIN] * len(arriving)))
        episodes = list(executor.run(TASKS[2:3], lambda arriving: [CHAIN] * len(arriving)))
        served = [record for record in steps(episodes) if not record.fallback]
        assert served
        return sum(record.kl for record in served) / len(served)

    right = loss("none")
    assert right < 1e-5
    assert loss(control) > 1e-3


@pytest.mark.parametrize("anchor", ["none", "bos", "neutral"])
def test_a_base_is_the_prompt_after_its_anchor(anchor):
    backbone = tiny_backbone()
    kv = KVConfig("stateless", exact_head=0, base_anchor=anchor)
    executor = Executor(backbone, LIBRARY, kv, EngineConfig(kv_dtype="float32"))
    turns, prompt = backbone.turns, executor.prompts["write"]
    before = {"none": [], "bos": backbone.encode(turns.bos), "neutral": backbone.encode(turns.write_task(NEUTRAL))}
    (context,) = executor.decoder.prefill([(*before[anchor], *prompt)])
    start = len(before[anchor])
    want = context.pieces[0][0].slice(start, start + len(prompt) - 1, backbone.rope).kv
    piece = executor.store.plan("write", ()).shared
    assert piece is not None and (piece.tensor() - want).abs().max() < 1e-5


def test_transitions_that_are_not_allowed_are_served_exactly_and_not_learned():
    kv = KVConfig("no_pruning", min_observations=1)
    allowed = {("write", ())}
    executor = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig(), allowed=allowed)
    for _ in range(2):
        (episode,) = executor.run(TASKS[:1], lambda arriving: [CHAIN])
    assert [record.fallback for record in episode.steps[1:]] == [False, True, True, True]
    assert executor.store.materialised == allowed


def test_a_store_is_saved_after_a_run_and_loaded_by_the_next(tmp_path):
    kv = KVConfig("no_pruning", min_observations=1, store=str(tmp_path / "store"))
    first = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig())
    (cold,) = first.run(TASKS[:1], lambda arriving: [CHAIN])
    second = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig())
    assert second.store.materialised == first.store.materialised != frozenset()
    (warm,) = second.run(TASKS[:1], lambda arriving: [CHAIN])
    assert (cold.total("fallback"), warm.total("fallback")) == (4, 0)


def test_saliency_is_gathered_from_exact_runs_before_anything_is_encoded():
    kv = KVConfig("no_pruning", saliency="queries", allocate="waterfill", min_observations=1, density=0.3)
    executor = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig(concurrency=1))
    (first,) = executor.run(TASKS[:1], lambda arriving: [CHAIN])
    # ``check`` runs twice on two paths: the weights of its first run serve the second
    assert executor.store.materialised == {("check", ("write", "check", "fix"))}
    assert all(executor.store.weighed(op) for op in ("write", "check", "fix"))
    (second,) = executor.run(TASKS[1:2], lambda arriving: [CHAIN])
    assert len(executor.store.materialised) == 4
    plain = Executor(tiny_backbone(), LIBRARY, KVConfig("no_pruning", density=0.3, min_observations=1), EngineConfig())
    list(plain.run(TASKS[:1], lambda arriving: [CHAIN]))
    slack = 4 * 4 * 2 * 4  # counts of layers and sides, four residuals
    assert executor.store_bytes().residual <= plain.store_bytes().residual + slack
