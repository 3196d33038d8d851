"""The wGraph: all workflows merged into one DAG of operation occurrences (the paper's workflow graph).

Merging puts each step of a workflow on the first occurrence of its operation (with the same number of samples) that
the workflow has not used yet and where neither a cycle nor a contradictory order of inputs would arise; where there is
none, a further occurrence is created. So one node stands for the same work in many workflows, the graph stays a DAG,
and every workflow can be read back from the set of its edges alone. The alignment is our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import NamedTuple

import networkx as nx

from graphflow.errors import UnknownNameError, unknown_name
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import TASK, Guard, Step, Workflow, WorkflowError, validate


@dataclass(frozen=True)
class Node:
    """One occurrence of an operation, or the task.

    Attributes:
        op: Name of the operation; `TASK` for the task.
        occurrence: 1 for the first occurrence; a workflow that uses an operation twice has a second one.
        samples: Outputs drawn from one prefill.
    """

    op: str
    occurrence: int = 1
    samples: int = 1

    @property
    def id(self) -> str:
        """Its name in the graph, for example ``generate_cot``, ``run_tests#2`` or ``generate_cot x3``."""
        number = f"#{self.occurrence}" if self.occurrence > 1 else ""
        return self.op + number + (f" x{self.samples}" if self.samples > 1 else "")


@dataclass(frozen=True)
class Edge:
    """One way in which an output is read by some workflow.

    Attributes:
        source: Id of the node that produces the output.
        target: Id of the node that reads it.
        guard: Condition under which the target runs, over node ids, for example ``"not review.issues"``; ``""`` for
            always. Two workflows with different guards have two edges.
        workflows: Names of the workflows that use it.
    """

    source: str
    target: str
    guard: str
    workflows: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many workflows use it."""
        return len(self.workflows)


class Embedding(NamedTuple):
    """Where one workflow lies in the graph.

    Attributes:
        nodes: Node ids of its steps, in the order of `Workflow.steps`; the task is not among them.
        edges: Indices into `WGraph.edges`, step by step, the inputs in order.
        answer: Id of the answer's node.
    """

    nodes: tuple[str, ...]
    edges: tuple[int, ...]
    answer: str


@dataclass(frozen=True)
class WGraph:
    """All workflows as one DAG.

    Grow it with `add`: nodes keep their ids and positions, edges keep their indices.

    Attributes:
        library: The operations.
        nodes: The nodes; the first is the task.
        edges: The edges, in the order in which they came.
        workflows: The merged workflows.
        embeddings: Where each of them lies, by name.
    """

    library: Library
    nodes: tuple[Node, ...] = (Node(TASK),)
    edges: tuple[Edge, ...] = ()
    workflows: tuple[Workflow, ...] = ()
    embeddings: Mapping[str, Embedding] = field(default_factory=dict)

    def node(self, id: str) -> Node:
        """The node with this id.

        Raises:
            UnknownNameError: If there is none.
        """
        return self.nodes[self.index(id)]

    def index(self, id: str) -> int:
        """Position of a node in `nodes`; 0 is the task.

        Raises:
            UnknownNameError: If there is none.
        """
        if id not in self._positions:
            raise UnknownNameError(unknown_name("node", id, self._positions))
        return self._positions[id]

    def kind(self, id: str) -> str:
        """What a node is: ``task``, ``llm``, ``tool`` or ``control``."""
        op = self.node(id).op
        return TASK if op == TASK else self.library[op].kind.value

    def topological(self) -> tuple[str, ...]:
        """Ids of all nodes, sources first; where that leaves a choice, in the order of `nodes`."""
        return self._order

    @property
    def answers(self) -> tuple[str, ...]:
        """Ids of the nodes that give the answer of some merged workflow, in the order of `nodes`."""
        ids = {embedding.answer for embedding in self.embeddings.values()}
        return tuple(node.id for node in self.nodes if node.id in ids)

    def add(self, workflow: Workflow) -> WGraph:
        """A graph that holds one workflow more; this graph stays as it is.

        Adding a merged workflow again gives the graph back unchanged.

        Raises:
            WorkflowError: If the workflow is not valid or another one has its name.
        """
        growing = Growing(self)
        return growing.graph() if growing.add(workflow) else self

    def embed(self, workflow: Workflow | str) -> Embedding:
        """Where a merged workflow lies.

        Args:
            workflow: The workflow or its name.

        Raises:
            UnknownNameError: If no workflow of this name is merged.
            WorkflowError: If the merged workflow of this name has another structure.
        """
        name = workflow if isinstance(workflow, str) else workflow.name
        if name not in self.embeddings:
            raise UnknownNameError(unknown_name("merged workflow", name, self.embeddings))
        merged = next(other for other in self.workflows if other.name == name)
        if isinstance(workflow, Workflow):
            _check_same(workflow, merged)
        return self.embeddings[name]

    def workflow(self, edges: Iterable[int], answer: str, name: str, kinds: tuple[str, ...] = ()) -> Workflow:
        """The workflow that a set of edges makes; node ids become step ids.

        The order of inputs is the graph's own (`input_order`), so the order of ``edges`` does not matter. For the
        edges and the answer of `embed` the result has the fingerprint of the merged workflow. Whether another choice
        of edges can run is for `validate` to say.

        Args:
            edges: Indices into `edges`.
            answer: Id of the answer's node.
            name: Name of the workflow.
            kinds: Benchmark kinds it is made for.

        Raises:
            WorkflowError: If an index does not exist, the edges into a node disagree on the guard or are doubled, a
                node is read that nothing leads into, or the answer is not among the nodes.
        """
        chosen = sorted(set(edges))
        for index in chosen:
            if not 0 <= index < len(self.edges):
                raise WorkflowError(f"workflow {name!r}: edges must be 0 to {len(self.edges) - 1}, not {index}")
        into: dict[str, list[Edge]] = {}
        for index in chosen:
            into.setdefault(self.edges[index].target, []).append(self.edges[index])
        return Workflow(name, kinds, tuple(self._step(id, into[id]) for id in self.topological() if id in into), answer)

    def input_order(self, id: str) -> tuple[str, ...]:
        """Every node that leads into a node, in the order in which it reads them.

        It keeps the order of inputs of every merged workflow; where they leave a choice, what comes later in the graph
        goes first, so that ``first_nonempty`` prefers the most refined candidate.
        """
        self.index(id)
        return self._input_orders.get(id, ())

    def to_networkx(self) -> nx.MultiDiGraph:
        """The graph for networkx.

        Nodes carry ``op``, ``occurrence``, ``samples`` and ``kind``. Edges are keyed by their guard and carry
        ``index``, ``guard``, ``count`` and ``workflows``.
        """
        graph = nx.MultiDiGraph()
        for node in self.nodes:
            attributes = {"occurrence": node.occurrence, "samples": node.samples, "kind": self.kind(node.id)}
            graph.add_node(node.id, op=node.op, **attributes)
        for index, edge in enumerate(self.edges):
            attributes = {"index": index, "guard": edge.guard, "count": edge.count, "workflows": edge.workflows}
            graph.add_edge(edge.source, edge.target, key=edge.guard, **attributes)
        return graph

    def describe(self, top: int = 8) -> str:
        """A summary to print: counts, operations, workflows per benchmark kind and the ``top`` most used edges."""
        ops = sorted({node.op for node in self.nodes} - {TASK})
        by_kind: dict[str, list[str]] = {}
        for op in ops:
            by_kind.setdefault(self.library[op].kind.value, []).append(op)
        lines = [
            f"wGraph of {len(self.workflows)} workflows: {len(self.nodes)} nodes (the task is one), "
            f"{len(self.edges)} edges, {len(ops)} operations, longest path {nx.dag_longest_path_length(self._links)}",
            "operations",
            *(f"  {kind:8} {len(names):3}  {', '.join(names)}" for kind, names in sorted(by_kind.items())),
            "workflows",
        ]
        for kind in dict.fromkeys(kind for workflow in self.workflows for kind in workflow.kinds):
            names = [workflow.name for workflow in self.workflows if kind in workflow.kinds]
            lines.append(f"  {kind:9} {len(names):2}  {', '.join(names)}")
        lines.append("most used edges")
        for edge in sorted(self.edges, key=lambda edge: -edge.count)[:top]:
            guard = f"  [{edge.guard}]" if edge.guard else ""
            lines.append(f"  {edge.count:3} x  {edge.source} -> {edge.target}{guard}")
        return "\n".join(lines)

    def _step(self, id: str, edges: list[Edge]) -> Step:
        """The step that the chosen edges into a node make."""
        guards = sorted({edge.guard for edge in edges})
        if len(guards) > 1:
            given = " and ".join(repr(guard or "always") for guard in guards)
            raise WorkflowError(f"step {id!r}: the edges into it must have one guard, not {given}")
        read = {edge.source for edge in edges}
        node = self.node(id)
        inputs = tuple(source for source in self.input_order(id) if source in read)
        return Step(id, node.op, inputs, node.samples, Guard.parse(guards[0]) if guards[0] else None)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {node.id: index for index, node in enumerate(self.nodes)}

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return tuple(nx.lexicographical_topological_sort(self._links, key=self.index))

    @cached_property
    def _links(self) -> nx.DiGraph:
        """Nodes and edges without guards."""
        graph = nx.DiGraph()
        graph.add_nodes_from(node.id for node in self.nodes)
        graph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        return graph

    @cached_property
    def _input_chains(self) -> dict[str, nx.DiGraph]:
        """For each node which input some workflow reads right before which other."""
        chains: dict[str, nx.DiGraph] = {}
        for embedding in self.embeddings.values():
            inputs: dict[str, list[str]] = {}
            for edge in (self.edges[index] for index in embedding.edges):
                inputs.setdefault(edge.target, []).append(edge.source)
            for target, sources in inputs.items():
                nx.add_path(chains.setdefault(target, nx.DiGraph()), sources)
        return chains

    @cached_property
    def _input_orders(self) -> dict[str, tuple[str, ...]]:
        late_first = {id: -position for position, id in enumerate(self.topological())}
        return {
            id: tuple(nx.lexicographical_topological_sort(chain, key=late_first.__getitem__))
            for id, chain in self._input_chains.items()
        }


class Growing:
    """A graph that takes in workflows one after another, in place: `WGraph.add` for one, `merge` for many.

    Args:
        graph: What to begin with; it stays as it is.
    """

    def __init__(self, graph: WGraph) -> None:
        self.library = graph.library
        self._nodes = {node.id: node for node in graph.nodes}
        self._users = {(edge.source, edge.target, edge.guard): list(edge.workflows) for edge in graph.edges}
        self._index = {key: index for index, key in enumerate(self._users)}
        self._workflows = {workflow.name: workflow for workflow in graph.workflows}
        self._embeddings = dict(graph.embeddings)
        self._links = graph._links.copy()
        self._chains = {id: chain.copy() for id, chain in graph._input_chains.items()}

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return len(self._users)

    def add(self, workflow: Workflow) -> bool:
        """Take in a workflow; False if it is there already.

        Raises:
            WorkflowError: If the workflow is not valid or another one has its name.
        """
        validate(workflow, self.library)
        if workflow.name in self._workflows:
            _check_same(workflow, self._workflows[workflow.name])
            return False
        place, used, taken = {TASK: TASK}, list[tuple[str, str, str]](), {TASK}
        for step in workflow.steps:
            sources = [place[name] for name in step.inputs]
            node = self._place(step, sources, taken)
            self._nodes.setdefault(node.id, node)
            place[step.id] = node.id
            taken.add(node.id)
            guard = str(replace(step.when, step=place[step.when.step])) if step.when else ""
            for source in sources:
                key = (source, node.id, guard)
                self._index.setdefault(key, len(self._index))
                self._users.setdefault(key, []).append(workflow.name)
                self._links.add_edge(source, node.id)
                used.append(key)
            nx.add_path(self._chains.setdefault(node.id, nx.DiGraph()), sources)
        self._workflows[workflow.name] = workflow
        self._embeddings[workflow.name] = Embedding(
            nodes=tuple(place[step.id] for step in workflow.steps),
            edges=tuple(self._index[key] for key in used),
            answer=place[workflow.answer],
        )
        return True

    def graph(self) -> WGraph:
        """The graph of everything that was taken in."""
        edges = tuple(Edge(*key, workflows=tuple(names)) for key, names in self._users.items())
        nodes = tuple(self._nodes.values())
        return WGraph(self.library, nodes, edges, tuple(self._workflows.values()), dict(self._embeddings))

    def _place(self, step: Step, sources: list[str], taken: set[str]) -> Node:
        """The first occurrence that can stand for a step."""
        for occurrence in count(1):
            node = Node(step.op, occurrence, step.samples)
            if node.id in taken:
                continue
            if node.id not in self._nodes:
                return node
            if not self._leads(node.id, set(sources)) and self._agrees(node.id, sources):
                return node
        raise AssertionError("a new occurrence always fits")

    def _leads(self, id: str, targets: set[str]) -> bool:
        """Whether a way leads from a node to one of some others."""
        seen, waiting = {id}, [id]
        while waiting:
            for after in self._links[waiting.pop()]:
                if after in targets:
                    return True
                if after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return False

    def _agrees(self, id: str, sources: list[str]) -> bool:
        """Whether some order of a node's inputs keeps both the merged workflows' order and this one."""
        nx.add_path(orders := self._chains.get(id, nx.DiGraph()).copy(), sources)
        return nx.is_directed_acyclic_graph(orders)


def _check_same(workflow: Workflow, merged: Workflow) -> None:
    """Refuse a workflow of another structure than the merged one of its name."""
    if workflow.fingerprint != merged.fingerprint:
        raise WorkflowError(
            f"{workflow} has the structure {workflow.fingerprint}, but the merged workflow of this name has "
            f"{merged.fingerprint}; give it another name"
        )


def merge(workflows: Iterable[Workflow] | Mapping[str, Workflow], library: Library) -> WGraph:
    """Merge workflows into one graph, one after another.

    Args:
        workflows: The workflows, or a mapping of names to them as `load_workflows` gives it.
        library: Their operations.

    Raises:
        WorkflowError: If a workflow is not valid or two different ones share a name.
    """
    growing = Growing(WGraph(library))
    for workflow in workflows.values() if isinstance(workflows, Mapping) else workflows:
        growing.add(workflow)
    return growing.graph()
