"""Fill an outcome table: run workflows on training tasks and note what each scored and cost; goes on where it stopped.

Every workflow of the repository runs on every task of its kind; with --explore also that many random recombinations.

python scripts/collect_outcomes.py --table outcomes.parquet --benchmarks mini-gsm8k mini-math --tasks 32 --explore 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from graphflow.engine.episode import Task
from graphflow.generator.outcomes import OutcomeTable, collect, summary
from graphflow.methods.random import Random
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.workflow import Workflow

MINI = ("mini-gsm8k", "mini-math", "mini-hotpotqa", "mini-humaneval", "mini-mbpp")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = parse(argv)
    from graphflow.backbone.load import BackboneConfig, load_backbone
    from graphflow.benchmarks import BenchmarkConfig, build_benchmark
    from graphflow.engine.executor import EngineConfig, Executor
    from graphflow.experiment.serve import PairRunner
    from graphflow.kv.modes import KVConfig, StateMode

    torch.set_num_threads(args.threads)
    library = load_operations(CONF / "operations")
    workflows = load_workflows(CONF / "workflows", library)
    explorers = [Random(library, workflows, seed) for seed in range(args.explore)]
    backbone = load_backbone(BackboneConfig(name=args.backbone))
    table, stateful = OutcomeTable(args.table), KVConfig(mode=StateMode.STATEFUL)
    for name in args.benchmarks:
        benchmark = build_benchmark(BenchmarkConfig(name=name))
        examples = {example.task.id: example for example in benchmark.examples(args.split, args.tasks)}
        executor = Executor(backbone, library, stateful, EngineConfig(seed=args.seed))

        def fitting(task: Task) -> list[Workflow]:
            own = [workflow for workflow in workflows.values() if task.kind in workflow.kinds]
            found = [explorer.build(task) for explorer in explorers]
            return own + [replace(workflow, kinds=(task.kind,)) for workflow in found]

        def score(task: Task, answer: str, benchmark=benchmark, examples=examples) -> float:
            return benchmark.score(examples[task.id], answer)

        tasks = [example.task for example in examples.values()]
        added = collect(table, tasks, fitting, PairRunner(executor), score, args.seed)
        table.save()
        print(f"{name}: {added} executions added, {len(table)} in {args.table}", flush=True)
    print(summary(table).to_string(index=False, float_format="{:.3f}".format))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="parquet file to fill")
    parser.add_argument("--backbone", default="qwen-mini")
    parser.add_argument("--benchmarks", nargs="+", default=list(MINI))
    parser.add_argument("--split", choices=("train", "validation"), default="train")
    parser.add_argument("--tasks", type=int, default=32, help="tasks of each benchmark")
    parser.add_argument("--explore", type=int, default=0, help="random recombinations for each task")
    parser.add_argument("--seed", type=int, default=0, help="sampling seed the rows are filed under")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
