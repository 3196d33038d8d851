import shutil
from itertools import combinations, pairwise

import pytest

from graphflow.paths import CONF
from graphflow.wgraph import draw as drawing
from graphflow.wgraph.draw import draw
from graphflow.wgraph.layered import _crossings, _layers, _spread, layered
from graphflow.wgraph.layout import graphviz
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import WGraph, merge

DOT = pytest.param(True, marks=pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed"))


@pytest.fixture(scope="module")
def graph():
    library = load_operations(CONF / "operations")
    return merge(load_workflows(CONF / "workflows", library), library)


@pytest.mark.parametrize("dot", [DOT, False])
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_a_picture_is_written(graph, tmp_path, monkeypatch, dot, suffix, start):
    if not dot:
        monkeypatch.setattr(drawing.shutil, "which", lambda program: None)
    path = draw(graph, tmp_path / f"graph{suffix}", scores=[i / len(graph.edges) for i in range(len(graph.edges))])
    content = path.read_bytes()
    assert content.startswith(start)
    assert len(content) > 20_000


def test_the_same_graph_gives_the_same_svg(graph, tmp_path):
    first, second = (draw(graph, tmp_path / f"{name}.svg").read_bytes() for name in "ab")
    assert first == second


def test_a_graph_of_the_task_alone_can_be_drawn(library, tmp_path):
    assert draw(WGraph(library), tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "scores", "message"),
    [
        ("graph.pdf", None, "path must end in .svg or .png, not '.pdf'"),
        ("graph.svg", [0.5], "scores must be .* numbers from 0 to 1, one for each edge"),
        ("graph.svg", [1.5], "scores must be .* numbers from 0 to 1, one for each edge"),
    ],
)
def test_what_cannot_be_drawn_is_refused(graph, tmp_path, name, scores, message):
    if scores == [1.5]:
        scores = scores * len(graph.edges)
    with pytest.raises(ValueError, match=message):
        draw(graph, tmp_path / name, scores)
    assert not list(tmp_path.iterdir())


# Layouts: a layout is right if nothing covers anything.


def measured(graph):
    sizes = {node.id: (1.0, 0.5) for node in graph.nodes}
    edges = list(dict.fromkeys((edge.source, edge.target) for edge in graph.edges))
    labels = {(edge.source, edge.target): (0.6, 0.17) for edge in graph.edges if edge.guard}
    return sizes, edges, labels


def on_curve(points, parts=20):
    for start in range(0, len(points) - 1, 3):
        p = points[start : start + 4]
        for k in range(parts + 1):
            t = k / parts
            w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            yield sum(a * q[0] for a, q in zip(w, p, strict=True)), sum(a * q[1] for a, q in zip(w, p, strict=True))


def overlap(a, size_a, b, size_b):
    return all(abs(a[i] - b[i]) < (size_a[i] + size_b[i]) / 2 - 0.01 for i in (0, 1))


@pytest.mark.parametrize("dot", [DOT, False])
def test_nothing_covers_anything(graph, dot):
    sizes, edges, labels = measured(graph)
    layout = (graphviz if dot else layered)(sizes, edges, labels)
    assert layout.centres.keys() == sizes.keys()
    assert layout.curves.keys() == set(edges)
    assert layout.labels.keys() == labels.keys()
    for a, b in combinations(sizes, 2):
        assert not overlap(layout.centres[a], sizes[a], layout.centres[b], sizes[b]), (a, b)
    for a, b in combinations(labels, 2):
        assert not overlap(layout.labels[a], labels[a], layout.labels[b], labels[b]), (a, b)
    for pair, name in ((pair, name) for pair in labels for name in sizes):
        assert not overlap(layout.labels[pair], labels[pair], layout.centres[name], sizes[name]), (pair, name)
    for pair, points in layout.curves.items():
        for name in sizes.keys() - set(pair):
            assert not any(overlap(point, (0, 0), layout.centres[name], sizes[name]) for point in on_curve(points))
    for source, target in edges:
        assert layout.centres[source][0] < layout.centres[target][0]
    for name, (x, y) in layout.centres.items():
        assert sizes[name][0] / 2 - 0.01 <= x <= layout.width - sizes[name][0] / 2 + 0.01
        assert sizes[name][1] / 2 - 0.01 <= y <= layout.height - sizes[name][1] / 2 + 0.01


def test_layers_by_longest_path():
    # a -> b -> c -> d with shortcuts; e has two readers and one source, so it moves next to its readers.
    edges = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d"), ("a", "e"), ("e", "d"), ("e", "f")]
    sizes = dict.fromkeys("abcdef", (1.0, 0.5))
    assert _layers(sizes, edges) == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 1, "f": 2}
    assert _layers(sizes, [*edges, ("c", "f")])["e"] == 2


def test_crossings_are_counted():
    after = {"a": ["y"], "b": ["x", "y"], "x": [], "y": []}
    assert _crossings([["a", "b"], ["x", "y"]], after) == 1  # a-y crosses b-x; b-y meets a-y at its end
    assert _crossings([["b", "a"], ["x", "y"]], after) == 0


def test_the_order_within_layers_avoids_crossings():
    # In the order given a and b stand over each other as x and y do, and a -> y would cross b -> x.
    sizes = dict.fromkeys(["s", "a", "b", "x", "y"], (1.0, 0.5))
    y = {id: at[1] for id, at in layered(sizes, [("s", "a"), ("s", "b"), ("a", "y"), ("b", "x")], {}).centres.items()}
    assert (y["a"] > y["b"]) == (y["y"] > y["x"])


def test_positions_by_least_squares():
    # Two that want 0 and must stand 2 apart go to 1 and -1; a third far below stays where it wants to be.
    assert _spread([0.0, 0.0], [2.0]) == [1.0, -1.0]
    assert _spread([0.0, 0.0, -9.0], [2.0, 2.0]) == [1.0, -1.0, -9.0]
    # Wanted 0, 3, 0 with gaps 1: shifted 0, 4, 2 -> the first two pool to 2, which is not below 2: 2, 2, 2 -> 2, 1, 0.
    assert _spread([0.0, 3.0, 0.0], [1.0, 1.0]) == [2.0, 1.0, 0.0]
    placed = _spread([5.0, 4.9, 4.8, 1.0], [0.5, 0.5, 0.5])
    assert all(a - b >= 0.5 - 1e-9 for a, b in pairwise(placed))
