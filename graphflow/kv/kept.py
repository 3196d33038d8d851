"""How KV is kept: the codec of residuals, of requests' text and of their prompts; None keeps it as it is."""

from __future__ import annotations

import torch

from graphflow.kv.codecs import Codec, Density, IntegerCodec, build_codec
from graphflow.kv.modes import Allocation, KVConfig, StateMode
from graphflow.kv.waterfill import Waterfill

INTEGERS = {f"int{bits}": IntegerCodec(bits, run=128, short=16) for bits in (8, 4)}
"""Integer codecs of KV itself, where keys are at position 0: their channels keep their range over many tokens."""


def residual_codec(config: KVConfig, dtype: torch.dtype) -> Codec:
    """The codec of residuals, of KV kept in ``dtype``."""

    def build(density: Density) -> Codec:
        return build_codec(config.codec, density, config.value_bits, dtype)

    if config.allocate is Allocation.WATERFILL:
        return Waterfill(build, config.density, config.codec == "mean_shift", config.max_error)
    return build(config.density)


def dynamic_codec(config: KVConfig, dtype: torch.dtype) -> Codec | None:
    """The codec of what requests keep of their own: text, and the tokens of prompts that ran in modes with bases."""
    if config.dynamic_codec == "none":
        return None
    if config.dynamic_codec in INTEGERS:
        return INTEGERS[config.dynamic_codec]
    return build_codec(config.dynamic_codec, config.dynamic_density, config.value_bits, dtype)


def prompt_codec(config: KVConfig, dtype: torch.dtype) -> Codec | None:
    """The codec of prompts, or of their tokens, that a request keeps for itself."""
    match config.mode:
        case StateMode.STATEFUL_INT8:
            return INTEGERS["int8"]
        case StateMode.STATEFUL_INT4:
            return INTEGERS["int4"]
        case _:
            return dynamic_codec(config, dtype) if config.has_bases else None
