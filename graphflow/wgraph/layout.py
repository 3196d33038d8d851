"""Where boxes and curves of a drawn graph go, left to right, and how Graphviz finds that out.

`layered` is the way without Graphviz.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Pair = tuple[str, str]

ROW_GAP = 0.22  # between two boxes of a layer
LAYER_GAP = 0.45  # between two layers, labels not counted


@dataclass(frozen=True)
class Layout:
    """A drawn graph without its paint, in inches, with the origin at the lower left.

    Attributes:
        width: Of everything.
        height: Of everything.
        centres: Middle of each box.
        curves: For each edge the control points of a chain of cubic Bezier curves, 3 k + 1 points.
        labels: Middle of each edge label.
    """

    width: float
    height: float
    centres: dict[str, Point]
    curves: dict[Pair, list[Point]]
    labels: dict[Pair, Point]


def graphviz(sizes: Mapping[str, Point], edges: Sequence[Pair], labels: Mapping[Pair, Point]) -> Layout:
    """Lay out a DAG with the program ``dot``, which must be installed; it reads sizes only, no texts.

    Args:
        sizes: Width and height of each box, inches.
        edges: Pairs of box names.
        labels: Width and height of the label of each edge that has one, inches.

    Raises:
        subprocess.CalledProcessError: If ``dot`` fails.
    """
    names = list(sizes)
    lines = [
        "digraph {",
        f"rankdir=LR nodesep={ROW_GAP} ranksep={LAYER_GAP} outputorder=nodesfirst",
        'node [shape=box fixedsize=true label=""]',
        "edge [arrowhead=none]",
    ]
    lines += [f"{i} [width={sizes[name][0]:.3f} height={sizes[name][1]:.3f}]" for i, name in enumerate(names)]
    for u, v in edges:
        label = ""
        if (u, v) in labels:
            w, h = (round(72 * side) for side in labels[u, v])
            cell = f'<TABLE BORDER="0" FIXEDSIZE="TRUE" WIDTH="{w}" HEIGHT="{h}"><TR><TD></TD></TR></TABLE>'
            label = f"[label=<{cell}>]"
        lines.append(f"{names.index(u)} -> {names.index(v)} {label}")
    source = "\n".join([*lines, "}"])
    done = subprocess.run(["dot", "-Tjson"], input=source, capture_output=True, text=True, check=True, timeout=60)
    graph = json.loads(done.stdout)
    _, _, width, height = (float(number) / 72 for number in graph["bb"].split(","))
    by_number = {item["_gvid"]: names[int(item["name"])] for item in graph["objects"]}
    pairs = {(by_number[item["tail"]], by_number[item["head"]]): item for item in graph.get("edges", [])}
    return Layout(
        width,
        height,
        {by_number[item["_gvid"]]: _point(item["pos"]) for item in graph["objects"]},
        {pair: [_point(text) for text in item["pos"].split()] for pair, item in pairs.items()},
        {pair: _point(item["lp"]) for pair, item in pairs.items() if "lp" in item},
    )


def _point(text: str) -> Point:
    x, y = text.split(",")
    return float(x) / 72, float(y) / 72
