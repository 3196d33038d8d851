"""Drawing a wGraph: boxes by kind, curves by use, guards as small labels.

Only the layout may come from Graphviz; the picture is always drawn here, so it looks the same with and without it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from math import ceil, hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.wgraph.layered import layered
from graphflow.wgraph.layout import Layout, Pair, Point, graphviz
from graphflow.wgraph.wgraph import WGraph
from graphflow.wgraph.workflow import Guard

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

FONT = "DejaVu Sans"  # comes with matplotlib, so a picture is the same everywhere
NODE_POINTS, LABEL_POINTS, LEGEND_POINTS = 11.0, 8.5, 10.0
BOX_HEIGHT, BOX_PAD, MARGIN = 0.5, 0.13, 0.15  # inches
LEGEND_COLUMN, LEGEND_ROW = 1.35, 0.25  # inches
DASHES = (0, (3.0, 1.2))
FILL = {"task": "#2B3445", "llm": "#DCE8FB", "tool": "#D9F1E1", "control": "#FCEBC9"}
LINE = {"task": "#2B3445", "llm": "#3A6FC4", "tool": "#2E8B57", "control": "#C08414"}
MEANING = {"task": "task", "llm": "language model", "tool": "tool", "control": "control"}
INK, FAINT, GUARD, ALWAYS = "#1D2433", "#6B7487", "#B3402F", "#8C96A8"
SCORES = ("#D5DAE3", "#5A1F9E")  # colour of an edge with score 0 and 1


def draw(wgraph: WGraph, path: str | Path, scores: Sequence[float] | None = None) -> Path:
    """Draw a wGraph into a file, laid out by Graphviz ``dot`` where that is installed, else by `layered`.

    Args:
        wgraph: The graph.
        path: The file; its suffix, ``.svg`` or ``.png``, says the format.
        scores: A score in [0, 1] for each edge of `WGraph.edges`, shown as its colour; None for colours by guard.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix is another one, or the scores do not fit the edges.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"path must end in .svg or .png, not {path.suffix!r}")
    if scores is not None and (len(scores) != len(wgraph.edges) or not all(0 <= score <= 1 for score in scores)):
        raise ValueError(f"scores must be {len(wgraph.edges)} numbers from 0 to 1, one for each edge, not {scores!r}")
    texts = {pair: text for pair, text in _guard_texts(wgraph).items() if text}
    sizes = {node.id: (_box_width(node.op), BOX_HEIGHT) for node in wgraph.nodes}
    labels = {pair: (_text_width(text, LABEL_POINTS) + 0.08, 0.17) for pair, text in texts.items()}
    pairs = list(dict.fromkeys((edge.source, edge.target) for edge in wgraph.edges))
    layout = (graphviz if shutil.which("dot") else layered)(sizes, pairs, labels)
    legend = _legend(wgraph, bool(texts), scores is not None)
    inner = max(layout.width, 4 * LEGEND_COLUMN)
    rows = ceil(len(legend) * LEGEND_COLUMN / inner)
    below = MARGIN + 0.15 + LEGEND_ROW * rows
    with rc_context({"font.family": FONT, "svg.hashsalt": "wgraph", "svg.fonttype": "path"}):
        width, height = inner + 2 * MARGIN, layout.height + MARGIN + below
        figure = Figure(figsize=(width, height), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        left = (width - layout.width) / 2
        axes.set(xlim=(-left, width - left), ylim=(-below, height - below))
        axes.set_axis_off()
        _draw_edges(axes, wgraph, layout, texts, scores)
        _draw_nodes(axes, wgraph, layout, sizes)
        _draw_legend(axes, legend, ceil(len(legend) / rows))
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=200, metadata=metadata)
    return path


def _guard_texts(wgraph: WGraph) -> dict[Pair, str]:
    """What stands at each pair of nodes: the guards of the edges between them; the source's own without its name."""
    texts: dict[Pair, list[str]] = {}
    for edge in wgraph.edges:
        found = texts.setdefault((edge.source, edge.target), [])
        if edge.guard:
            guard = Guard.parse(edge.guard)
            name = guard.field if guard.step == edge.source else f"{guard.step}.{guard.field}"
            found.append(f"not {name}" if guard.negated else name)
    return {pair: " / ".join(found) for pair, found in texts.items()}


def _lines(op: str) -> list[str]:
    """The words of a name on one or two lines, as even as they go."""
    words = op.split("_")
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return list(min(cuts, key=lambda cut: max(map(len, cut)))) if cuts else [op]


def _text_width(text: str, points: float) -> float:
    """Width of a text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=points, prop=FontProperties(family=FONT)).get_extents().width / 72


def _box_width(op: str) -> float:
    return max(0.8, max(_text_width(line, NODE_POINTS) for line in _lines(op)) + 2 * BOX_PAD)


def _counts(wgraph: WGraph) -> dict[Pair, int]:
    """Uses of each pair of nodes, whatever the guards."""
    counts: dict[Pair, int] = {}
    for edge in wgraph.edges:
        counts[edge.source, edge.target] = counts.get((edge.source, edge.target), 0) + edge.count
    return counts


def _line_width(count: int, most: int) -> float:
    """Points: 1 for one workflow, 3.4 for the most used edge, by the square root between them."""
    return 1.0 + 2.4 * ((count - 1) / max(most - 1, 1)) ** 0.5


def _draw_edges(
    axes: Axes, wgraph: WGraph, layout: Layout, texts: dict[Pair, str], scores: Sequence[float] | None
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("scores", SCORES)
    counts, best = _counts(wgraph), dict.fromkeys(layout.curves, 0.0)
    for edge, score in zip(wgraph.edges, scores or (), strict=scores is not None):
        best[edge.source, edge.target] = max(best[edge.source, edge.target], score)
    always = {(edge.source, edge.target) for edge in wgraph.edges if not edge.guard}
    for pair, points in layout.curves.items():
        colour = (ALWAYS if pair in always else GUARD) if scores is None else colours(best[pair])
        width = _line_width(counts[pair], max(counts.values()))
        _draw_arrow(axes, points, colour, width, "-" if pair in always else DASHES, 1 + best[pair])
    for pair, (x, y) in layout.labels.items():
        box = {"boxstyle": "round,pad=0.06", "facecolor": "white", "edgecolor": "none", "alpha": 0.9}
        style = {"size": LABEL_POINTS, "color": GUARD, "style": "italic", "ha": "center", "va": "center"}
        axes.text(x, y, texts[pair], bbox=box, zorder=3, **style)


def _draw_arrow(axes: Axes, points: list[Point], colour: Any, width: float, style: Any, zorder: float) -> None:
    """A curve with a solid head; the curve ends inside the head, so that the tip stays sharp."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    x1, y1 = points[-1]
    x0, y0 = next((point for point in reversed(points) if point != points[-1]), (x1 - 1.0, y1))
    distance = hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / distance, (y1 - y0) / distance
    length = 0.075 + 0.018 * width
    half = 0.45 * length
    back = (x1 - 0.8 * length * dx, y1 - 0.8 * length * dy)
    curve = Curve([*points[:-1], back], [Curve.MOVETO] + [Curve.CURVE4] * (len(points) - 1))
    line = {"edgecolor": colour, "linewidth": width, "linestyle": style, "capstyle": "butt"}
    axes.add_patch(PathPatch(curve, facecolor="none", zorder=zorder, **line))
    base = (x1 - length * dx, y1 - length * dy)
    corners = [(x1, y1), (base[0] - half * dy, base[1] + half * dx), (base[0] + half * dy, base[1] - half * dx)]
    axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=zorder))


def _draw_nodes(axes: Axes, wgraph: WGraph, layout: Layout, sizes: dict[str, tuple[float, float]]) -> None:
    from matplotlib.patches import FancyBboxPatch

    for node in wgraph.nodes:
        (x, y), (width, height) = layout.centres[node.id], sizes[node.id]
        kind = wgraph.kind(node.id)
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=FILL[kind],
            edgecolor=LINE[kind],
            linewidth=2.6 if node.id in wgraph.answers else 1.1,
            zorder=4,
        )
        axes.add_patch(box)
        ink = "white" if kind == "task" else INK
        lines = _lines(node.op)
        for number, line in enumerate(lines):
            base = y - 0.055 + 0.18 * ((len(lines) - 1) / 2 - number)
            axes.text(x, base, line, size=NODE_POINTS, color=ink, ha="center", va="baseline", zorder=5)
        badge = " ".join([f"#{node.occurrence}"] * (node.occurrence > 1) + [f"x{node.samples}"] * (node.samples > 1))
        if badge:
            pill = {"boxstyle": "round,pad=0.22", "facecolor": LINE[kind], "edgecolor": "white", "linewidth": 0.8}
            axes.text(
                x + width / 2 - 0.04,
                y + height / 2 - 0.01,
                badge,
                size=LABEL_POINTS,
                color="white",
                weight="bold",
                ha="center",
                va="center",
                bbox=pill,
                zorder=6,
            )


def _legend(wgraph: WGraph, guards: bool, scored: bool) -> list[Artist]:
    """What needs explaining in this picture, and nothing else."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    kinds = {wgraph.kind(node.id) for node in wgraph.nodes}
    handles: list[Artist] = [
        Patch(facecolor=FILL[kind], edgecolor=LINE[kind], label=meaning)
        for kind, meaning in MEANING.items()
        if kind in kinds
    ]
    if wgraph.embeddings:
        handles.append(Patch(facecolor="white", edgecolor=FAINT, linewidth=2.6, label="may give the answer"))
    sign = {"linestyle": "", "markersize": 13, "color": LINE["llm"], "markeredgewidth": 0.3}
    samples = sorted({node.samples for node in wgraph.nodes} - {1})
    if samples:
        handles.append(Line2D([], [], marker=rf"$\mathregular{{x{samples[0]}}}$", label="samples", **sign))
    if any(node.occurrence > 1 for node in wgraph.nodes):
        handles.append(Line2D([], [], marker=r"$\mathregular{\#2}$", label="second use", **sign))
    most = max(_counts(wgraph).values(), default=0)
    for count in sorted({min(1, most), most} - {0}):
        label = f"{count} workflow{'s' if count > 1 else ''}"
        width = _line_width(count, most)
        handles.append(Line2D([], [], color=FAINT if scored else ALWAYS, linewidth=width, label=label))
    if guards:
        handles.append(Line2D([], [], color=FAINT if scored else GUARD, linestyle=DASHES, label="only if"))
    if scored:
        handles += [Line2D([], [], color=colour, linewidth=2.5, label=f"score {i}") for i, colour in enumerate(SCORES)]
    return handles


def _draw_legend(axes: Axes, handles: list[Artist], columns: int) -> None:
    axes.legend(
        handles=handles,
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=LEGEND_POINTS,
        labelcolor=INK,
        handlelength=1.5,
        columnspacing=1.4,
        handletextpad=0.5,
    )
