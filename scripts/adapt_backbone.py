"""Adapts a trained backbone to shared operation state: deterministic by seed, resumable.

    python scripts/adapt_backbone.py --backbone qwen-mini --name qwen-mini-reuse --out runs/qwen-mini-reuse
    python scripts/adapt_backbone.py --backbone qwen-mini --blocked 0           # the control: qwen-mini-longer
    python scripts/adapt_backbone.py --backbone qwen-mini --name qwen-mini-planner --blocked 0 --lessons 0.5 \
        --short-share 0.75 --whole-share 0.1 --short-length 1024 --length 2048 --tokens 6000000
    python scripts/adapt_backbone.py --hub-id Qwen/Qwen2.5-7B-Instruct --backbone qwen2.5-7b --turns qwen \
        --lora 16 --distill --merge --dtype bfloat16 --device-map auto

All weights are trained, and OUT is a backbone in Hugging Face format; with --lora the base stays frozen, OUT/adapter
holds the adapter, and OUT is a backbone only with --merge. OUT/training.json is the record.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from graphflow.backbone.load import BackboneConfig, load_backbone
from graphflow.backbone.turns import FORMATS
from graphflow.experiment.record import commit, machine_name
from graphflow.paths import CONF
from graphflow.training.adapt import GROWN, adapt, adaptation_recipe, reuse_probe
from graphflow.training.data import Batches
from graphflow.training.lessons import Lessons
from graphflow.training.lora import Lora
from graphflow.training.recipe import Recipe
from graphflow.wgraph.library import load_operations, load_workflows

OF_MODEL = ("architecture", "vocabulary", "layers", "hidden", "intermediate", "heads", "kv_heads")
OF_GROWTH = tuple(name for name in GROWN if name not in ("short_share", "whole_share"))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; of the recipe only what was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="qwen-mini", help="shipped backbone, or a name for --path or --hub-id")
    parser.add_argument("--path", default="", help="folder in Hugging Face format")
    parser.add_argument("--hub-id", default="", help="repository on the hub")
    parser.add_argument("--revision", default="")
    parser.add_argument("--turns", default="mini", choices=sorted(FORMATS))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--device-map", default="", help="given to accelerate, for example auto")
    recipe = parser.add_argument_group("recipe", "defaults are those of graphflow/training/adapt.py and recipe.py")
    for name, value in Recipe.defaults().items():
        if name not in (*OF_MODEL, *OF_GROWTH):
            recipe.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=argparse.SUPPRESS)
    parser.add_argument("--lora", type=int, default=None, metavar="RANK", help="train an adapter, not all weights")
    parser.add_argument("--distill", action="store_true", help="learn the unadapted model's own distributions")
    parser.add_argument("--merge", action="store_true", help="also write the merged model to OUT")
    parser.add_argument("--out", type=Path, default=None, help="default: runs/NAME")
    parser.add_argument("--fresh", action="store_true", help="do not resume from OUT/state.pt")
    parser.add_argument("--no-compile", action="store_true", help="adapters are never compiled")
    parser.add_argument("--probes", type=int, default=4, help="measurements of accuracy along training; 0: none")
    given = parser.parse_args(argv)
    if given.lora is None and (given.distill or given.merge):
        parser.error("--distill and --merge need --lora RANK")
    return given


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line and adapts."""
    given = arguments(argv)
    lora = None if given.lora is None else Lora(given.lora, given.distill, given.merge)
    settings = {name: value for name, value in vars(given).items() if name in Recipe.defaults()}
    places = ("path", "hub_id", "revision", "turns", "dtype", "device", "device_map")
    backbone = load_backbone(BackboneConfig(given.backbone, **{name: getattr(given, name) for name in places}))
    recipe = adaptation_recipe(backbone, lora, **settings)
    out = given.out or Path("runs") / recipe.name
    if given.path and out.resolve() == Path(given.path).resolve():
        raise ValueError(f"--out must not be the folder of the backbone that is continued from, got {out}")
    library = load_operations(CONF / "operations")
    workflows = load_workflows(CONF / "workflows", library)
    adapt(
        backbone,
        recipe,
        out,
        Batches(recipe, backbone.tokenizer, library, backbone.turns, Lessons(library, workflows)),
        lora,
        resume=not given.fresh,
        provenance={"machine": machine_name(), "commit": commit(), "turns": given.turns},
        probe=reuse_probe(backbone, library, workflows) if given.probes else None,
        probes=max(1, given.probes),
        compiled=not (given.no_compile or given.device_map or lora),
    )


if __name__ == "__main__":
    main()
