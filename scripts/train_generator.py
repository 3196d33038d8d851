"""Train the generator on an outcome table and print what it is worth on the held-out tasks; goes on where it stopped.

    python scripts/train_generator.py --table outcomes.parquet --out generator --objective expected
    python scripts/train_generator.py --table outcomes.parquet --out generator --objective best --checkpoint state.pt

With --objective best the generator's own workflows are executed while it learns: the table grows, and backbone, split
and sampling seed must be those that it was collected with (scripts/collect_outcomes.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.experiment.fit import Fresh
from graphflow.experiment.tracking import TrackingConfig, TrackingMode, WandbTracker, track
from graphflow.generator.features import FeatureConfig, FeatureKind
from graphflow.generator.generator import GeneratorConfig, plain
from graphflow.generator.model import LayerKind, ModelConfig
from graphflow.generator.objectives import ObjectiveConfig, ObjectiveKind
from graphflow.generator.outcomes import OutcomeTable, RewardConfig, summary
from graphflow.generator.training import train_generator
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from graphflow.wgraph.wgraph import merge


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse(argv)
    if not args.table.exists() and not OutcomeTable(args.table).journal.exists():  # type: ignore[union-attr]
        raise SystemExit(f"no outcome table at {args.table}; scripts/collect_outcomes.py makes one")
    torch.set_num_threads(args.threads)
    table, settings = OutcomeTable(args.table), config(args)
    print(summary(table).to_string(index=False, float_format="{:.3f}".format))
    library = load_operations(CONF / "operations")
    wgraph = merge(load_workflows(CONF / "workflows", library), library)
    execute = executing(args, table, library) if settings.objective.kind is ObjectiveKind.BEST else None
    tracking = TrackingConfig(TrackingMode(args.wandb))
    start = time.perf_counter()
    with track(tracking, args.out, f"generator-{args.objective}", plain(asdict(settings))) as tracker:

        def progress(row: dict[str, Any]) -> None:
            show(row)
            if isinstance(tracker, WandbTracker):
                values = {f"generator/{name}": row[name] for name in ("loss", "mark", "reward", "coverage")}
                tracker.run.log(values, step=row["epoch"])

        generator = train_generator(table, wgraph, settings, progress, execute=execute, checkpoint=args.checkpoint)
        tracker.summary(generator.report)
    generator.save(args.out)
    print(f"trained in {time.perf_counter() - start:.1f} s, kept in {args.out}")
    for name, value in generator.report.items():
        print(f"  {name:18} {value:.4f}" if isinstance(value, float) else f"  {name:18} {value}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; the defaults are those of `GeneratorConfig`."""
    default = GeneratorConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="parquet file of outcomes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the generator")
    parser.add_argument("--objective", choices=[kind.value for kind in ObjectiveKind], default="expected")
    parser.add_argument("--layer", choices=[kind.value for kind in LayerKind], default=default.model.layer.value)
    parser.add_argument("--features", choices=[kind.value for kind in FeatureKind], default="hashing")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--latency", type=float, default=default.reward.latency, help="reward lost a second")
    parser.add_argument("--kv", type=float, default=default.reward.kv, help="reward lost a megabyte of KV")
    parser.add_argument("--tokens", type=float, default=default.reward.tokens, help="reward lost a thousand tokens")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, default=None, help="file to go on from; it is gone in the end")
    parser.add_argument("--wandb", choices=[mode.value for mode in TrackingMode], default="none")
    best = parser.add_argument_group("best", "how workflows are executed with --objective best")
    best.add_argument("--rounds", type=int, default=default.objective.rounds, help="times that workflows are executed")
    best.add_argument("--fresh", type=int, default=default.objective.fresh, help="workflows a task and round")
    best.add_argument("--backbone", default="qwen-mini")
    best.add_argument(
        "--split", choices=("train", "validation"), default="train", help="split the table's tasks are of"
    )
    best.add_argument("--sampling-seed", type=int, default=0, help="--seed of scripts/collect_outcomes.py")
    best.add_argument("--allow-unisolated", action="store_true", help="run programs even without bubblewrap")
    return parser.parse_args(argv)


def config(args: argparse.Namespace) -> GeneratorConfig:
    """The generator that the command line asks for."""
    return GeneratorConfig(
        features=FeatureConfig(kind=FeatureKind(args.features)),
        model=ModelConfig(layer=LayerKind(args.layer)),
        objective=ObjectiveConfig(kind=ObjectiveKind(args.objective), rounds=args.rounds, fresh=args.fresh),
        reward=RewardConfig(latency=args.latency, kv=args.kv, tokens=args.tokens),
        epochs=args.epochs,
        seed=args.seed,
    )


def show(row: dict[str, Any]) -> None:
    """One line an epoch."""
    print(
        f"epoch {row['epoch']:3}  loss {row['loss']:8.4f}  "
        f"validation reward {row['reward']:.4f}  executed before {row['coverage']:.0%}"
    )


def executing(args: argparse.Namespace, table: OutcomeTable, library: Library) -> Fresh:
    """What executes fresh workflows in the engine, in stateful mode as scripts/collect_outcomes.py does."""
    from graphflow.backbone.load import BackboneConfig, load_backbone
    from graphflow.engine.executor import EngineConfig, Executor
    from graphflow.engine.sandbox import Sandbox, SandboxConfig
    from graphflow.engine.tools import ToolBox
    from graphflow.experiment.serve import PairRunner
    from graphflow.kv.modes import KVConfig, StateMode

    engine = EngineConfig(seed=args.sampling_seed, sandbox=SandboxConfig(allow_unisolated=args.allow_unisolated))
    sandbox, backbone = Sandbox(engine.sandbox), load_backbone(BackboneConfig(name=args.backbone))
    executor = Executor(backbone, library, KVConfig(mode=StateMode.STATEFUL), engine, ToolBox(sandbox=sandbox))
    return Fresh(
        table,
        cache(lambda name: build_benchmark(BenchmarkConfig(name=name), sandbox)),
        PairRunner(executor),
        args.split,
        args.sampling_seed,
        lambda name, added: print(f"{name}: {added} of the generator's own workflows executed", flush=True),
    )


if __name__ == "__main__":
    main()
