"""Serving with shared attention: the same logits, outputs and records as with dense contexts, and less held at once."""

from dataclasses import replace

import pytest
import torch

from graphflow.backbone.load import BackboneConfig
from graphflow.kv import KVConfig, StateMode
from tests.engine.serving import CHAIN, FORKS, JOIN, TASKS, serve, steps
from tests.tiny import FAMILIES, tiny_backbone

MODES = {mode.value: KVConfig(mode, min_observations=1, exact_head=1) for mode in StateMode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("workflow", "family"), zip([CHAIN, FORKS, JOIN], FAMILIES, strict=True), ids=FAMILIES)
def test_every_mode_serves_as_with_dense_contexts(workflow, family, mode):
    served = [serve(tiny_backbone(family, shared=shared), workflow, MODES[mode])[0] for shared in (False, True)]
    for dense, shared in zip(*served, strict=True):
        assert (dense.answer, dense.op_bytes, dense.dynamic_bytes) == (
            shared.answer,
            shared.op_bytes,
            shared.dynamic_bytes,
        )
        assert [step.prefill_tokens for step in dense.steps] == [step.prefill_tokens for step in shared.steps]
    kept = [[step.kl for step in steps(episodes)] for episodes in served]
    assert len(kept[0]) == len(kept[1]) > 3
    torch.testing.assert_close(*map(torch.tensor, kept), rtol=1e-3, atol=1e-6)


def test_less_is_held_at_once():
    """Twelve requests behind the same prompts: dense, each row of the batch has its own copy of them."""
    tasks = [replace(task, id=f"{task.id}-{copy}") for copy in range(3) for task in TASKS]
    kv = KVConfig("stateless", exact_head=0)
    dense, shared = (
        serve(tiny_backbone(shared=shared), CHAIN, kv, tasks=tasks, concurrency=12, fidelity=0)[1].peak_bytes
        for shared in (False, True)
    )
    assert shared < 0.9 * dense  # contexts of live tasks are in both


def test_an_attention_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="backbone.attention must be one of dense, shared, got 'paged'"):
        BackboneConfig(attention="paged")
