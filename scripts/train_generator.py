"""Train the generator on an outcome table and print what it is worth on the held-out tasks.

python scripts/train_generator.py --table outcomes.parquet --out generator --objective expected
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from graphflow.generator.features import FeatureConfig, FeatureKind
from graphflow.generator.generator import GeneratorConfig
from graphflow.generator.model import LayerKind, ModelConfig
from graphflow.generator.objectives import ObjectiveConfig, ObjectiveKind
from graphflow.generator.outcomes import OutcomeTable, RewardConfig, summary
from graphflow.generator.training import train_generator
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse(argv)
    if not args.table.exists() and not OutcomeTable(args.table).journal.exists():  # type: ignore[union-attr]
        raise SystemExit(f"no outcome table at {args.table}; scripts/collect_outcomes.py makes one")
    torch.set_num_threads(args.threads)
    table = OutcomeTable(args.table)
    print(summary(table).to_string(index=False, float_format="{:.3f}".format))
    library = load_operations(CONF / "operations")
    wgraph = merge(load_workflows(CONF / "workflows", library), library)
    start = time.perf_counter()
    generator = train_generator(table, wgraph, config(args), show)
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
    return parser.parse_args(argv)


def config(args: argparse.Namespace) -> GeneratorConfig:
    """The generator that the command line asks for."""
    return GeneratorConfig(
        features=FeatureConfig(kind=FeatureKind(args.features)),
        model=ModelConfig(layer=LayerKind(args.layer)),
        objective=ObjectiveConfig(kind=ObjectiveKind(args.objective)),
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


if __name__ == "__main__":
    main()
