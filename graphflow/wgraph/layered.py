"""A layout of our own for drawings, where Graphviz is not installed.

The layered layout of Sugiyama, Tagawa and Toda (1981): layers by longest path, order within a layer by barycentres,
positions by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import fmean

import networkx as nx

from graphflow.wgraph.layout import LAYER_GAP, ROW_GAP, Layout, Pair, Point

LINE_GAP = 0.17  # inches, between a box and a curve that passes it
PORT_GAP = 0.09  # inches, between two curves at the side of a box, where there is room
SWEEPS = 40
STRAIGHT = (1.0, 2.0, 8.0)  # pull of a link by how many of its ends are places of a long edge (as in dot)


def layered(sizes: Mapping[str, Point], edges: Sequence[Pair], labels: Mapping[Pair, Point]) -> Layout:
    """Lay out a DAG without any program (arguments as for `graphviz`).

    A long edge is a chain of places, one in each layer that it passes, so no curve runs through a box.
    """
    layer = _layers(sizes, edges)
    chains = {(u, v): [u, *(f"{u}\t{v}\t{k}" for k in range(layer[u] + 1, layer[v])), v] for u, v in edges}
    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    for name in sizes:
        rows[layer[name]].append(name)
    for (u, _), chain in chains.items():
        for number, place in enumerate(chain[1:-1], start=layer[u] + 1):
            rows[number].append(place)
    before: dict[str, list[str]] = {place: [] for row in rows for place in row}
    after: dict[str, list[str]] = {place: [] for row in rows for place in row}
    for chain in chains.values():
        for p, q in pairwise(chain):
            after[p].append(q)
            before[q].append(p)
    rows = _ordered(rows, before, after)
    y = _heights(rows, before, after, sizes)
    left, right = _columns(rows, chains, sizes, labels)
    centres = {name: ((left[layer[name]] + right[layer[name]]) / 2, y[name]) for name in sizes}
    curves = _curves(chains, rows, centres, sizes, y, left, right)
    height = max(y[place] + (sizes[place][1] / 2 if place in sizes else 0.0) for place in y)
    return Layout(right[-1], height, centres, curves, _label_places(curves, labels))


def _layers(sizes: Mapping[str, Point], edges: Sequence[Pair]) -> dict[str, int]:
    """Longest path from a source; then each box as far right as its readers allow if that lengthens no edges."""
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(sizes)
    order = list(nx.lexicographical_topological_sort(graph, key=list(sizes).index))
    layer: dict[str, int] = {}
    for name in order:
        layer[name] = max((layer[u] + 1 for u in graph.pred[name]), default=0)
    for name in reversed(order):
        if len(graph.succ[name]) >= len(graph.pred[name]) > 0:
            layer[name] = min(layer[v] for v in graph.succ[name]) - 1
    return layer


def _ordered(rows: list[list[str]], before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[list[str]]:
    """Barycentre sweeps, forwards and backwards; the order with the fewest crossings that was met."""
    best, fewest = rows, _crossings(rows, after)
    rows = [list(row) for row in rows]
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        near = before if forwards else after
        for number in range(1, len(rows)) if forwards else range(len(rows) - 2, -1, -1):
            beside = {place: i for i, place in enumerate(rows[number - 1 if forwards else number + 1])}
            weight = {place: float(i) for i, place in enumerate(rows[number])}
            weight |= {place: fmean(beside[q] for q in near[place]) for place in rows[number] if near[place]}
            rows[number].sort(key=weight.__getitem__)
        crossings = _crossings(rows, after)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Sequence[Sequence[str]], after: Mapping[str, list[str]]) -> int:
    """Pairs of links between neighbouring layers that cross."""
    total = 0
    for row, following in pairwise(rows):
        position = {place: i for i, place in enumerate(following)}
        ends = [end for place in row for end in sorted(position[q] for q in after[place])]
        total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _heights(
    rows: Sequence[Sequence[str]],
    before: Mapping[str, list[str]],
    after: Mapping[str, list[str]],
    sizes: Mapping[str, Point],
) -> dict[str, float]:
    """Vertical middle of each place: near the mean of its neighbours, in order, without overlap.

    The links of a long edge pull harder the more of their ends are mere places, so that long edges become straight.
    """

    def gap(upper: str, lower: str) -> float:
        halves = sum(sizes[place][1] / 2 for place in (upper, lower) if place in sizes)
        return halves + (ROW_GAP if upper in sizes and lower in sizes else LINE_GAP)

    def mean(place: str, near: Sequence[str]) -> float:
        weights = [STRAIGHT[(place not in sizes) + (other not in sizes)] for other in near]
        return fmean((y[other] for other in near), weights) if near else y[place]

    gaps = [[gap(a, b) for a, b in pairwise(row)] for row in rows]
    y = {place: 0.0 for row in rows for place in row}
    for sweep in range(SWEEPS):
        for number in range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1):
            row = rows[number]
            wanted = [mean(place, [*before[place], *after[place]]) for place in row]
            y |= dict(zip(row, _spread(wanted, gaps[number]), strict=True))
    low = min(y[place] - (sizes[place][1] / 2 if place in sizes else 0.0) for place in y)
    return {place: value - low for place, value in y.items()}


def _spread(wanted: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """Positions nearest to the wanted ones (least squares) that fall from first to last by at least the gaps.

    Adding up the gaps turns this into regression by a falling sequence, which pooling adjacent violators solves.
    """
    shift = list(accumulate(gaps, initial=0.0))
    blocks: list[tuple[float, int]] = []
    for value, offset in zip(wanted, shift, strict=True):
        mean, size = value + offset, 1
        while blocks and blocks[-1][0] < mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    flat = [mean for mean, size in blocks for _ in range(size)]
    return [value - offset for value, offset in zip(flat, shift, strict=True)]


def _columns(
    rows: Sequence[Sequence[str]],
    chains: Mapping[Pair, Sequence[str]],
    sizes: Mapping[str, Point],
    labels: Mapping[Pair, Point],
) -> tuple[list[float], list[float]]:
    """Left and right end of each layer; the gap before a layer holds the labels of the edges that end in it."""
    column = {place: number for number, row in enumerate(rows) for place in row}
    room = [0.0] * len(rows)
    for pair, (width, _) in labels.items():
        end = column[chains[pair][-1]]
        room[end] = max(room[end], width)
    left: list[float] = []
    right: list[float] = []
    for number, row in enumerate(rows):
        left.append(right[-1] + LAYER_GAP + room[number] if right else 0.0)
        right.append(left[-1] + max(sizes[place][0] for place in row if place in sizes))
    return left, right


def _ports(
    chains: Mapping[Pair, Sequence[str]], sizes: Mapping[str, Point], y: Mapping[str, float], end: int
) -> dict[Pair, float]:
    """Height at which each curve touches its first (``end`` 0) or last (-1) box, in the order of where it leads."""
    beside = 1 if end == 0 else -2
    ports: dict[Pair, float] = {}
    for name, (_, height) in sizes.items():
        pairs = sorted((pair for pair in chains if pair[end] == name), key=lambda pair: y[chains[pair][beside]])
        step = min(PORT_GAP, 0.7 * height / max(len(pairs) - 1, 1))
        for number, pair in enumerate(pairs):
            ports[pair] = y[name] + step * (number - (len(pairs) - 1) / 2)
    return ports


def _curves(
    chains: Mapping[Pair, Sequence[str]],
    rows: Sequence[Sequence[str]],
    centres: Mapping[str, Point],
    sizes: Mapping[str, Point],
    y: Mapping[str, float],
    left: Sequence[float],
    right: Sequence[float],
) -> dict[Pair, list[Point]]:
    """Each curve from the right side of its first box to the left side of its last, level where it passes a layer."""
    column = {place: number for number, row in enumerate(rows) for place in row}
    starts, ends = _ports(chains, sizes, y, 0), _ports(chains, sizes, y, -1)
    curves: dict[Pair, list[Point]] = {}
    for (u, v), chain in chains.items():
        corners = [(centres[u][0] + sizes[u][0] / 2, starts[u, v]), (right[column[u]], starts[u, v])]
        for place in chain[1:-1]:
            corners += [(left[column[place]], y[place]), (right[column[place]], y[place])]
        corners += [(left[column[v]], ends[u, v]), (centres[v][0] - sizes[v][0] / 2, ends[u, v])]
        points = corners[:1]
        for (x0, y0), (x1, y1) in pairwise(corners):
            if x1 - x0 > 1e-6:
                points += [((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1), (x1, y1)]
        curves[u, v] = points
    return curves


def _on(points: Sequence[Point], t: float) -> Point:
    """The point of a cubic Bezier curve at ``t`` in [0, 1]."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    x, y = (sum(w * point[axis] for w, point in zip(weights, points, strict=True)) for axis in (0, 1))
    return x, y


def _label_places(curves: Mapping[Pair, Sequence[Point]], labels: Mapping[Pair, Point]) -> dict[Pair, Point]:
    """A place on the last bend of each labelled curve: clear of other labels, then of other curves, then central."""
    drawn = {
        pair: [_on(points[i : i + 4], k / 12) for i in range(0, len(points) - 1, 3) for k in range(13)]
        for pair, points in curves.items()
    }
    places: dict[Pair, Point] = {}
    for pair, (width, height) in labels.items():
        pieces = [curves[pair][i : i + 4] for i in range(0, len(curves[pair]) - 1, 3)]
        bend = max(pieces[-2:], key=lambda piece: piece[-1][0] - piece[0][0])
        others = [point for other, points in drawn.items() if other != pair for point in points]
        tries = []
        for t in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74):
            x, y = _on(bend, t)
            close = sum(
                abs(x - u) < (width + labels[other][0]) / 2 and abs(y - v) < (height + labels[other][1]) / 2
                for other, (u, v) in places.items()
            )
            crossed = sum(abs(x - u) < width / 2 and abs(y - v) < height / 2 for u, v in others)
            tries.append((close, crossed, len(tries), (x, y)))
        places[pair] = min(tries)[3]
    return places
