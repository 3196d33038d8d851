"""Serving with shared attention: the same logits, outputs and records as with dense contexts, and less held at once."""

from dataclasses import replace

import pytest
import torch

from graphflow.backbone.load import BackboneConfig
from graphflow.kv import EncodedSegment, KVConfig, StateMode
from tests.engine.serving import CHAIN, FORKS, JOIN, TASKS, serve, steps
from tests.tiny import FAMILIES, tiny_backbone

MODES = {mode.value: KVConfig(mode, min_observations=1, exact_head=1) for mode in StateMode}
RESIDUALS = ("stateless", "differential", "no_pruning", "request")
MODES["request"] = KVConfig("differential", scope="request", min_observations=1)


@pytest.mark.parametrize(
    ("mode", "attention"), [*((mode, "shared") for mode in MODES), *((mode, "residual") for mode in RESIDUALS)]
)
@pytest.mark.parametrize(("workflow", "family"), zip([CHAIN, FORKS, JOIN], FAMILIES, strict=True), ids=FAMILIES)
def test_every_mode_serves_as_with_dense_contexts(workflow, family, mode, attention):
    stored = {"workspace_items": 0} if attention == "residual" else {}
    served = [
        serve(tiny_backbone(family, attention=name), workflow, replace(MODES[mode], **settings))[0]
        for name, settings in (("dense", {}), (attention, stored))
    ]
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


def test_paths_that_are_read_as_they_are_stored_are_not_decoded(monkeypatch):
    """With a workspace they are decoded there, and counted. Some of their tokens run again, as by default."""
    decoded = []
    tensor = EncodedSegment.tensor
    monkeypatch.setattr(EncodedSegment, "tensor", lambda self: decoded.append(self) or tensor(self))
    kv = KVConfig("no_pruning", min_observations=1, exact_head=1)
    held = {}
    for items in (256, 0):
        backbone = tiny_backbone(attention="residual")
        episodes, executor = serve(backbone, CHAIN, replace(kv, workspace_items=items), fidelity=0, concurrency=1)
        held[items] = executor.store_bytes()
        assert any(step.operation_reused for episode in episodes for step in episode.steps)
        assert executor.store.config.exact_rows > 0 and not decoded
    assert held[256].workspace > 0 == held[0].workspace
    assert held[256].residual == held[0].residual > 0


def test_an_attention_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="backbone.attention must be one of dense, shared, residual, got 'paged'"):
        BackboneConfig(attention="paged")
