from __future__ import annotations

import random

import pytest
import torch

from graphflow.generator.features import HashingEncoder
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.model import (
    EDGE_DIM,
    NODE_DIM,
    GeneratorModel,
    GraphTensors,
    LayerKind,
    ModelConfig,
    edge_attributes,
    node_attributes,
)
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import validate
from tests.generator.small import COT, FIX, LIBRARY, VOTE, random_workflows, small_graph, word_task


def test_attributes_by_hand() -> None:
    graph = merge([VOTE, FIX], LIBRARY)
    rows = dict(zip([node.id for node in graph.nodes], node_attributes(graph), strict=True))
    assert rows["task"] == [1, 0, 0, 0, 0, 0]
    assert rows["cot"] == [0, 1, 0, 0, 0, 0]
    assert rows["run"] == [0, 0, 1, 0, 0, 0]
    assert rows["vote"] == [0, 0, 0, 1, 0, 0]
    edges = {(edge.source, edge.target): row for edge, row in zip(graph.edges, edge_attributes(graph), strict=True)}
    assert edges["task", "program"] == [0, 0, 1, 1.0]
    assert edges["run", "fix"] == [1, 0, 0, 0.5]


def test_batched_copies_are_disjoint() -> None:
    graph = GraphTensors(
        torch.zeros(2, 4), torch.zeros(2, NODE_DIM), torch.tensor([[0], [1]]), torch.zeros(1, EDGE_DIM)
    )
    index = graph.batched(2)
    assert index["operation", "feeds", "operation"].tolist() == [[0, 2], [1, 3]]
    assert index["operation", "fed_by", "operation"].tolist() == [[1, 3], [0, 2]]
    assert index["task", "asks", "operation"].tolist() == [[0, 0, 1, 1], [0, 1, 2, 3]]
    assert index["operation", "answers", "task"].tolist() == [[0, 1, 2, 3], [0, 0, 1, 1]]


@pytest.mark.parametrize("layer", list(LayerKind))
def test_a_batch_gives_what_each_task_gives_alone(layer: LayerKind) -> None:
    torch.manual_seed(0)
    graph, encoder = small_graph(), HashingEncoder(64)
    model = GeneratorModel(ModelConfig(layer=layer, hidden=16), 64).eval()
    tensors, tasks = GraphTensors.of(graph, encoder), encoder.encode(["first long task", "second"])
    edges, answers = model(tensors, tasks)
    assert edges.shape == (2, 5) and answers.shape == (2, 5)
    for row in range(2):
        alone_edges, alone_answers = model(tensors, tasks[row : row + 1])
        assert torch.allclose(alone_edges[0], edges[row], atol=1e-5), (alone_edges[0] - edges[row]).abs().max()
        assert torch.allclose(alone_answers[0], answers[row], atol=1e-5)
    assert not torch.allclose(edges[0], edges[1])  # the task is heard


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", 9, "model.layers must be between 1 and 4, got 9"),
        ("hidden", 4, "model.hidden must be between 8 and 512, got 4"),
        ("heads", 7, r"model.heads must divide model.hidden \(64\), got 7"),
        ("dropout", 1.0, r"model.dropout must be in \[0, 1\), got 1.0"),
        ("layer", "gcn", "'gcn' is not a valid LayerKind"),
    ],
)
def test_config_is_checked(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_large_graph_composes_valid_workflows() -> None:
    library = load_operations(CONF / "operations")
    graph = merge(random_workflows(library, random.Random(0), 240), library)
    assert len(graph.nodes) >= 30 and len(graph.edges) >= 200
    composed = Generator(GeneratorConfig(), graph).compose([word_task(index)[0] for index in range(64)])
    assert len(composed) == 64
    for workflow in composed:
        validate(workflow, library)


def test_untrained_generator_composes() -> None:
    assert Generator(GeneratorConfig(), merge([COT], LIBRARY)).compose([word_task(0)[0]]) == [COT]
