"""Time to compose workflows: CPU milliseconds a workflow, in a batch, on one thread.

    python scripts/bench_composing.py                                  # on the repository's wGraph
    python scripts/bench_composing.py --edges 300,600,1200,2400,4800   # on random ones of about so many edges

A random wGraph has an operation for every 7.5 edges; its workflows have 2 to 6 steps that are drawn from all
operations, with the inputs that fit.
"""

from __future__ import annotations

import argparse
import random
import time

import torch

from graphflow.engine.episode import Task
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.wgraph import WGraph, merge
from graphflow.wgraph.workflow import Workflow, WorkflowError, validate

TEXTS = ("task", "answer", "code", "facts", "result")
EDGES_AN_OPERATION = 7.5


def random_library(count: int, draw: random.Random) -> Library:
    """Language-model operations, tools and votes, 6 to 2 to 2."""
    operations = []
    for number in range(count):
        about = f"operation number {number}"
        kind = draw.choices((Kind.LLM, Kind.TOOL, Kind.CONTROL), (6, 2, 2))[0]
        name, accepts = f"operation_{number}", tuple(draw.sample(TEXTS, 3))
        if kind is Kind.LLM:
            made = Operation(name, kind, accepts, draw.choice(TEXTS[1:]), prompt=f"do number {number}", semantics=about)
        elif kind is Kind.TOOL:
            made = Operation(name, kind, accepts, "result", fields=("failed",), semantics=about)
        else:
            made = Operation(name, kind, ("answer", "code", "result"), "answer", arity="many", semantics=about)
        operations.append(made)
    return Library(operations)


def random_workflow(name: str, library: Library, draw: random.Random) -> Workflow | None:
    """A workflow of 2 to 6 steps; None where what was drawn is not valid."""
    types, steps, operations = {"task": "task"}, {}, list(library.values())
    for number in range(draw.randint(2, 6)):
        operation = draw.choice(operations)
        fitting = [step for step, produced in types.items() if produced in operation.accepts]
        if fitting:
            inputs = draw.sample(fitting, min(len(fitting), draw.randint(1, 3) if operation.arity == "many" else 1))
            steps[f"s{number}"] = {"op": operation.name, "in": inputs}
            types[f"s{number}"] = operation.produces
    try:
        made = Workflow.from_dict({"name": name, "kinds": ["math"], "steps": steps, "answer": [*steps, ""][-2]})
        validate(made, library)
    except (WorkflowError, IndexError):
        return None
    return made


def random_graph(edges: int, draw: random.Random) -> WGraph:
    """A wGraph of random workflows, merged until it has so many edges."""
    library = random_library(round(edges / EDGES_AN_OPERATION), draw)
    graph, met, number = merge([], library), set[str](), 0
    while len(graph.edges) < edges:
        made, number = random_workflow(f"w{number}", library, draw), number + 1
        if made is not None and made.fingerprint not in met:
            met.add(made.fingerprint)
            graph = graph.add(made)
    return graph


def measure(graph: WGraph, batch: int, rounds: int) -> list[float]:
    """CPU milliseconds a workflow, each round; the first one finds out what choices the graph leaves."""
    generator = Generator(GeneratorConfig(), graph)
    taken = []
    for number in range(rounds):
        tasks = [Task(f"t{i}", "bench", "math", f"round {number} task number {i}") for i in range(batch)]
        start = time.process_time()
        generator.compose(tasks)
        taken.append(1000 * (time.process_time() - start) / batch)
    return taken


def main() -> None:
    """Reads the command line, prints one line a graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edges", default="", help="edges of random wGraphs, with commas; empty for the repository's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.edges:
        graphs = (random_graph(int(edges), random.Random(0)) for edges in arguments.edges.split(","))
    else:
        library = load_operations(CONF / "operations")
        graphs = iter([merge(load_workflows(CONF / "workflows", library), library)])
    for graph in graphs:
        taken = measure(graph, arguments.batch, arguments.rounds)
        operations = len({node.op for node in graph.nodes}) - 1
        print(
            f"{operations:5} operations, {len(graph.edges):6} edges, {len(graph.workflows):5} workflows: "
            f"first {taken[0]:.2f}, then {min(taken[1:], default=taken[0]):.2f} ms a workflow",
            flush=True,
        )


if __name__ == "__main__":
    main()
