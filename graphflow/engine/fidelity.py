"""Fidelity: how far the state in use is from exact state, on the very same tokens (definition: our choice)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphflow.backbone.load import Backbone
from graphflow.kv.accounting import tensor_bytes


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


Exact = Callable[[Backbone, Sequence[int], int], Tensor]
"""As `exact_logits`."""


class Remembered:
    """`exact_logits` that knows what it has computed: many settings are compared on the same contexts.

    Args:
        nbytes: Bytes of logits that are kept at most; those that were read least recently go.
    """

    def __init__(self, nbytes: int = 2**30) -> None:
        self._limit, self._held = nbytes, 0
        self._found: OrderedDict[tuple[str, tuple[int, ...], int], Tensor] = OrderedDict()

    def __call__(self, backbone: Backbone, tokens: Sequence[int], last: int) -> Tensor:
        """See `exact_logits`."""
        key = (f"{backbone.fingerprint} {backbone.dtype}", tuple(tokens), last)
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        made = self._found[key] = exact_logits(backbone, tokens, last)
        self._held += tensor_bytes(made)
        while self._held > self._limit and len(self._found) > 1:
            _, gone = self._found.popitem(last=False)
            self._held -= tensor_bytes(gone)
        return made


def compare(
    backbone: Backbone, context: Sequence[int], output: Sequence[int], used: Tensor, exact: Exact = exact_logits
) -> tuple[float, bool]:
    """KL divergence of the distributions in use from the exact ones, and agreement of the greedy outputs.

    Args:
        backbone: The model.
        context: All tokens before the output.
        output: The output's tokens.
        used: Logits that the output was chosen from, float32 (len(output), vocabulary).
        exact: Gives exact logits.

    Returns:
        Mean KL(exact || used) in nats over the output's positions, and whether the likeliest token is the same at each.
    """
    logits = exact(backbone, [*context, *output[:-1]], len(output))
    p, q = logits.log_softmax(-1), used.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).mean()
    return float(divergence), bool((logits.argmax(-1) == used.argmax(-1)).all())
