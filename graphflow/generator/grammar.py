"""Which choices a half-built workflow leaves (paper section 3.1: connected, acyclic, reachable, executable).

A workflow is built backwards. First the answer node is chosen; then, from the latest needed node to the earliest, each
needed node chooses the edges that lead into it: one edge where its operation takes one input, a yes or no for every
edge in turn where it takes many. What a chosen edge starts from is needed in turn, until only the task is left. So
nothing can be disconnected, cyclic or dead. The other rules of `graphflow.wgraph.validation` look ahead: a choice
is allowed exactly if the workflow can still be finished, which a memoised search over the rest of the graph answers.

Two rules are stricter than validation: the answer node draws one sample, and some path without guards leads from the
task to the answer (validation also accepts guards that cover each other). The procedure is our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from graphflow.wgraph.operation import Kind
from graphflow.wgraph.step import Guard
from graphflow.wgraph.validation import ANSWER_TYPES
from graphflow.wgraph.wgraph import Edge, WGraph

UNSET = "?"


class State(NamedTuple):
    """A half-built workflow, as far as it matters for what can follow. Nodes are named by their topological rank.

    Attributes:
        node: Node whose inputs are being chosen.
        cursor: Next edge to say yes or no to, among the edges into ``node``.
        chosen: Bits of the sources chosen for ``node`` so far.
        guard: Guard that the chosen edges carry; `UNSET` before the first.
        needed: Bits of the nodes still to be expanded, below ``node``.
        calls: Language-model calls so far, needed nodes included.
        wanted: Pairs of bits (any of these nodes, must be reached from one of those).
        always: Bits of the nodes from which a path without guards leads to the answer; 1 once it has met the task.
    """

    node: int
    cursor: int
    chosen: int
    guard: str
    needed: int
    calls: int
    wanted: frozenset[tuple[int, int]]
    always: int


class Option(NamedTuple):
    """One allowed choice.

    Attributes:
        logit: What scores it: an edge's index, E + a node's index for an answer, or E + n for "no".
        state: What follows.
    """

    logit: int
    state: State


START = State(-1, 0, 0, UNSET, 0, 0, frozenset(), 0)
DONE = State(0, 0, 0, UNSET, 0, 0, frozenset(), 1)


class Grammar:
    """The choices that one wGraph offers.

    Attributes:
        wgraph: The graph.
        max_llm_calls: Language-model calls a workflow may take at most, samples counted.
        size: Number of edges and nodes: the choices are scored by that many logits, edges first.
    """

    def __init__(self, wgraph: WGraph, max_llm_calls: int = 8, edges: Iterable[int] | None = None) -> None:
        """Read a wGraph.

        Args:
            wgraph: The graph.
            max_llm_calls: See the class.
            edges: Indices of the edges that may be used; all of them by default.

        Raises:
            ValueError: No workflow fits.
        """
        if max_llm_calls < 1:
            raise ValueError(f"max_llm_calls must be at least 1, got {max_llm_calls}")
        self.wgraph, self.max_llm_calls = wgraph, max_llm_calls
        self.size = len(wgraph.edges) + len(wgraph.nodes)
        order = wgraph.topological()
        self._rank = {id: rank for rank, id in enumerate(order)}
        self._nodes = [wgraph.node(id) for id in order]
        operations = [None if rank == 0 else wgraph.library[node.op] for rank, node in enumerate(self._nodes)]
        self._many = [op is not None and op.arity == "many" for op in operations]
        is_llm = [op is not None and op.kind is Kind.LLM for op in operations]
        self._cost = [node.samples if llm else 0 for node, llm in zip(self._nodes, is_llm, strict=True)]
        makes: dict[str, int] = {}
        for rank, op in enumerate(operations):
            if op is not None:
                makes[op.produces] = makes.get(op.produces, 0) | 1 << rank
        self._requires = [
            frozenset(makes.get(kind, 0) for kind in op.requires if kind != "task") if op else frozenset()
            for op in operations
        ]
        self._into: list[list[tuple[int, int, str, int]]] = [[] for _ in order]
        for index in sorted(range(len(wgraph.edges)) if edges is None else set(edges)):
            edge = wgraph.edges[index]
            if self._fits(edge):
                source, guard = self._rank[edge.source], edge.guard
                watched = 1 << self._rank[Guard.parse(guard).step] if guard else 0
                self._into[self._rank[edge.target]].append((index, source, guard, watched))
        self._close()
        self._answers = [
            rank
            for rank, op in enumerate(operations)
            if op is not None and op.produces in ANSWER_TYPES and self._nodes[rank].samples == 1
        ]
        self._options: dict[State, tuple[Option, ...]] = {}
        self._possible: dict[State, bool] = {DONE: True}
        if not self.options(START):
            raise ValueError(
                f"no workflow of at most {max_llm_calls} language-model calls fits in this wGraph "
                f"({len(wgraph.nodes)} nodes, {sum(map(len, self._into))} usable edges)"
            )

    def takes_many(self, id: str) -> bool:
        """Whether a node chooses among its edges one by one (many inputs) and not one of all."""
        return self._many[self._rank[id]]

    def options(self, state: State) -> tuple[Option, ...]:
        """The choices from which the workflow can still be finished; never empty after `START`, empty at `DONE`."""
        found = self._options.get(state)
        if found is None:
            found = tuple(option for option in self._choices(state) if self._finishes(option.state))
            self._options[state] = found
        return found

    def _fits(self, edge: Edge) -> bool:
        """Whether an edge may be used at all: types, samples into a single input, and a guard that can be read."""
        library, source, target = self.wgraph.library, self.wgraph.node(edge.source), self.wgraph.node(edge.target)
        reader = library[target.op]
        kind = "task" if self._rank[edge.source] == 0 else library[source.op].produces
        if kind not in reader.accepts or (reader.arity == "one" and source.samples > 1):
            return False
        if not edge.guard:
            return True
        guard = Guard.parse(edge.guard)
        if not 0 < self._rank.get(guard.step, 0) < self._rank[edge.target]:
            return False
        watched = self.wgraph.node(guard.step)
        return watched.samples == 1 and guard.field in library[watched.op].fields

    def _close(self) -> None:
        """For each node: everything it can be reached from, and whether the task is, without a guard on the way."""
        self._above, self._open = [0], 1
        for rank in range(1, len(self._nodes)):
            above = 0
            for _, source, guard, _ in self._into[rank]:
                above |= self._above[source] | 1 << source
                if not guard and self._open >> source & 1:
                    self._open |= 1 << rank
            self._above.append(above)

    def _choices(self, state: State) -> Iterator[Option]:
        """The choices that break no rule by themselves."""
        if state == START:
            for rank in self._answers:
                bit = 1 << rank
                following = self._enter(bit, self._cost[rank], frozenset(), bit)
                if following is not None:
                    yield Option(len(self.wgraph.edges) + self.wgraph.index(self._nodes[rank].id), following)
            return
        into = self._into[state.node]
        if not self._many[state.node]:
            for index, source, guard, watched in into:
                following = self._leave(state, 1 << source, guard, watched)
                if following is not None:
                    yield Option(index, following)
        elif state.cursor < len(into):
            index, source, guard, _ = into[state.cursor]
            take = state._replace(cursor=state.cursor + 1, chosen=state.chosen | 1 << source, guard=guard)
            skip = state._replace(cursor=state.cursor + 1)
            for logit, following in ((index, self._step(take)), (self.size, self._step(skip))):
                if following is not None:
                    yield Option(logit, following)

    def _step(self, state: State) -> State | None:
        """A node with many inputs after one yes or no: itself, or what follows if that was its last edge."""
        into = self._into[state.node]
        while state.chosen and state.cursor < len(into):  # edges that cannot be chosen any more need no decision
            _, source, guard, _ = into[state.cursor]
            if guard == state.guard and not state.chosen >> source & 1:
                return state
            state = state._replace(cursor=state.cursor + 1)
        if state.cursor < len(into):
            return state
        if not state.chosen:
            return None
        watched = 1 << self._rank[Guard.parse(state.guard).step] if state.guard else 0
        return self._leave(state, state.chosen, state.guard, watched)

    def _leave(self, state: State, chosen: int, guard: str, watched: int) -> State | None:
        """What follows once a node has its inputs; None if a rule is broken for good."""
        bit = 1 << state.node
        fresh = chosen & ~state.needed & ~1
        calls = state.calls + sum(self._cost[rank] for rank in _ranks(fresh))
        wanted = {(any_of, chosen & ~1) for any_of in self._requires[state.node] if not any_of & chosen}
        if watched and not watched & chosen:
            wanted.add((watched, chosen & ~1))
        for any_of, below in state.wanted:
            if not below & bit:
                wanted.add((any_of, below))
            elif not any_of & chosen:
                wanted.add((any_of, (below & ~bit | chosen) & ~1))
        always = state.always
        if always & bit:
            always = always & ~bit | (0 if guard else chosen)
        return self._enter(state.needed | fresh, calls, frozenset(wanted), 1 if always & 1 else always)

    def _enter(self, needed: int, calls: int, wanted: frozenset[tuple[int, int]], always: int) -> State | None:
        """The state at the latest needed node, `DONE`, or None if a rule is broken for good."""
        if calls > self.max_llm_calls or not always & self._open:
            return None
        for any_of, below in wanted:
            if not any(self._above[rank] & any_of for rank in _ranks(below)):
                return None
        if not needed:
            return DONE
        node = needed.bit_length() - 1
        return State(node, 0, 0, UNSET, needed & ~(1 << node), calls, wanted, always)

    def _finishes(self, state: State) -> bool:
        """Whether some sequence of choices leads from a state to `DONE`: depth first, every state looked at once."""
        if state in self._possible:
            return self._possible[state]
        stack = [(state, self._ways_on(state))]
        while stack:
            here, ways = stack[-1]
            for following in ways:
                known = self._possible.get(following)
                if known:
                    self._possible.update((visited, True) for visited, _ in stack)
                    return True
                if known is None:
                    stack.append((following, self._ways_on(following)))
                    break
            else:
                self._possible[here] = False
                stack.pop()
        return False

    def _ways_on(self, state: State) -> Iterator[State]:
        """States at the next node that are enough to look at: if the workflow can be finished, one of them can be.

        A node with many inputs needs no more further edges than there are demands that pass through it: each demand
        is met behind one of them, and whatever hangs on an edge more costs calls and can only make demands of its own.
        """
        if state == START or not self._many[state.node]:
            yield from (option.state for option in self._choices(state))
            return
        bit, into = 1 << state.node, self._into[state.node][state.cursor :]
        demands = sum(bool(below & bit) for _, below in state.wanted) + len(self._requires[state.node])
        demands += bool(state.always & bit)
        for guard in [state.guard] if state.chosen else dict.fromkeys(edge[2] for edge in into):
            watched = 1 << self._rank[Guard.parse(guard).step] if guard else 0
            pool = [source for _, source, other, _ in into if other == guard and not state.chosen >> source & 1]
            most = min(len(pool), demands + bool(watched))
            for size in range(0 if state.chosen else 1, max(most, 0 if state.chosen else 1) + 1):
                for extra in combinations(pool, size):
                    chosen = state.chosen | sum(1 << source for source in extra)
                    following = self._leave(state, chosen, guard, watched)
                    if following is not None:
                        yield following


def _ranks(bits: int) -> Iterator[int]:
    """Positions of the bits that are set."""
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
