"""The task-conditioned graph network (paper section 3.1).

The wGraph is given a virtual task node v_task linked both ways with every node; H = GNN(X, A); every candidate edge
gets the logit s_ij = MLP([h_i, h_j, h_task, a_ij]), whose sigmoid is the paper's score. The edge attributes a_ij, the
answer head (one logit a node) and the reversed dependency edges are ours. A batch holds one copy of the wGraph a task;
texts of operations are encoded and projected once, not once a task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GINConv, HeteroConv, MessagePassing, SAGEConv

from graphflow.generator.features import Encoder, operation_text
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.step import TASK
from graphflow.wgraph.wgraph import WGraph

NODE_DIM = 6
EDGE_DIM = 4
RELATIONS = (
    ("operation", "feeds", "operation"),
    ("operation", "fed_by", "operation"),
    ("task", "asks", "operation"),
    ("operation", "answers", "task"),
)


class LayerKind(Enum):
    """Which message-passing layer."""

    GAT = "gat"
    SAGE = "sage"
    GIN = "gin"


@dataclass
class ModelConfig:
    """Shape of the network.

    Attributes:
        layer: Message-passing layer.
        layers: How many of them, 1 to 4.
        hidden: Width, 8 to 512, a multiple of ``heads``.
        heads: Attention heads of ``gat``.
        dropout: Dropout on task features and between layers, in [0, 1).
    """

    layer: LayerKind = LayerKind.SAGE
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    dropout: float = 0.3

    def __post_init__(self) -> None:
        self.layer = LayerKind(self.layer)
        if not 1 <= self.layers <= 4:
            raise ValueError(f"model.layers must be between 1 and 4, got {self.layers}")
        if not 8 <= self.hidden <= 512:
            raise ValueError(f"model.hidden must be between 8 and 512, got {self.hidden}")
        if self.heads < 1 or self.hidden % self.heads:
            raise ValueError(f"model.heads must divide model.hidden ({self.hidden}), got {self.heads}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be in [0, 1), got {self.dropout}")


@dataclass
class GraphTensors:
    """A wGraph as the network reads it.

    Attributes:
        text: Encoded operation texts ``[n, F]``, float; zeros for the task node.
        nodes: Node attributes ``[n, NODE_DIM]``, float.
        index: Edges ``[2, E]``, long: sources, then targets.
        edges: Edge attributes ``[E, EDGE_DIM]``, float.
    """

    text: Tensor
    nodes: Tensor
    index: Tensor
    edges: Tensor

    @classmethod
    def of(cls, wgraph: WGraph, encoder: Encoder) -> GraphTensors:
        """Encode a wGraph. Attributes are named in `node_attributes` and `edge_attributes`."""
        operations = [None if node.op == TASK else wgraph.library[node.op] for node in wgraph.nodes]
        pairs = [(wgraph.index(edge.source), wgraph.index(edge.target)) for edge in wgraph.edges]
        return cls(
            text=encoder.encode(["" if op is None else operation_text(op) for op in operations]),
            nodes=torch.tensor(node_attributes(wgraph)),
            index=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous(),
            edges=torch.tensor(edge_attributes(wgraph)).reshape(-1, EDGE_DIM),
        )

    def batched(self, size: int) -> dict[tuple[str, str, str], Tensor]:
        """Edge indices of ``size`` disjoint copies, by relation, each copy with its own task node."""
        n = len(self.nodes)
        copies = torch.arange(size)
        feeds = (self.index.unsqueeze(1) + n * copies.view(1, -1, 1)).reshape(2, -1)
        tasks, operations = copies.repeat_interleave(n), torch.arange(size * n)
        asks = torch.stack([tasks, operations])
        return dict(zip(RELATIONS, (feeds, feeds.flip(0), asks, asks.flip(0)), strict=True))


def node_attributes(wgraph: WGraph) -> list[list[float]]:
    """Per node: is the task, is an LLM call, is a tool, takes many inputs, samples (log2), earlier occurrences."""
    rows = []
    for node in wgraph.nodes:
        if node.op == TASK:
            rows.append([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
            continue
        operation = wgraph.library[node.op]
        flags = [operation.kind is Kind.LLM, operation.kind is Kind.TOOL, operation.arity == "many"]
        rows.append([0.0, *map(float, flags), math.log2(node.samples), node.occurrence - 1.0])
    return rows


def edge_attributes(wgraph: WGraph) -> list[list[float]]:
    """Per edge: is guarded, its guard is negated, starts at the task, share of the workflows that use it."""
    return [
        [
            float(bool(edge.guard)),
            float(edge.guard.startswith("not ")),
            float(edge.source == TASK),
            edge.count / len(wgraph.workflows),
        ]
        for edge in wgraph.edges
    ]


class GeneratorModel(nn.Module):
    """Scores every edge and every possible answer node of a wGraph for a batch of tasks."""

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        width = config.hidden
        self.operation_text = nn.Linear(features, width)
        self.operation_attributes = nn.Linear(NODE_DIM, width)
        self.task_text = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(features, width), nn.GELU(), nn.Linear(width, width)
        )
        self.convs = nn.ModuleList(
            HeteroConv({relation: build_layer(config) for relation in RELATIONS}, aggr="sum")
            for _ in range(config.layers)
        )
        self.norms = nn.ModuleList(
            nn.ModuleDict({kind: nn.LayerNorm(width) for kind in ("operation", "task")}) for _ in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        # The first layer of each MLP acts on a concatenation; it is kept as one matrix an operand, so that node terms
        # are computed once a node and not once an edge.
        self.edge_source = nn.Linear(width, width)
        self.edge_target = nn.Linear(width, width, bias=False)
        self.edge_task = nn.Linear(width, width, bias=False)
        self.edge_attributes = nn.Linear(EDGE_DIM, width, bias=False)
        self.edge_out = nn.Linear(width, 1)
        self.answer_node = nn.Linear(width, width)
        self.answer_task = nn.Linear(width, width, bias=False)
        self.answer_out = nn.Linear(width, 1)

    def forward(self, graph: GraphTensors, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """Score a wGraph for tasks.

        Args:
            graph: The wGraph, n nodes and E edges.
            tasks: Encoded task texts ``[B, F]``, float.

        Returns:
            Edge logits ``[B, E]`` and answer logits ``[B, n]``, float.
        """
        size, n = len(tasks), len(graph.nodes)
        nodes = self.operation_text(graph.text) + self.operation_attributes(graph.nodes)
        state = {"operation": nodes.repeat(size, 1), "task": self.task_text(tasks)}
        index = graph.batched(size)
        for conv, norms in zip(self.convs, self.norms, strict=True):
            update = conv(state, index)
            state = {
                kind: norms[kind](state[kind] + self.dropout(nn.functional.gelu(update[kind])))  # type: ignore[index]
                for kind in state
            }
        h, task = state["operation"].view(size, n, -1), state["task"].unsqueeze(1)
        source, target = graph.index
        pair = self.edge_source(h)[:, source] + self.edge_target(h)[:, target]
        edges = self.edge_out(nn.functional.gelu(pair + self.edge_task(task) + self.edge_attributes(graph.edges)))
        answers = self.answer_out(nn.functional.gelu(self.answer_node(h) + self.answer_task(task)))
        return edges.squeeze(-1), answers.squeeze(-1)


def build_layer(config: ModelConfig) -> MessagePassing:
    """One message-passing layer from width to width, for node sets that may differ on its two sides."""
    width = config.hidden
    match config.layer:
        case LayerKind.GAT:
            return GATConv((width, width), width // config.heads, heads=config.heads, add_self_loops=False)
        case LayerKind.SAGE:
            return SAGEConv((width, width), width)
        case LayerKind.GIN:
            mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            return GINConv(mlp, train_eps=True)
