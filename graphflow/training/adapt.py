"""Reuse-aware adaptation: a trained backbone learns to read operation prompts that did not see what stands before them.

An operation's shared base is its prompt's state without any prefix. In a share of the training documents prompts are
blocked in the same way, but for their last token (Block-Attention, Ma et al., 2024, and KVLink, Yang et al., 2025, do
it for retrieved passages; for prompts of operations it is our choice). With a share of 0 the same run is the control
that tells the effect of blocking from that of longer training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from graphflow.backbone.checksums import write_checksums
from graphflow.backbone.compat import attention_for
from graphflow.backbone.load import Backbone
from graphflow.backbone.packing import Rows
from graphflow.kv import KVConfig, StateMode
from graphflow.training.attention import NAME as PACKED
from graphflow.training.loop import Probe, Training
from graphflow.training.lora import Lora, LoraTraining, attach, merged
from graphflow.training.probe import suite_probe
from graphflow.training.recipe import Recipe
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow

# Full prompts and the suite's passages from the first step; the seed is not the minis' own, so the traces are new.
GROWN = {"repeat_share": 0.0, "short_share": 0.0, "whole_share": 1.0, "growth_share": 0.0, "drill_from": 0.0}
COMMON: dict[str, Any] = {"tokens": 4_000_000, "blocked": 0.5, "seed": 1, **GROWN}
COMMON |= {"short_length": 0, "decay_share": 1.0}
FULL = {"muon_lr": 0.002, "adam_lr": 0.0006}
LORA = {"muon_lr": 0.0, "adam_lr": 0.0003, "text_weight": 0.0}


def adaptation_recipe(backbone: Backbone, lora: Lora | None = None, **settings: Any) -> Recipe:
    """The recipe of an adaptation; what describes the model is read from it.

    Args:
        backbone: The backbone to go on from.
        lora: Settings of the adapter; None: all weights are trained.
        **settings: Fields of `Recipe` that differ from the defaults here; the name is made where it is not given.

    Raises:
        ValueError: If a value is outside its range.
    """
    config: Any = backbone.model.config
    recipe: dict[str, Any] = COMMON | (LORA if lora else FULL) | settings
    recipe.setdefault("name", f"{backbone.name}-{'reuse' if recipe['blocked'] else 'longer'}")
    return Recipe(
        **recipe,
        architecture=config.model_type,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
    )


def adapt(
    backbone: Backbone,
    recipe: Recipe,
    out: Path,
    batches: Dataset[Rows],
    lora: Lora | None = None,
    resume: bool = True,
    provenance: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Goes on training a backbone; ``out`` then holds the adapted one, or its adapter, and ``training.json``.

    Args:
        backbone: What to go on from; its model is changed in place.
        recipe: What decides the weights.
        out: Folder of the result.
        batches: Batch number i for every step i.
        lora: Settings of the adapter; None: all weights are trained.
        resume: Go on from the checkpoint in ``out`` if there is one.
        provenance: What the record says beside the recipe and the backbone that it continued from.
        **options: Of `graphflow.training.loop.Training`: probe, probes, compiled.

    Raises:
        ValueError: If all weights are to be trained and are not float32.
    """
    origin = {"name": backbone.name, "fingerprint": backbone.fingerprint}
    objective = "distillation" if lora and lora.distill else "cross-entropy"
    record = {**(provenance or {}), "continued_from": origin, "objective": objective}
    model: Any = backbone.model.train()
    model.set_attn_implementation(PACKED if backbone.device.type == "cpu" else attention_for(model.config))
    if lora is None:
        if backbone.dtype != torch.float32:
            raise ValueError(f"backbone.dtype must be float32 where all weights are trained, got {backbone.dtype}")
        Training(recipe, out, record, **options).run(model, backbone.tokenizer, batches, resume)
        return
    adapter = attach(backbone, lora.rank, recipe.seed)
    training = LoraTraining(recipe, out, record, adapter=adapter, lora=lora, **options)
    training.run(model, backbone.tokenizer, batches, resume)
    if lora.merge:
        merged(adapter).save_pretrained(out)
        write_checksums(out)


def reuse_probe(backbone: Backbone, library: Library, workflows: dict[str, Workflow], tasks: int = 40) -> Probe:
    """A probe that measures the suite twice: with exact operation state, and served from the base alone.

    Args:
        backbone: Whose tokenizer and turn format are used.
        library: Operations.
        workflows: Workflows by name.
        tasks: Validation tasks a benchmark.

    Returns:
        A function of model and step that gives the mean score by mode and benchmark.
    """
    states = {
        mode.value: KVConfig(mode, exact_head=0, exact_tail=1) for mode in (StateMode.STATEFUL, StateMode.STATELESS)
    }
    probes = {
        name: suite_probe(backbone.tokenizer, library, workflows, tasks, state, backbone.turns)
        for name, state in states.items()
    }

    def probe(model: Any, step: int) -> dict[str, float]:
        return {f"{name}/{kind}": score for name, one in probes.items() for kind, score in one(model, step).items()}

    return probe
