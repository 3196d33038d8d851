"""Serves traffic to an operation store without a model, and counts the bytes of a backbone that is not there.

Which prompts run and which paths get a residual is decided by the store itself, over KV of two channels: its decisions
depend on counts alone. What each thing takes is asked of the store and its codec on one layer of the true shape, times
the layers; what they keep is of one size whatever the values are. So bitmaps, scales and rounding are those of the real
thing, and no formula is written twice (our choice).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from graphflow.experiment.capacity.traffic import Call, Request
from graphflow.kv import KVConfig, KVShape, OperationStore, Rope, StateMode
from graphflow.kv.modes import Allocation, Control, Weighting

PLANNED = ("stateful", "stateful_int8", "stateful_int4", "stateless", "differential", "no_pruning")
MOMENTS = 8  # bytes an entry of what is learned of a path: float32 mean and sum of squares


@dataclass(frozen=True)
class Footprint:
    """Bytes of KV.

    Attributes:
        store: Bases and residuals at the end.
        operation: Operation state that the requests keep of their own, all of them together.
        text: KV of the requests' own text, all of them together.
        resident: Most held at a moment: store, decoded segments, what is being learned, requests in flight.
        batch: The dense cache of the largest batch besides that, where every row is as long as the longest.
        prefill: Prompt and text tokens that ran through the model.
        reused: Prompt and context tokens that did not.
    """

    store: int
    operation: int
    text: int
    resident: int
    batch: int
    prefill: int
    reused: int

    @property
    def retained(self) -> int:
        """Store, operation state and text."""
        return self.store + self.operation + self.text


class Sizes:
    """Bytes that a store with these settings keeps, by length, on a backbone of this shape."""

    def __init__(self, kv: KVConfig, shape: KVShape) -> None:
        self.kv, self.shape = kv, shape
        self._layer = replace(shape, layers=1)
        self._rope = Rope(torch.zeros(shape.head_dim // 2))
        self.residual, self.prompt = cache(self._residual), cache(self._prompt)

    def dense(self, tokens: int) -> int:
        """Tokens whose KV is kept as it is."""
        return tokens * self.shape.bytes_per_token

    def _residual(self, tokens: int) -> int:
        """An encoded residual."""
        store = OperationStore(self.kv, self._rope, self._layer)
        return self.shape.layers * store.codec.encode(_noise(self._layer, tokens)).nbytes

    def _prompt(self, tokens: int) -> int:
        """What a request keeps of a prompt that ran as a whole."""
        store, ids, kv = OperationStore(self.kv, self._rope, self._layer), range(tokens), _noise(self._layer, tokens)
        store.add_base("op", ids, kv)
        return self.shape.layers * store.keep("op", (), ids, kv).nbytes


def _noise(shape: KVShape, tokens: int) -> torch.Tensor:
    """KV of a segment; any values will do."""
    return torch.randn(shape.of(tokens), generator=torch.Generator().manual_seed(0)).to(shape.dtype)


@dataclass
class _Live:
    """A request in flight."""

    left: deque[tuple[Call, ...]]
    operation: int = 0
    text: int = 0
    keys: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)


class Replay:
    """An operation store that is served traffic.

    Args:
        kv: How operation state is kept.
        shape: Shape and dtype of the backbone's KV.
        prompts: Tokens of every operation's segment by name; all of them have a base.
        judges: Operations that judge.
        concurrency: Requests in flight.
        max_batch: Rows of one decode batch.
        sizes: Those of another replay with the same settings and shape, to save measuring them again.

    Raises:
        ValueError: A setting whose bytes depend on more than counts.
    """

    def __init__(
        self,
        kv: KVConfig,
        shape: KVShape,
        prompts: Mapping[str, int],
        judges: Iterable[str] = (),
        concurrency: int = 16,
        max_batch: int = 32,
        sizes: Sizes | None = None,
    ) -> None:
        check_planned(kv)
        kv = replace(kv, saliency=Weighting.NONE)  # weights decide which entries are kept, not how many
        self.kv, self.prompts, self.judges = kv, prompts, frozenset(judges)
        self.concurrency, self.max_batch = concurrency, max_batch
        self.sizes, self._probe = sizes or Sizes(kv, shape), KVShape(1, 1, 2, torch.float32)
        self.store = OperationStore(kv, Rope(torch.zeros(1)), self._probe)
        self._kv = {op: torch.zeros(self._probe.of(length)) for op, length in prompts.items()}
        for op, length in prompts.items():
            self.store.add_base(op, range(length), self._kv[op])

    def serve(self, requests: Iterable[Request]) -> Footprint:
        """Serves requests and gives the bytes that they left; what the store learned stays for the next ones."""
        waiting, live, done = deque(requests), list[_Live](), list[_Live]()
        counts: Counter[str] = Counter()
        resident = batch = 0
        while waiting or live:
            while waiting and len(live) < self.concurrency:
                request = waiting.popleft()
                counts["prefill"] += request.task
                live.append(_Live(deque(request.rounds), text=self.sizes.dense(request.task)))
            calls = [(one, call) for one in live if one.left for call in one.left.popleft()]
            plans = [self.store.plan(call.op, call.path, call.op in self.judges) for _, call in calls]
            for (one, call), plan in zip(calls, plans, strict=True):
                self._finish(one, call, plan.stored, counts)
            resident = max(resident, self._held(live) + sum(one.operation + one.text for one in live))
            batch = max(batch, self._batch([call for _, call in calls]))
            done += [one for one in live if not one.left]
            live = [one for one in live if one.left]
        return Footprint(
            store=self._bases() + self._residuals(),
            operation=sum(one.operation for one in done),
            text=sum(one.text for one in done),
            resident=resident,
            batch=batch,
            prefill=counts["prefill"],
            reused=counts["reused"],
        )

    def _finish(self, one: _Live, call: Call, stored: int, counts: Counter[str]) -> None:
        """What a call leaves behind, and what the store learns of it."""
        length = self.prompts[call.op]
        one.text += self.sizes.dense(call.pending + call.output)
        if stored:
            one.operation += self.sizes.dense(length - stored)
            one.keys.add((call.op, call.path))
            self.store.touch(call.op, call.path)
        else:
            one.operation += self.sizes.prompt(length)
            self.store.observe(call.op, call.path, self._kv[call.op])
        counts["prefill"] += call.pending + length - stored
        counts["reused"] += call.before - call.pending + stored

    def _core(self, op: str) -> int:
        """Tokens of a prompt that the store keeps."""
        exact = 0 if self.kv.per_request else self.kv.exact_head + self.kv.exact_tail
        return max(0, self.prompts[op] - exact)

    def _bases(self) -> int:
        return self.sizes.dense(self.store.nbytes().base // self._probe.bytes_per_token)

    def _residuals(self) -> int:
        return sum(self.sizes.residual(self._core(op)) for op, _ in self.store.materialised)

    def _held(self, live: Iterable[_Live]) -> int:
        """The store at this moment, with decoded segments (all, up to the workspace's limit) and moments."""
        entries = sum(self._core(op) for op, _ in self.store.learning) * self.sizes.shape.bytes_per_token
        moments = MOMENTS * entries // self.sizes.shape.dtype.itemsize
        decoded = {key: self.sizes.dense(self._core(key[0])) for key in self.store.materialised}
        used = {key for one in live for key in one.keys}
        kept = min(sum(decoded.values()), self.kv.workspace_bytes)
        workspace = max(kept, sum(decoded[key] for key in used & decoded.keys()))
        return self._bases() + self._residuals() + moments + (0 if self.kv.per_request else workspace)

    def _batch(self, calls: list[Call]) -> int:
        """The dense cache of the largest batch of a round."""
        most, rows, longest = 0, 0, 0
        for call in calls:
            if rows and rows + call.samples > self.max_batch:
                most, rows, longest = max(most, rows * longest), 0, 0
            rows += call.samples
            longest = max(longest, call.before + self.prompts[call.op] + call.output // call.samples + 1)
        return self.sizes.dense(max(most, rows * longest))


def evenly(kv: KVConfig) -> KVConfig:
    """Even shares in place of water-filled ones: as many entries, and a bitmap in every layer, so an upper bound."""
    return replace(kv, allocate=Allocation.EVEN, max_error=0.0)


def check_planned(kv: KVConfig) -> None:
    """Refuse settings whose bytes depend on more than how many tokens and paths there are.

    Raises:
        ValueError: The message names the field, what was given and what is allowed.
    """
    if kv.mode not in map(StateMode, PLANNED):
        raise ValueError(f"kv.mode must be one of {', '.join(PLANNED)} to plan its capacity, got {kv.mode.value!r}")
    wanted = {"dynamic_codec": "none", "store_bytes": 0, "store": "", "control": Control.NONE}
    for name, value in {**wanted, "allocate": Allocation.EVEN}.items():
        if getattr(kv, name) != value:
            shown = getattr(value, "value", value)
            raise ValueError(f"kv.{name} must be {shown!r} to plan capacity, got {getattr(kv, name)!r}")
