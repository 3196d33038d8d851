"""The gate of every backbone: keys that are moved must be those that the model would have computed in place.

Keys and values of layer 0 depend on no other token, so a chunk prefilled alone and moved behind a prefix must agree to
rounding with the same chunk prefilled behind it. A model that does not pass cannot share operation state (our choice).
"""

from __future__ import annotations

from typing import Any

import torch

from graphflow.backbone.compat import UnsupportedModelError
from graphflow.backbone.load import Backbone

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.06, torch.float16: 0.01}


def frame_error(backbone: Backbone, prefix: int = 37, chunk: int = 11) -> float:
    """Largest difference of layer-0 keys and values, moved against in place, over their largest magnitude.

    Args:
        backbone: The model.
        prefix: Tokens before the chunk.
        chunk: Tokens of the chunk.

    Returns:
        Relative error, 0 for exact arithmetic.
    """
    config: Any = backbone.model.config
    tokens = torch.randint(0, config.vocab_size, (1, prefix + chunk), generator=torch.Generator().manual_seed(0))

    def keys_and_values(ids: torch.Tensor, start: int) -> torch.Tensor:
        cache = backbone.batch([()], backbone.shape(backbone.dtype))
        positions = torch.arange(ids.shape[1], device=backbone.device)[None]
        backbone.forward(ids.to(backbone.device), positions, cache)
        return cache.take(0, start, start + chunk, start, backbone.rope, torch.float32)[0]

    inside, alone = keys_and_values(tokens, prefix), keys_and_values(tokens[:, prefix:], 0)
    return float((inside - alone).abs().max() / inside.abs().max())


def check_frame(backbone: Backbone) -> None:
    """Lets a backbone pass whose keys can be moved.

    Raises:
        UnsupportedModelError: If moved keys are not those computed in place; the message says by how much.
    """
    error, allowed = frame_error(backbone), TOLERANCE[backbone.dtype]
    if not error <= allowed:
        raise UnsupportedModelError(
            f"backbone {backbone.name!r}: keys or values of layer 0 differ by {error:.2g} of their magnitude after "
            f"moving, {allowed:g} is allowed in {backbone.dtype}; operation state of this model cannot be shared"
        )
