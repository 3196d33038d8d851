"""The only module that touches the parts of transformers which move between versions.

Everything here is covered by a contract test that fails with a sentence when a new version moves it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphflow.kv.rope import Rope, check_rope_type

# How a family's forward takes ready-made attention masks: one tensor, or one tensor for each kind of layer.
MASK_BY_LAYER_TYPE = {"qwen2": True, "qwen3": True, "gemma2": True, "llama": False, "mistral": False}


class UnsupportedModelError(ValueError):
    """A model whose operation state cannot be moved, or whose family is not known here."""


def check_family(config: Any) -> None:
    """Raises `UnsupportedModelError` unless the family is known here and its masks say which of its layers slide."""
    if config.model_type not in MASK_BY_LAYER_TYPE:
        raise UnsupportedModelError(
            f"backbone: model_type must be one of {', '.join(MASK_BY_LAYER_TYPE)}, got {config.model_type!r}"
        )
    if not MASK_BY_LAYER_TYPE[config.model_type] and getattr(config, "sliding_window", None):
        raise UnsupportedModelError(
            f"backbone: sliding_window must be null for model_type {config.model_type!r}, whose layers would all "
            f"slide, got {config.sliding_window}"
        )


def attention_for(config: Any) -> str:
    """Attention of transformers to load a model with: PyTorch's fused one does not soft-cap scores, so not there."""
    return "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"


def rope_of(model: nn.Module) -> Rope:
    """The rotary frequencies of a model.

    Raises:
        UnsupportedRopeError: If they depend on the context's length.
    """
    embedding: Any = model.model.rotary_emb  # type: ignore[union-attr]
    check_rope_type(getattr(embedding, "rope_type", "default"))
    return Rope(embedding.inv_freq.detach().float().cpu().clone())


def sliding_window(config: Any) -> int | None:
    """Window of the sliding layers in tokens; None where the model has none."""
    types = getattr(config, "layer_types", None) or []
    return config.sliding_window if "sliding_attention" in types else None


def masks_for(config: Any, visible: Tensor, distance: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Additive attention masks in the form that the model's forward takes.

    Args:
        config: The model's configuration.
        visible: Bool (batch, queries, keys): which key a query may see, positions considered.
        distance: int64, the same shape: query position minus key position.
        dtype: Dtype of the model.

    Returns:
        Float (batch, 1, queries, keys), or a dict of them by kind of layer.
    """

    def additive(allowed: Tensor) -> Tensor:
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]

    full = additive(visible)
    if not MASK_BY_LAYER_TYPE[config.model_type]:
        return full
    window = sliding_window(config)
    return {"full_attention": full} | ({"sliding_attention": additive(visible & (distance < window))} if window else {})


def body(model: nn.Module) -> nn.Module:
    """The model without its head: hidden states only."""
    return model.model  # type: ignore[return-value]


def logits_of(model: nn.Module, hidden: Tensor) -> Tensor:
    """Next-token logits in float32, final soft-capping included.

    Args:
        model: The causal language model.
        hidden: (..., hidden) final hidden states.

    Returns:
        (..., vocabulary) float32.
    """
    logits = model.lm_head(hidden).float()  # type: ignore[operator]
    cap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits
