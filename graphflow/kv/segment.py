"""Segments: runs of tokens whose KV can be moved (frames: our choice).

A segment's keys are stored at local positions 0..L-1, so that one tensor serves wherever the segment lies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    def nbytes(self) -> int:
        """Bytes that a request holding this piece keeps of its own; 0 for shared ones."""
        return 0 if self.shared else self.size

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of what is kept for this piece alone, whoever owns it."""

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
    def size(self) -> int:
        """Bytes of the dense KV."""
        return tensor_bytes(self.kv)

    def tensor(self) -> Tensor:
        """The KV itself, not a copy."""
        return self.kv


@dataclass(frozen=True, eq=False)
class EncodedSegment(Piece):
    """An operation prompt kept as base (+ path mean) + encoded remainder of one request, or of a path.

    Attributes:
        tokens: Token ids, (L,).
        base: The operation's base, (layers, 2, kv_heads, L, head_dim), owned by the store.
        mean: Encoded mean of the path, owned by the store; None if the path has none.
        remainder: What base and mean leave of this request's exact KV; the residual of a path.
        codec: Decodes mean and remainder.
        kind: Operation prompt or dynamic text.
        shared: True if the store owns the remainder too.

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
        cls,
        tokens: tuple[int, ...],
        base: Tensor,
        mean: Encoded | None,
        kv: Tensor,
        codec: Codec,
        weight: Tensor | None = None,
    ) -> EncodedSegment:
        """Encode what base and mean leave of ``kv`` (same shape and frame as ``base``); weight as in `Codec.encode`."""
        reference = _reference(base, mean, codec)
        return cls(tokens, base, mean, codec.encode(kv.to(torch.float32) - reference, weight), codec)

    @property
    def size(self) -> int:
        """Bytes of the encoded remainder; base and mean are the store's."""
        return self.remainder.nbytes

    def tensor(self) -> Tensor:
        """Reconstructed KV in the base's dtype; decoded anew on every call."""
        whole = _reference(self.base, self.mean, self.codec) + self.codec.decode(self.remainder)
        return whole.to(self.base.dtype)


@dataclass(frozen=True, eq=False)
class CodedSegment(Piece):
    """A piece whose KV itself is kept by a codec: quantised state, and text of one request.

    Every token's key is encoded as if it stood at position 0, where a channel has the same range for all of them (as
    KIVI and KVQuant do); a channel that turns with the position takes its whole circle.

    Attributes:
        tokens: Token ids, (L,).
        coded: The KV, encoded with each key at position 0.
        codec: Decodes it.
        kind: Operation prompt or dynamic text.
        dtype: Dtype in which KV is read.
        rope: Rotary embedding of the model.
        shared: True if the store owns the KV.
    """

    tokens: tuple[int, ...]
    coded: Encoded
    codec: Codec
    kind: SegmentKind
    dtype: torch.dtype
    rope: Rope
    shared: bool = False

    @property
    def size(self) -> int:
        """Bytes of everything that is stored: values, bitmaps, scales."""
        return self.coded.nbytes

    def tensor(self) -> Tensor:
        """Decoded KV, anew on every call."""
        return _turned(self.codec.decode(self.coded), self.rope, torch.arange(self.length)).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Cut(Piece):
    """Tokens [start, stop) of another piece, moved to a frame of their own when they are read; holds nothing itself.

    Attributes:
        of: The piece that is kept.
        start: First token.
        stop: Token after the last.
        rope: Rotary embedding of the model.
    """

    of: Piece
    start: int
    stop: int
    rope: Rope

    @property
    def tokens(self) -> tuple[int, ...]:  # type: ignore[override]
        """Token ids, (stop - start,)."""
        return self.of.tokens[self.start : self.stop]

    @property
    def kind(self) -> SegmentKind:  # type: ignore[override]
        """Kind of the piece that is kept."""
        return self.of.kind

    @property
    def shared(self) -> bool:  # type: ignore[override]
        """Whether the store owns the piece that is kept."""
        return self.of.shared

    @property
    def size(self) -> int:
        """Nothing: the bytes are those of the piece that is kept."""
        return 0

    def tensor(self) -> Tensor:
        """KV of these tokens, a copy."""
        return to_local(self.of.tensor()[:, :, :, self.start : self.stop], self.start, self.rope)


def pack(
    tokens: tuple[int, ...], kv: Tensor, kind: SegmentKind, rope: Rope, codec: Codec | None, shared: bool = False
) -> Segment | CodedSegment:
    """KV as it is kept between steps.

    Args:
        tokens: Token ids, (L,).
        kv: Their KV, keys at local positions, in the dtype in which it is read.
        kind: Operation prompt or dynamic text.
        rope: Rotary embedding of the model.
        codec: Encodes it; None keeps ``kv`` itself.
        shared: True if the store owns it.
    """
    if codec is None:
        return Segment(tokens, kv, kind, shared)
    coded = codec.encode(_turned(kv.to(torch.float32), rope, -torch.arange(len(tokens))))
    return CodedSegment(tuple(tokens), coded, codec, kind, kv.dtype, rope, shared)


def _turned(kv: Tensor, rope: Rope, shift: Tensor) -> Tensor:
    """KV with each token's key moved by a shift of its own, (L,); a copy."""
    return torch.stack((rope.rotate(kv[:, 0], shift), kv[:, 1]), dim=1)


def _reference(base: Tensor, mean: Encoded | None, codec: Codec) -> Tensor:
    """Base plus decoded mean, float32."""
    reference = base.to(torch.float32)
    return reference if mean is None else reference + codec.decode(mean)


def _check_kv(kv: Tensor, tokens: int) -> None:
    if kv.ndim != 5 or kv.shape[1] != 2 or kv.shape[3] != tokens:
        raise ValueError(
            f"KV of {tokens} tokens must have shape (layers, 2, kv_heads, {tokens}, head_dim), got {tuple(kv.shape)}"
        )
