"""Operation state in memory: one base an operation, one residual a materialised path (paper: KV_base + ΔKV).

What is stored are the tokens that reuse can serve, the core [exact_head, L - exact_tail) of a prompt, in the core's own
local frame; the head and the tail always run through the model. Request scope keeps whole prompts instead, because
there the prompt always runs and only what is kept of it is encoded. When paths are materialised and dropped is our
choice (see `PathStatistics` and `graphflow.kv.budget`). Whatever is not stored is prefilled exactly: a store that is
small or cold is slower and never wrong.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence

import torch
from torch import Tensor

from graphflow.kv.accounting import KVShape, StoreBytes
from graphflow.kv.admission import Admission
from graphflow.kv.bases import Bases
from graphflow.kv.codecs import Encoded
from graphflow.kv.controls import fit, stand_in
from graphflow.kv.deviation import Deviations
from graphflow.kv.kept import dynamic_codec, prompt_codec, residual_codec
from graphflow.kv.learned import Learned
from graphflow.kv.modes import Control, KVConfig, StateMode, Weighting
from graphflow.kv.paths import Key, PathStatistics
from graphflow.kv.plan import EXACT, FALLBACK, Plan
from graphflow.kv.residual import Moments
from graphflow.kv.rope import Rope
from graphflow.kv.segment import CodedSegment, Cut, EncodedSegment, Piece, Segment, SegmentKind, pack
from graphflow.kv.weights import Weights
from graphflow.kv.workspace import Workspace

Allowed = Callable[[str, tuple[str, ...]], bool] | Collection[Key]
"""Which (operation, path) may be stored: a predicate or the pairs themselves."""


class MemoryStore:
    """Bases, residuals and traffic of operations, in one of the state modes.

    Attributes:
        config: Settings.
        rope: Rotary embedding of the model.
        shape: Shape and dtype of the model's KV.
        paths: Traffic.
        codec: Encodes residuals.
        dynamic_codec: Encodes text of a request; None keeps it as it is.

    Args:
        config: Settings.
        rope: Rotary embedding of the model.
        shape: Shape and dtype of the model's KV.
        allowed: Transitions that may be stored, for example what the wGraph can reach; None for all. Others are served
            exactly and neither counted nor learned.
    """

    def __init__(
        self,
        config: KVConfig,
        rope: Rope,
        shape: KVShape,
        allowed: Allowed | None = None,
    ) -> None:
        self.config = config
        self.rope = rope
        self.shape = shape
        self.paths = PathStatistics(config.decay, config.tracked_paths)
        self.codec = residual_codec(config, shape.dtype)
        self.dynamic_codec = dynamic_codec(config, shape.dtype)
        self._prompt_codec = prompt_codec(config, shape.dtype)
        self._allowed = allowed
        self._bases = Bases(config, rope, shape)
        self._learned = Learned()
        self._weights = Weights()
        self._deviations = Deviations()
        self._workspace = Workspace(config.workspace_items, config.workspace_bytes)
        self._stored: weakref.WeakValueDictionary[Key, EncodedSegment] = weakref.WeakValueDictionary()
        self._admission = Admission(config, self.codec, self.paths, self._learned, self._workspace, self._bases.core_of)
        self._until_prune = config.prune_every

    def __contains__(self, op: str) -> bool:
        return op in self._bases

    def __iter__(self) -> Iterator[str]:
        return iter(self._bases)

    @property
    def materialised(self) -> frozenset[Key]:
        """(operation, path) pairs whose residual is stored."""
        return frozenset(self._learned.residuals)

    @property
    def learning(self) -> frozenset[Key]:
        """(operation, path) pairs whose moments are kept."""
        return frozenset(self._learned.moments)

    def allows(self, op: str, path: tuple[str, ...]) -> bool:
        """True if this transition may be stored."""
        if self._allowed is None:
            return True
        return self._allowed(op, path) if callable(self._allowed) else (op, path) in self._allowed

    def add_base(self, op: str, tokens: Sequence[int], kv: Tensor) -> None:
        """Store an operation's bare KV; modes without bases take it and store nothing.

        Args:
            op: Name of the operation.
            tokens: Its whole prompt, (L,).
            kv: (layers, 2, kv_heads, L, head_dim), computed without any prefix, keys at local positions 0..L-1.

        Raises:
            ValueError: A shape that does not fit, or an operation that has a base already.
            BudgetError: A byte budget that is smaller than all bases; names the number that is needed.
        """
        self.shape.check(kv, len(tokens), f"base of {op!r}")
        if not self.config.has_bases:
            return
        core = self._bases.cut(kv)
        self._keep_base(op, tuple(tokens), core if core is None else core.to(self.shape.dtype))

    def plan(self, op: str, path: tuple[str, ...], judge: bool = False) -> Plan:
        """How the prompt of an operation gets its KV after a path. Counts nothing (see `observe` and `touch`).

        Args:
            op: Name of the operation.
            path: Operations already in the context.
            judge: True for operations that judge; they run exactly if the config says so.

        Raises:
            UnknownOperationError: The operation has no base (any mode that has bases).
        """
        if not self.config.has_bases:
            return EXACT
        core = self._bases[op].core
        if core is None or self.config.per_request or (judge and self.config.judges_exact):
            return EXACT
        if not self.allows(op, path):
            return FALLBACK
        if self.config.mode is StateMode.STATELESS:
            return self._place(core)
        if self.config.mode is StateMode.BLEND:
            return self._without(core, op, self.config.rerun)
        return self._path_plan((op, path), core)

    def _path_plan(self, key: Key, core: Segment) -> Plan:
        """The state of a path, if its residual is stored."""
        if key not in self._learned.residuals:
            return FALLBACK
        if self.config.control is Control.ZERO:
            return self._without(core, key[0], self.config.exact_rows)
        source = stand_in(self.config.control, key, self._learned.residuals, self.paths.traffic)
        if source is None:
            return FALLBACK
        if not self.config.workspace_items and source == key:
            return self._without(self._as_stored(key, core), key[0], self.config.exact_rows)
        room = self._admission.room().for_workspace if self.config.store_bytes else float("inf")
        residual = self._learned.residuals[source]
        segment = self._workspace.get(key, lambda: self._decode(core, residual), room)
        return self._without(segment, key[0], self.config.exact_rows)

    def _without(self, segment: Piece, op: str, share: float) -> Plan:
        """A stored segment without the share of its tokens that deviates most from the base; those run again."""
        count = math.ceil(round(share * segment.length, 6))
        if not count:
            return self._place(segment)
        if count == segment.length:
            return EXACT
        if self._deviations.count(op) < self.config.min_observations:
            return FALLBACK
        again = self._deviations.largest(op, count)
        bounds = zip((-1, *again), (*again, segment.length), strict=True)
        runs = [(before + 1, after) for before, after in bounds if before + 1 < after]

        def part(start: int, stop: int) -> Piece:
            """A view of what the store holds; of a request's own segment a copy, so that its bytes count."""
            if segment.shared:
                return Cut(segment, start, stop, self.rope)
            return segment.slice(start, stop, self.rope)

        return Plan(tuple((part(start, stop), self.config.exact_head + start) for start, stop in runs))

    def _place(self, segment: Piece) -> Plan:
        """A stored segment behind the head."""
        return Plan(((segment, self.config.exact_head),))

    def observe(self, op: str, path: tuple[str, ...], kv: Tensor) -> None:
        """Count a transition that ran exactly, and learn from it: the path's residual, or which tokens deviate.

        KV that is not finite is counted and not learned from: one overflow would stay in the mean.

        Args:
            op: Name of the operation.
            path: Operations that were in the context.
            kv: Exact KV of the whole prompt, (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.

        Raises:
            UnknownOperationError: The operation has no base (differential modes).
            ValueError: A shape that does not fit.
        """
        if not self.config.has_bases:
            self.touch(op, path)
            return
        base = self._bases[op]
        self.shape.check(kv, len(base.tokens), f"observation of {op!r}")
        if not self.allows(op, path):
            return
        self.touch(op, path)
        if base.core is None or not self._curious(op, path):
            return
        seen = self._bases.cut(kv)
        assert seen is not None, "a base with a core cuts one out of every observation"
        if not torch.isfinite(seen).all():
            return
        if self.config.weighs_tokens and self._deviations.count(op) < self.config.min_observations:
            self._deviations.update(op, base.core.kv, seen)
        if self.config.learns_paths and (op, path) not in self._learned.residuals:
            self._learn((op, path), base.core, seen)

    def _curious(self, op: str, path: tuple[str, ...]) -> bool:
        """True if there is something left to learn from an exact run."""
        if self.config.weighs_tokens and self._deviations.count(op) < self.config.min_observations:
            return True
        return self.config.learns_paths and (op, path) not in self._learned.residuals

    def _learn(self, key: Key, core: Segment, seen: Tensor) -> None:
        """Add an observation to a path that has no residual yet; encode its mean when there are enough."""
        moments = self._learned.moments.get(key)
        if moments is None:
            if not self._used(key) or not self._admission.begin(key, core):
                return
            moments = self._learned.moments[key] = Moments(core.kv)
        moments.update(seen)
        if moments.count < self.config.min_observations or not self._wanted(key):
            return
        own = self.config.control is Control.OTHER_REQUEST
        value = seen.to(torch.float32) - core.kv.to(torch.float32) if own else moments.residual
        residual = self.codec.encode(value, self._weight(key[0]))
        if self._admission.admit(key, residual):
            self._learned.materialise(key, residual)

    def touch(self, op: str, path: tuple[str, ...]) -> None:
        """Count a transition that was served without an observation; modes that share by tokens count none."""
        if self.config.by_tokens or not self.allows(op, path):
            return
        self.paths.touch((op, path))
        self._until_prune -= 1
        if self._until_prune <= 0:
            self.prune()

    def hold(self, tokens: Sequence[int], kv: Tensor, kind: SegmentKind) -> Segment | CodedSegment:
        """What a request keeps of its own KV between steps: text by the dynamic codec, prompts as the mode has them.

        Args:
            tokens: Token ids, (L,), at least one.
            kv: Their KV, (layers, 2, kv_heads, L, head_dim) in the dtype in which KV is kept, keys at local positions.
            kind: Operation prompt or dynamic text.
        """
        codec = self._prompt_codec if kind is SegmentKind.OPERATION else self.dynamic_codec
        return pack(tuple(tokens), kv, kind, self.rope, None if self.config.by_tokens else codec)

    def weigh(self, op: str, keys: Tensor, values: Tensor) -> None:
        """Say what an error in a residual of an operation counts; replaces what was said before.

        Args:
            op: Name of the operation.
            keys: Factor on the squared error of a key channel, (layers, kv_heads, head_dim), 0 or more.
            values: Factor on that of a token's values, (layers, kv_heads, L), 0 or more; of the whole prompt.
        """
        length, (start, stop) = len(self._bases[op].tokens), self._bases.stored(len(self._bases[op].tokens))
        if values.shape[2] != length:
            raise ValueError(f"weights of {op!r} must be of {length} tokens, got {values.shape[2]}")
        self._weights.set(op, keys, values[:, :, start:stop])

    def weighed(self, op: str) -> bool:
        """True if residuals of an operation have weights, or need none."""
        return self.config.saliency is Weighting.NONE or op in self._weights

    def _weight(self, op: str) -> Tensor | None:
        """Weights of the stored tokens, as codecs take them."""
        return self._weights[op] if op in self._weights else None

    def keep(
        self, op: str, path: tuple[str, ...], tokens: Sequence[int], kv: Tensor
    ) -> Segment | CodedSegment | EncodedSegment:
        """What a request keeps of an operation's prompt that was prefilled exactly.

        Args:
            op: Name of the operation.
            path: Operations that were in the context.
            tokens: The prompt, (L,).
            kv: Its exact KV, (layers, 2, kv_heads, L, head_dim), keys at local positions 0..L-1.

        Returns:
            Request scope: base (+ path mean if materialised) + encoded remainder. Otherwise as `hold`, a copy.

        Raises:
            UnknownOperationError: The operation has no base (request scope).
            ValueError: A shape or tokens that do not fit.
        """
        tokens = tuple(tokens)
        self.shape.check(kv, len(tokens), f"exact KV of {op!r}")
        if not self.config.per_request:
            own = kv.to(self.shape.dtype, copy=True, memory_format=torch.contiguous_format)
            return self.hold(tokens, own, SegmentKind.OPERATION)
        base = self._bases[op]
        if base.core is None or base.tokens != tokens:
            raise ValueError(
                f"the prompt of {op!r} ({len(tokens)} tokens) is not the one its base was computed for "
                f"({len(base.tokens)} tokens)"
            )
        mean = self._learned.handle((op, path))
        return EncodedSegment.encode(tokens, base.core.kv, mean, kv, self.codec, self._weight(op))

    def prune(self) -> None:
        """Drop residuals and moments of paths that fell well below the covering set; differential mode only.

        Runs by itself every ``prune_every`` transitions.
        """
        self._until_prune = self.config.prune_every
        if self.config.mode is not StateMode.DIFFERENTIAL:
            return
        held = [*self._learned.residuals, *self._learned.moments]
        kept = self.paths.retained(held, self.config.coverage, self.config.hysteresis)
        for key in set(held) - kept:
            self._admission.drop(key)

    def nbytes(self) -> StoreBytes:
        """Bytes held now, by category. Never more than ``store_bytes`` in all, where that is set."""
        return StoreBytes(
            base=self._bases.nbytes,
            residual=self._learned.residual_bytes + self._learned.orphan_bytes,
            statistics=self.paths.nbytes + self._learned.moments_bytes + self._weights.nbytes + self._deviations.nbytes,
            workspace=self._workspace.nbytes,
        )

    def unexplained(self) -> dict[Key, float]:
        """For every materialised path, the share of the residual's energy that its mean leaves (all layers together).

        Taken when the mean was encoded: E|x-mean|^2 / E|x-base|^2, 0 where there was no residual.
        """
        sums = {key: [float(energy.sum()) for energy in both] for key, both in self._learned.energies.items()}
        return {key: left / whole if whole > 0 else 0.0 for key, (left, whole) in sums.items()}

    def unexplained_by_layer(self) -> dict[Key, Tensor]:
        """As `unexplained`, for every layer and side: (layers, 2) float32 in [0, 1], keys first."""
        tiny = torch.finfo(torch.float32).tiny
        return {
            key: torch.where(whole > 0, left / whole.clamp_min(tiny), 0.0)
            for key, (left, whole) in self._learned.energies.items()
        }

    def _keep_base(self, op: str, tokens: tuple[int, ...], core: Tensor | None) -> None:
        """Take a prompt, and the stored part of its KV, into the store."""
        base = self._bases.make(op, tokens, core)
        if base.core is not None:
            self._admission.add_base(base.core, self._reserve(base.core))
        self._bases.keep(op, base)

    def _reserve(self, core: Segment) -> int:
        """Bytes that what is learned of an operation as a whole will take."""
        weighted = self.config.learns_paths and self.config.saliency is not Weighting.NONE
        weights = Weights.size(self.shape, core.length) if weighted else 0
        return weights + (4 * core.length if self.config.weighs_tokens else 0)

    def _wanted(self, key: Key) -> bool:
        """True if a path's residual is worth storing and can be weighed."""
        if not self.weighed(key[0]):
            return False
        return self._used(key)

    def _used(self, key: Key) -> bool:
        """True if a path is among those that cover the traffic, or all are to be kept."""
        return self.config.mode is StateMode.NO_PRUNING or key in self.paths.coverage(self.config.coverage)

    def _as_stored(self, key: Key, core: Segment) -> EncodedSegment:
        """The state of a path as base and residual, one object for all that use it."""
        residual, piece = self._learned.handle(key), self._stored.get(key)
        assert residual is not None, "a path with a stored residual has a handle"
        if piece is None or piece.remainder is not residual:
            piece = EncodedSegment(core.tokens, core.kv, None, residual, self.codec, shared=True)
            self._stored[key] = piece
        return piece

    def _decode(self, core: Segment, residual: Encoded) -> Segment:
        """The state of a path: base plus its residual, in the dtype in which KV is kept."""
        kv = (core.kv.to(torch.float32) + fit(self.codec.decode(residual), core.length)).to(core.kv.dtype)
        return Segment(core.tokens, kv, SegmentKind.OPERATION, shared=True)
