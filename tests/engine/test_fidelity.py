"""Exact logits that are remembered."""

import torch

from graphflow.engine import fidelity
from graphflow.engine.fidelity import Remembered, exact_logits
from tests.tiny import tiny_backbone


def test_exact_logits_are_remembered_within_their_bytes(monkeypatch):
    ran = []
    monkeypatch.setattr(fidelity, "exact_logits", lambda *args: ran.append(args[1]) or exact_logits(*args))
    backbone, other = tiny_backbone(), tiny_backbone("llama")
    vocabulary = exact_logits(backbone, [1, 2, 3], 2).shape[1]
    exact = Remembered(nbytes=2 * 2 * vocabulary * 4)
    first = exact(backbone, [1, 2, 3], 2)
    assert torch.equal(first, exact_logits(backbone, [1, 2, 3], 2)) and exact(backbone, [1, 2, 3], 2) is first
    assert not torch.equal(exact(other, [1, 2, 3], 2), first), "another model's are its own"
    exact(backbone, [1, 2, 3], 2)
    exact(backbone, [1, 2, 4], 2)  # lets go of the other model's, which were read least recently
    exact(backbone, [1, 2, 3], 2)
    assert len(ran) == 3
    exact(other, [1, 2, 3], 2)
    assert len(ran) == 4
