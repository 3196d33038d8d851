"""Fidelity: how far the state in use is from exact state, on the very same tokens (definition: our choice)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from graphflow.backbone.load import Backbone


def exact_logits(backbone: Backbone, tokens: Sequence[int], last: int) -> Tensor:
    """Next-token logits of a plain forward pass over all tokens, no stored state.

    Args:
        backbone: The model.
        tokens: The whole context and the output without its last token, (T,).
        last: How many positions to give, from the end.

    Returns:
        float32 (last, vocabulary).
    """
    cache = backbone.batch([()], backbone.shape(backbone.dtype))
    ids = torch.tensor([list(tokens)], device=backbone.device)
    hidden = backbone.forward(ids, torch.arange(len(tokens), device=backbone.device)[None], cache)
    return backbone.logits(hidden[0, -last:]).cpu()


def compare(backbone: Backbone, context: Sequence[int], output: Sequence[int], used: Tensor) -> tuple[float, bool]:
    """KL divergence of the distributions in use from the exact ones, and agreement of the greedy outputs.

    Args:
        backbone: The model.
        context: All tokens before the output.
        output: The output's tokens.
        used: Logits that the output was chosen from, float32 (len(output), vocabulary).

    Returns:
        Mean KL(exact || used) in nats over the output's positions, and whether the likeliest token is the same at each.
    """
    exact = exact_logits(backbone, [*context, *output[:-1]], len(output))
    p, q = exact.log_softmax(-1), used.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    return float(divergence), bool((exact.argmax(-1) == used.argmax(-1)).all())
