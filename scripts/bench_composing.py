"""Time to compose a workflow on the repository's wGraph: milliseconds of CPU time a workflow, in a batch.

python scripts/bench_composing.py --batch 64 --rounds 5
"""

from __future__ import annotations

import argparse
import time

from graphflow.engine.episode import Task
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge


def main() -> None:
    """Reads the command line, prints one line a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    library = load_operations(CONF / "operations")
    graph = merge(load_workflows(CONF / "workflows", library), library)
    generator = Generator(GeneratorConfig(), graph)
    tasks = [Task(f"t{i}", "bench", "gsm8k", f"task number {i}") for i in range(arguments.batch)]
    for _ in range(arguments.rounds):
        start = time.process_time()
        generator.compose(tasks)
        print(f"{1000 * (time.process_time() - start) / len(tasks):.2f} ms a workflow")


if __name__ == "__main__":
    main()
