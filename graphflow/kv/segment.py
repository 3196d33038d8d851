"""Segments and contexts: runs of tokens whose KV can be moved, and ordered lists of them (frames: our choice).

A segment's keys are stored at local positions 0..L-1, so that one tensor serves wherever the segment lies. A context
is a list of (segment, offset); forking a branch copies the list, never a tensor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from graphflow.kv.accounting import tensor_bytes
from graphflow.kv.codecs.base import Codec, Encoded
from graphflow.kv.rope import Rope


class SegmentKind(Enum):
    """What a segment's tokens are."""

    OPERATION = "operation"
    """Static prompt of an operation."""
    DYNAMIC = "dynamic"
    """Text of one request: task, output, tool result."""


def to_absolute(kv: Tensor, offset: int, rope: Rope) -> Tensor:
    """A segment's KV with its keys moved from local positions to ``offset``...

    Args:
        kv: (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.
        offset: Position of the first token in the context.
        rope: Rotary embedding of the model.

    Returns:
        A copy in the same shape and dtype; values are untouched.
    """
    moved = kv.clone(memory_format=torch.contiguous_format)
    if offset:
        moved[:, 0] = rope.rotate(kv[:, 0], offset)
    return moved


def to_local(kv: Tensor, offset: int, rope: Rope) -> Tensor:
    """The inverse of `to_absolute`: a slice of a cache, taken at positions ``offset``..., moved to the local frame.

    The result owns its memory, so the cache it was cut from can be freed.
    """
    return to_absolute(kv, -offset, rope)


class Piece(ABC):
    """A run of tokens with KV in the local frame. Equality is identity: one object is one piece of memory.

    Attributes:
        tokens: Token ids, (L,).
        kind: Operation prompt or dynamic text.
        shared: True if the store owns the KV, not a request.
    """

    tokens: tuple[int, ...]
    kind: SegmentKind
    shared: bool

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.tokens)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that a request holding this piece keeps of its own; 0 for shared ones."""

    @abstractmethod
    def tensor(self) -> Tensor:
        """Dense KV, (layers, 2, kv_heads, L, head_dim), keys at local positions."""

    def slice(self, start: int, stop: int, rope: Rope, shared: bool = False) -> Segment:
        """Tokens [start, stop) as a segment with its own local frame.

        The result is a copy: it counts as the caller's own unless ``shared`` says that the store holds it.

        Raises:
            ValueError: Not 0 <= start <= stop <= length.
        """
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"slice must satisfy 0 <= start <= stop <= {self.length}, got {start}, {stop}")
        kv = to_local(self.tensor()[:, :, :, start:stop], start, rope)
        return Segment(self.tokens[start:stop], kv, self.kind, shared)


@dataclass(frozen=True, eq=False)
class Segment(Piece):
    """A piece whose KV is kept densely.

    Attributes:
        tokens: Token ids, (L,).
        kv: (layers, 2, kv_heads, L, head_dim); [:, 0] keys at local positions, [:, 1] values.
        kind: Operation prompt or dynamic text.
        shared: True if the store owns the KV.

    Raises:
        ValueError: ``kv`` does not have that shape.
    """

    tokens: tuple[int, ...]
    kv: Tensor
    kind: SegmentKind
    shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        _check_kv(self.kv, len(self.tokens))

    @property
    def nbytes(self) -> int:
        """Bytes of the dense KV; 0 if shared."""
        return 0 if self.shared else tensor_bytes(self.kv)

    def tensor(self) -> Tensor:
        """The KV itself, not a copy."""
        return self.kv


@dataclass(frozen=True, eq=False)
class EncodedSegment(Piece):
    """An operation prompt kept as base (+ path mean) + encoded remainder of one request.

    Attributes:
        tokens: Token ids, (L,).
        base: The operation's base, (layers, 2, kv_heads, L, head_dim), owned by the store.
        mean: Encoded mean of the path, owned by the store; None if the path has none.
        remainder: What base and mean leave of this request's exact KV.
        codec: Decodes mean and remainder.
        kind: Operation prompt or dynamic text.
        shared: Always False in use: the remainder is one request's.

    Raises:
        ValueError: ``base`` does not have that shape.
    """

    tokens: tuple[int, ...]
    base: Tensor
    mean: Encoded | None
    remainder: Encoded
    codec: Codec
    kind: SegmentKind = SegmentKind.OPERATION
    shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(self.tokens))
        _check_kv(self.base, len(self.tokens))

    @classmethod
    def encode(
        cls, tokens: tuple[int, ...], base: Tensor, mean: Encoded | None, kv: Tensor, codec: Codec
    ) -> EncodedSegment:
        """Encode what base and mean leave of ``kv`` (same shape and frame as ``base``)."""
        reference = _reference(base, mean, codec)
        return cls(tokens, base, mean, codec.encode(kv.to(torch.float32) - reference), codec)

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded remainder; base and mean are the store's."""
        return 0 if self.shared else self.remainder.nbytes

    def tensor(self) -> Tensor:
        """Reconstructed KV in the base's dtype; decoded anew on every call."""
        whole = _reference(self.base, self.mean, self.codec) + self.codec.decode(self.remainder)
        return whole.to(self.base.dtype)


@dataclass(frozen=True, eq=False)
class Context:
    """An immutable ordered list of pieces, each at its offset, and the operations that are in it.

    An operation's prompt is appended (as one or more pieces of kind OPERATION in a row) and then named by
    `with_operation`; its output follows as a dynamic piece.

    Attributes:
        pieces: (piece, offset) in order, without gaps.
        path: Operations whose prompts are in the context, in order.
        marks: For every piece, how long the path was after it.
    """

    pieces: tuple[tuple[Piece, int], ...] = ()
    path: tuple[str, ...] = ()
    marks: tuple[int, ...] = ()

    @property
    def length(self) -> int:
        """Tokens, which is the position of the next one."""
        if not self.pieces:
            return 0
        piece, offset = self.pieces[-1]
        return offset + piece.length

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token ids of all pieces."""
        return tuple(token for piece, _ in self.pieces for token in piece.tokens)

    def append(self, segment: Piece) -> Context:
        """This context followed by one more piece."""
        return Context((*self.pieces, (segment, self.length)), self.path, (*self.marks, len(self.path)))

    def with_operation(self, name: str) -> Context:
        """This context with an operation added to its path: the one whose prompt was appended last.

        Called before the prompt is appended it works too: the pieces that follow are then the operation's.
        """
        path = (*self.path, name)
        marks = self.marks
        if self.pieces and self.pieces[-1][0].kind is SegmentKind.OPERATION:
            marks = (*marks[:-1], len(path))
        return Context(self.pieces, path, marks)

    def is_prefix_of(self, other: Context) -> bool:
        """True if the other context begins with these very pieces (the same objects, not equal ones)."""
        return self._shared_pieces(other) == len(self.pieces)

    def common_prefix(self, other: Context) -> Context:
        """The longest context that both begin with.

        Where both go on differently inside an operation's prompt (its shared part is the same object, its exact tail is
        not) the cut is before that prompt, so that a prefix never ends in the middle of one.
        """
        count = self._shared_pieces(other)
        if count < min(len(self.pieces), len(other.pieces)):
            while count and any(context._inside_prompt(count) for context in (self, other)):
                count -= 1
        path = _common(self._path_at(count), other._path_at(count))
        return Context(self.pieces[:count], path, tuple(min(mark, len(path)) for mark in self.marks[:count]))

    def own_bytes(self) -> tuple[int, int]:
        """Bytes that this context keeps of its own: (operation state, dynamic text)."""
        return own_bytes((self,))

    def materialize(self, rope: Rope, dtype: torch.dtype) -> Tensor:
        """Dense KV of the whole context, keys at absolute positions.

        Args:
            rope: Rotary embedding of the model.
            dtype: Dtype of the result.

        Returns:
            (layers, 2, kv_heads, T, head_dim), a fresh tensor on the device of the first piece.

        Raises:
            ValueError: The context is empty.
        """
        if not self.pieces:
            raise ValueError("an empty context has no KV to materialize: append a segment first")
        whole: Tensor | None = None
        for piece, offset in self.pieces:
            kv = piece.tensor()
            if whole is None:
                layers, sides, heads, _, dim = kv.shape
                whole = torch.empty((layers, sides, heads, self.length, dim), dtype=dtype, device=kv.device)
            place = whole[:, :, :, offset : offset + piece.length]
            place[:, 0] = rope.rotate(kv[:, 0], offset)
            place[:, 1] = kv[:, 1]
        assert whole is not None
        return whole

    def _shared_pieces(self, other: Context) -> int:
        """How many pieces both contexts begin with."""
        count = 0
        for (mine, _), (theirs, _) in zip(self.pieces, other.pieces, strict=False):
            if mine is not theirs:
                break
            count += 1
        return count

    def _path_at(self, count: int) -> tuple[str, ...]:
        """The path after ``count`` pieces."""
        if count == len(self.pieces):
            return self.path
        return self.path[: self.marks[count - 1]] if count else ()

    def _inside_prompt(self, count: int) -> bool:
        """True if a cut after ``count`` pieces lies between two pieces of one operation's prompt."""
        if count >= len(self.pieces):
            return False
        before, after = self.pieces[count - 1][0], self.pieces[count][0]
        return before.kind is SegmentKind.OPERATION and after.kind is SegmentKind.OPERATION


def own_bytes(contexts: Iterable[Context]) -> tuple[int, int]:
    """Bytes that these contexts keep of their own: (operation state, dynamic text).

    Every distinct piece counts once however many contexts hold it; pieces of the store count 0.
    """
    distinct = {id(piece): piece for context in contexts for piece, _ in context.pieces}
    operation = sum(piece.nbytes for piece in distinct.values() if piece.kind is SegmentKind.OPERATION)
    return operation, sum(piece.nbytes for piece in distinct.values()) - operation


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    """Longest common prefix of two paths."""
    count = 0
    while count < min(len(first), len(second)) and first[count] == second[count]:
        count += 1
    return first[:count]


def _reference(base: Tensor, mean: Encoded | None, codec: Codec) -> Tensor:
    """Base plus decoded mean, float32."""
    reference = base.to(torch.float32)
    return reference if mean is None else reference + codec.decode(mean)


def _check_kv(kv: Tensor, tokens: int) -> None:
    if kv.ndim != 5 or kv.shape[1] != 2 or kv.shape[3] != tokens:
        raise ValueError(
            f"KV of {tokens} tokens must have shape (layers, 2, kv_heads, {tokens}, head_dim), got {tuple(kv.shape)}"
        )
