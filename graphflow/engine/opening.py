"""Opens the store and the memory that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from graphflow.backbone.gate import check_frame
from graphflow.backbone.load import Backbone
from graphflow.engine.decode import Decoder
from graphflow.engine.memory import Memory, SegmentMemory
from graphflow.engine.sharing import OperationFirstMemory, TreeMemory
from graphflow.kv import Allowed, Anchor, KVConfig, OperationStore, StateMode, is_store
from graphflow.kv.files import Folder

NEUTRAL = "Read what follows and do what it says."
"""Text of the task that stands before a prompt while a neutral base is computed."""


def open_store(
    kv: KVConfig, backbone: Backbone, kept: torch.dtype, prompts: Mapping[str, str], allowed: Allowed | None
) -> OperationStore:
    """The store at ``kv.store`` if there is one, or an empty one.

    Args:
        kv: Settings.
        backbone: The model.
        kept: Dtype in which KV is kept.
        prompts: Text of every operation's prompt.
        allowed: Transitions that may be stored; None for all.

    Raises:
        StoreMismatchError: What is there belongs to something else.
        StoreFormatError: What is there is damaged.
        ValueError: Nothing is there, and nothing can be saved there either.
    """
    shape = backbone.shape(kept)
    if kv.store and is_store(kv.store):
        ids = {name: backbone.encode(backbone.turns.write_operation(text)) for name, text in prompts.items()}
        where = backbone.device
        return OperationStore.load(kv.store, backbone.rope, shape, backbone.identity, kv, ids, allowed, device=where)
    if kv.store:  # found now: when tasks have been served it is too late
        try:
            Folder(kv.store).prepare()
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"kv.store must be a folder that can be written, got {kv.store!r}: {reason}") from error
    return OperationStore(kv, backbone.rope, shape, allowed, backbone.identity)


def open_memory(backbone: Backbone, store: OperationStore, decoder: Decoder, prompts: Mapping[str, str]) -> Memory:
    """The memory of the store's mode; every operation has its base in the store afterwards, where the mode has bases.

    Raises:
        UnsupportedModelError: State is to be shared and the model's keys cannot be moved.
    """
    if store.config.mode is not StateMode.STATEFUL:
        check_frame(backbone)
    match store.config.mode:
        case StateMode.PREFIX:
            return TreeMemory(backbone, store, decoder, prompts)
        case StateMode.OPERATION_FIRST:
            return OperationFirstMemory(backbone, store, decoder, prompts)
    memory = SegmentMemory(backbone, store, decoder, prompts)
    if store.config.has_bases:
        before = _anchor(backbone, store.config.base_anchor)
        for name, prompt in memory.prompts.items():
            if name not in store:
                store.add_base(name, prompt, decoder.bare(prompt, before))
    return memory


def _anchor(backbone: Backbone, anchor: Anchor) -> list[int]:
    """Token ids of what stands before a prompt while its base is computed."""
    match anchor:
        case Anchor.BOS:
            return backbone.encode(backbone.turns.bos)
        case Anchor.NEUTRAL:
            return backbone.encode(backbone.turns.write_task(NEUTRAL))
        case Anchor.NONE:
            return []
