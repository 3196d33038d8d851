"""The store of operation state: one base an operation, one residual a materialised path (paper: KV_base + ΔKV).

What is stored are the tokens that reuse can serve, the core [exact_head, L - exact_tail) of a prompt, in the core's own
local frame; the head and the tail always run through the model. Request scope keeps whole prompts instead, because
there the prompt always runs and only what is kept of it is encoded. When paths are materialised and dropped is our
choice (see `PathStatistics`).
"""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphflow.kv.accounting import KVShape, StoreBytes, tensor_bytes
from graphflow.kv.codecs import Encoded, build_codec
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.kv.paths import Key, PathStatistics
from graphflow.kv.residual import Moments
from graphflow.kv.rope import Rope
from graphflow.kv.segment import EncodedSegment, Segment, SegmentKind, to_local
from graphflow.kv.workspace import Workspace


class UnknownOperationError(KeyError):
    """An operation without a base was asked for."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Plan:
    """How an operation's prompt gets its KV.

    Attributes:
        shared: KV of tokens [head, L - tail), keys at local positions 0.. of the piece itself; None if the whole
            prompt is to be prefilled exactly.
        head: First tokens that run through the model; 0 where ``shared`` is None.
        tail: Last tokens that run through the model; 0 where ``shared`` is None.
        fallback: True if the prompt runs exactly because its path holds no residual.
    """

    shared: Segment | None
    head: int = 0
    tail: int = 0
    fallback: bool = False


EXACT = Plan(None)
FALLBACK = Plan(None, fallback=True)


@dataclass(frozen=True)
class _Base:
    """An operation's prompt: all its tokens, and the part that is stored (None if the prompt has no core)."""

    tokens: tuple[int, ...]
    core: Segment | None


class OperationStore:
    """Bases, residuals and traffic of operations, in one of the four state modes.

    Args:
        config: Settings.
        rope: Rotary embedding of the model.
        shape: Shape and dtype of the model's KV.
    """

    def __init__(self, config: KVConfig, rope: Rope, shape: KVShape) -> None:
        self.config = config
        self.rope = rope
        self.shape = shape
        self.paths = PathStatistics(config.decay)
        self.codec = build_codec(config.codec, config.density, config.value_bits, shape.dtype)
        self._bases: dict[str, _Base] = {}
        self._moments: dict[Key, Moments] = {}
        self._residuals: dict[Key, Encoded] = {}
        self._unexplained: dict[Key, float] = {}
        self._workspace = Workspace(config.workspace_items, config.workspace_bytes)
        # Pruned residuals may live on in encoded segments of requests: they are counted while they do.
        self._alive: weakref.WeakSet[Encoded] = weakref.WeakSet()
        self._until_prune = config.prune_every

    def __contains__(self, op: str) -> bool:
        return op in self._bases

    def __iter__(self) -> Iterator[str]:
        return iter(self._bases)

    @property
    def materialised(self) -> frozenset[Key]:
        """(operation, path) pairs whose residual is stored."""
        return frozenset(self._residuals)

    def add_base(self, op: str, tokens: Sequence[int], kv: Tensor) -> None:
        """Store an operation's bare KV; stateful mode takes it and stores nothing.

        Args:
            op: Name of the operation.
            tokens: Its whole prompt, (L,).
            kv: (layers, 2, kv_heads, L, head_dim), computed without any prefix, keys at local positions 0..L-1.

        Raises:
            ValueError: A shape that does not fit, or an operation that has a base already.
        """
        self.shape.check(kv, len(tokens), f"base of {op!r}")
        if self.config.mode is StateMode.STATEFUL:
            return
        if op in self._bases:
            raise ValueError(f"operation {op!r} has a base already; a store takes each operation once")
        tokens = tuple(tokens)
        start, stop = self._core(len(tokens))
        core = None
        if start < stop:
            kept = self._cut(kv, start, stop).to(self.shape.dtype)
            core = Segment(tokens[start:stop], kept, SegmentKind.OPERATION, shared=True)
        self._bases[op] = _Base(tokens, core)

    def plan(self, op: str, path: tuple[str, ...], judge: bool = False) -> Plan:
        """How the prompt of an operation gets its KV after a path. Counts nothing (see `observe` and `touch`).

        Args:
            op: Name of the operation.
            path: Operations already in the context.
            judge: True for operations that judge; they run exactly if the config says so.

        Raises:
            UnknownOperationError: The operation has no base (any mode but stateful).
        """
        if self.config.mode is StateMode.STATEFUL:
            return EXACT
        core = self._base(op).core
        if core is None or self.config.per_request or (judge and self.config.judges_exact):
            return EXACT
        head, tail = self.config.exact_head, self.config.exact_tail
        if self.config.mode is StateMode.STATELESS:
            return Plan(core, head, tail)
        key = (op, path)
        residual = self._residuals.get(key)
        if residual is None:
            return FALLBACK
        return Plan(self._workspace.get(key, lambda: self._decode(core, residual)), head, tail)

    def observe(self, op: str, path: tuple[str, ...], kv: Tensor) -> None:
        """Count a transition that ran exactly, and learn the path's residual from it where the mode has residuals.

        Args:
            op: Name of the operation.
            path: Operations that were in the context.
            kv: Exact KV of the whole prompt, (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.

        Raises:
            UnknownOperationError: The operation has no base (differential modes).
            ValueError: A shape that does not fit.
        """
        if self.config.learns_paths:
            base = self._base(op)
            self.shape.check(kv, len(base.tokens), f"observation of {op!r}")
        self.touch(op, path)
        if not self.config.learns_paths:
            return
        key = (op, path)
        if base.core is None or key in self._residuals:
            return
        moments = self._moments.get(key)
        if moments is None:
            moments = self._moments[key] = Moments(base.core.kv)
        moments.update(self._cut(kv, *self._core(len(base.tokens))))
        if moments.count >= self.config.min_observations and self._wanted(key):
            self._materialise(key, moments)

    def touch(self, op: str, path: tuple[str, ...]) -> None:
        """Count a transition that was served without an observation."""
        self.paths.touch((op, path))
        self._until_prune -= 1
        if self._until_prune == 0:
            self.prune()

    def keep(self, op: str, path: tuple[str, ...], tokens: Sequence[int], kv: Tensor) -> Segment | EncodedSegment:
        """What a request keeps of an operation's prompt that was prefilled exactly.

        Args:
            op: Name of the operation.
            path: Operations that were in the context.
            tokens: The prompt, (L,).
            kv: Its exact KV, (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.

        Returns:
            Request scope: base (+ path mean if materialised) + encoded remainder. Otherwise a dense copy.

        Raises:
            UnknownOperationError: The operation has no base (request scope).
            ValueError: A shape or tokens that do not fit.
        """
        tokens = tuple(tokens)
        self.shape.check(kv, len(tokens), f"exact KV of {op!r}")
        if not self.config.per_request:
            own = kv.to(self.shape.dtype, copy=True, memory_format=torch.contiguous_format)
            return Segment(tokens, own, SegmentKind.OPERATION)
        base = self._base(op)
        if base.core is None or base.tokens != tokens:
            raise ValueError(
                f"the prompt of {op!r} ({len(tokens)} tokens) is not the one its base was computed for "
                f"({len(base.tokens)} tokens)"
            )
        return EncodedSegment.encode(tokens, base.core.kv, self._residuals.get((op, path)), kv, self.codec)

    def prune(self) -> None:
        """Drop residuals and moments of paths that fell well below the covering set; differential mode only.

        Runs by itself every ``prune_every`` transitions.
        """
        self._until_prune = self.config.prune_every
        if self.config.mode is not StateMode.DIFFERENTIAL:
            return
        held = [*self._residuals, *self._moments]
        kept = self.paths.retained(held, self.config.coverage, self.config.hysteresis)
        for key in set(held) - kept:
            self._moments.pop(key, None)
            self._residuals.pop(key, None)
            self._unexplained.pop(key, None)
            self._workspace.drop(key)

    def nbytes(self) -> StoreBytes:
        """Bytes held now, by category."""
        return StoreBytes(
            base=sum(tensor_bytes(base.core.kv) for base in self._bases.values() if base.core is not None),
            residual=sum(encoded.nbytes for encoded in self._alive),
            statistics=self.paths.nbytes + sum(moments.nbytes for moments in self._moments.values()),
            workspace=self._workspace.nbytes,
        )

    def unexplained(self) -> dict[Key, float]:
        """For every materialised path, the share of the residual's energy that its mean leaves (all layers together).

        Taken when the mean was encoded: E|x-mean|^2 / E|x-base|^2, 0 where there was no residual.
        """
        return dict(self._unexplained)

    def _core(self, length: int) -> tuple[int, int]:
        """The tokens of a prompt that are stored: [start, stop), empty if start >= stop."""
        if self.config.per_request:
            return 0, length
        return self.config.exact_head, length - self.config.exact_tail

    def _cut(self, kv: Tensor, start: int, stop: int) -> Tensor:
        """Tokens [start, stop) of a prompt's KV in their own local frame."""
        return to_local(kv[:, :, :, start:stop], start, self.rope)

    def _base(self, op: str) -> _Base:
        if op not in self._bases:
            close = difflib.get_close_matches(op, self._bases, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(sorted(self._bases)) or "none"
            raise UnknownOperationError(f"operation {op!r} has no base; operations with one: {known}{hint}")
        return self._bases[op]

    def _wanted(self, key: Key) -> bool:
        """True if a path's residual is worth storing."""
        return self.config.mode is StateMode.NO_PRUNING or key in self.paths.coverage(self.config.coverage)

    def _materialise(self, key: Key, moments: Moments) -> None:
        """Encode a path's mean and drop its moments."""
        residual = self.codec.encode(moments.residual)
        left, whole = (float(energy.sum()) for energy in moments.energies())
        self._residuals[key] = residual
        self._alive.add(residual)
        self._unexplained[key] = left / whole if whole > 0 else 0.0
        del self._moments[key]

    def _decode(self, core: Segment, residual: Encoded) -> Segment:
        """The state of a path: base plus its residual, in the dtype in which KV is kept."""
        kv = (core.kv.to(torch.float32) + self.codec.decode(residual)).to(core.kv.dtype)
        return Segment(core.tokens, kv, SegmentKind.OPERATION, shared=True)
