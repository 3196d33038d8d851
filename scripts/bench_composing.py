"""Time to compose workflows: CPU milliseconds a workflow, in a batch, on one thread.

    python scripts/bench_composing.py                                  # on the repository's wGraph
    python scripts/bench_composing.py --edges 150,300,600,1200,2400,4800,9600,15000 --out results/generator

The second line is on random wGraphs of about so many edges, and writes composing.csv and a figure. A random wGraph has
an operation for every 7.5 edges; its workflows have 2 to 6 steps that are drawn from all operations, with the inputs
that fit.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch

from graphflow.engine.episode import Task
from graphflow.experiment.plots import COLOURS, MARKERS, STYLE, save
from graphflow.experiment.record import commit, machine_name
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.paths import CONF
from graphflow.wgraph.library import Library, load_operations, load_workflows
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.wgraph import Growing, WGraph, merge
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
    growing, met, number = Growing(merge([], library)), set[str](), 0
    while growing.edges < edges:
        made, number = random_workflow(f"w{number}", library, draw), number + 1
        if made is not None and made.fingerprint not in met:
            met.add(made.fingerprint)
            growing.add(made)
    return growing.graph()


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


def draw_figure(frame: Any, file: Path) -> None:
    """Time against edges, and the line through the origin and the largest graph: what grows as the edges do."""
    plt.switch_backend("Agg")  # a file only, wherever this runs
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(5.2, 3.6))
        for place, (column, label) in enumerate((("first_ms", "first batch"), ("ms", "later batches"))):
            options: dict[str, Any] = {"color": COLOURS[place], "marker": MARKERS[place], "label": label}
            axes.plot(frame["edges"], frame[column], **options)
        last = frame.iloc[-1]
        axes.plot(frame["edges"], frame["edges"] * last["ms"] / last["edges"], ":", color="#808080", label="as edges")
        axes.set(xscale="log", yscale="log", xlabel="edges of the wGraph", ylabel="CPU ms a workflow, one core")
        for _, row in frame.iterrows():
            note: dict[str, Any] = {"xytext": (0, -12), "textcoords": "offset points", "fontsize": 7, "ha": "center"}
            axes.annotate(f"{int(row['operations'])}", (row["edges"], row["ms"]), **note)
        axes.set_title(f"Composing, batch of {int(last['batch'])} (numbers: operations)")
        axes.legend(fontsize=8)
        save(figure, file)


def main() -> None:
    """Reads the command line, prints one line a graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edges", default="", help="edges of random wGraphs, with commas; empty for the repository's")
    parser.add_argument("--out", type=Path, default=None, help="folder for the table and the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.edges:
        graphs = (random_graph(int(edges), random.Random(0)) for edges in arguments.edges.split(","))
    else:
        library = load_operations(CONF / "operations")
        graphs = iter([merge(load_workflows(CONF / "workflows", library), library)])
    rows = []
    for graph in graphs:
        start = time.process_time()
        merge(graph.workflows, graph.library)
        merged, taken = time.process_time() - start, measure(graph, arguments.batch, arguments.rounds)
        rows.append(
            {
                "operations": len({node.op for node in graph.nodes}) - 1,
                "edges": len(graph.edges),
                "workflows": len(graph.workflows),
                "batch": arguments.batch,
                "first_ms": taken[0],
                "ms": min(taken[1:], default=taken[0]),
                "merge_s": merged,
            }
        )
        print(
            "{operations:5} operations, {edges:6} edges, {workflows:5} workflows merged in {merge_s:.2f} s: "
            "first {first_ms:.2f}, then {ms:.2f} ms a workflow".format(**rows[-1]),
            flush=True,
        )
    if arguments.out:
        frame = pd.DataFrame(rows).assign(
            command=" ".join(["python", *sys.argv]), commit=commit(), machine=machine_name()
        )
        arguments.out.mkdir(parents=True, exist_ok=True)
        frame.to_csv(arguments.out / "composing.csv", index=False, float_format="%.5g")
        (arguments.out / "figures").mkdir(exist_ok=True)
        draw_figure(frame, arguments.out / "figures" / "composing")


if __name__ == "__main__":
    main()
