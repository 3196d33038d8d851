"""Exact sharing of common prefixes: what PagedAttention's prefix caching and RadixAttention give.

A radix tree over token ids. A node holds the KV of its own tokens, so every token that several contexts begin with is
kept once; the state of a token is exact for each of them, because everything before it is the same. Sharing ends at the
first token that differs (SGLang's granularity; vLLM shares whole blocks of 16 tokens, which is never more).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphflow.kv.budget import BudgetError
from graphflow.kv.codecs import Codec
from graphflow.kv.context import Context
from graphflow.kv.rope import Rope
from graphflow.kv.segment import CodedSegment, Piece, Segment, SegmentKind, pack


@dataclass(eq=False)
class _Node:
    """A run of tokens after its parent's.

    Attributes:
        segment: Tokens with KV in their own local frame, never empty but for the root.
        parent: What comes before; None for the root.
        children: What may follow, by first token.
        used: Number of the last match or insertion that touched it.
        pinned: True if it is never evicted.
    """

    segment: Segment | CodedSegment | None
    parent: _Node | None
    children: dict[int, _Node] = field(default_factory=dict)
    used: int = 0
    pinned: bool = False


class PrefixTree:
    """KV of contexts by their tokens, every common prefix once.

    Attributes:
        pinned_bytes: Bytes of what is never evicted.
        added: Bytes of everything that was ever inserted, by kind; what is pinned left out.
        evicted: Leaves that were evicted.

    Args:
        rope: Rotary embedding of the model.
        nbytes: Bytes kept at most after `trim`; the least recently used leaves go first. 0 for no bound.
        codec: Encodes dynamic text; what later contexts read is what it decodes to. None keeps text as it is.

    Raises:
        ValueError: ``nbytes`` is negative.
    """

    def __init__(self, rope: Rope, nbytes: int = 0, codec: Codec | None = None) -> None:
        if nbytes < 0:
            raise ValueError(f"nbytes must be 0 or more, got {nbytes}")
        self._rope, self._limit, self._codec = rope, nbytes, codec
        self._root = _Node(None, None)
        self._clock = itertools.count(1)
        self._bytes = dict.fromkeys(SegmentKind, 0)
        self.pinned_bytes = 0
        self.added = dict.fromkeys(SegmentKind, 0)
        self.evicted = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all KV in the tree."""
        return sum(self._bytes.values())

    def bytes_of(self, kind: SegmentKind) -> int:
        """Bytes of the KV of operation prompts, or of dynamic text."""
        return self._bytes[kind]

    @property
    def tokens(self) -> int:
        """Tokens in the tree."""
        return sum(node.segment.length for node in self._nodes() if node.segment)

    def match(self, tokens: Sequence[int]) -> Context:
        """The longest beginning of some tokens whose KV is there.

        A node that only begins like them is split, so that what is handed out ends where they part.

        Args:
            tokens: Token ids from the beginning of a context.

        Returns:
            A context of shared segments; empty if not even the first token is known.
        """
        now, node, context = next(self._clock), self._root, Context()
        while context.length < len(tokens):
            child = node.children.get(tokens[context.length])
            if child is None:
                break
            assert child.segment is not None
            rest = tokens[context.length : context.length + child.segment.length]
            same = _common(child.segment.tokens, rest)
            if same < child.segment.length:
                child = self._split(child, same)
            child.used, node = now, child
            context = context.append(child.segment)  # type: ignore[arg-type]
        return context

    def insert(
        self, before: Context, tokens: Sequence[int], kv: Tensor, kind: SegmentKind, pinned: bool = False
    ) -> Context:
        """Add tokens after a context that the tree gave out; the bound is kept by `trim`.

        Args:
            before: What `match` or `insert` returned.
            tokens: The tokens that follow, at least one.
            kv: Their KV, (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.
            kind: Operation prompt or dynamic text.
            pinned: Never evict these tokens; what they follow is pinned too.

        Returns:
            The context with these tokens. Those that the tree has already keep the KV that is there.

        Raises:
            ValueError: No tokens, or a context that is not the tree's.
        """
        if not tokens:
            raise ValueError("insert needs at least one token, got none")
        node = self._find(before)
        own = Segment(tuple(tokens), kv, kind, shared=True)
        known = self.match((*before.tokens, *tokens))
        same = known.length - before.length
        if same:
            node = self._find(known)
            if same == len(tokens):
                return known
            own = own.slice(same, len(tokens), self._rope, shared=True)
        kept = pack(own.tokens, own.kv, kind, self._rope, self._codec_of(kind), shared=True)
        node.children[kept.tokens[0]] = _Node(kept, node, used=next(self._clock), pinned=pinned)
        self._bytes[kind] += kept.size
        if pinned:
            self.pinned_bytes += kept.size
        else:
            self.added[kind] += kept.size
        return known.append(kept)

    def trim(self) -> None:
        """Evict least recently used leaves until the bound holds.

        Raises:
            BudgetError: What is pinned alone takes more than the bound.
        """
        if not self._limit or self.nbytes <= self._limit:
            return
        if self.pinned_bytes > self._limit:
            raise BudgetError(
                f"store_bytes must be at least {self.pinned_bytes:,} to hold the prompts, got {self._limit:,}"
            )
        order = itertools.count()
        leaves = [(n.used, next(order), n) for n in self._nodes() if not n.children and not n.pinned]
        heapq.heapify(leaves)
        while leaves and self.nbytes > self._limit:
            _, _, leaf = heapq.heappop(leaves)
            assert leaf.segment is not None and leaf.parent is not None
            parent = leaf.parent
            del parent.children[leaf.segment.tokens[0]]
            self._bytes[leaf.segment.kind] -= leaf.segment.size
            self.evicted += 1
            if not parent.children and parent.parent is not None and not parent.pinned:
                heapq.heappush(leaves, (parent.used, next(order), parent))

    def _codec_of(self, kind: SegmentKind) -> Codec | None:
        return self._codec if kind is SegmentKind.DYNAMIC else None

    def _find(self, context: Context) -> _Node:
        """The node that a context ends at."""
        node = self._root
        for piece, _ in context.pieces:
            node = self._step(node, piece)
        return node

    def _step(self, node: _Node, piece: Piece) -> _Node:
        """The node below ``node`` that ends with a piece; a piece that was split since is several nodes."""
        passed = 0
        while passed < piece.length:
            child = node.children.get(piece.tokens[passed])
            if child is None or child.segment is None:
                break
            length = child.segment.length
            if child.segment.tokens != piece.tokens[passed : passed + length]:
                break
            node, passed = child, passed + length
        if passed != piece.length:
            raise ValueError("the context does not lie in this tree (or was evicted); match its tokens again")
        return node

    def _split(self, node: _Node, length: int) -> _Node:
        """Cut a node after ``length`` tokens; gives the upper part."""
        segment, parent = node.segment, node.parent
        assert segment is not None and parent is not None
        first, last = self._part(segment, 0, length), self._part(segment, length, segment.length)
        grown = first.size + last.size - segment.size  # scales of both halves
        self._bytes[segment.kind] += grown
        if node.pinned:
            self.pinned_bytes += grown
        else:
            self.added[segment.kind] += grown
        upper = _Node(first, parent, used=node.used, pinned=node.pinned)
        node.segment = last
        parent.children[segment.tokens[0]] = upper
        upper.children[last.tokens[0]], node.parent = node, upper
        return upper

    def _part(self, segment: Segment | CodedSegment, start: int, stop: int) -> Segment | CodedSegment:
        """Tokens [start, stop) as a node of their own; encoded text is encoded again."""
        part = segment.slice(start, stop, self._rope, shared=True)
        return pack(part.tokens, part.kv, part.kind, self._rope, self._codec_of(part.kind), shared=True)

    def _nodes(self) -> Iterator[_Node]:
        waiting = [*self._root.children.values()]
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            yield node


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common beginning."""
    count = 0
    for mine, theirs in zip(first, second, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
