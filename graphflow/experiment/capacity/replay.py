"""Serves traffic to an operation store without a model, and counts the bytes of a backbone that is not there.

Which prompts run and which paths get a residual is decided by the store itself, over KV of two channels: its decisions
depend on counts alone, and on the order of calls (`order`). What each thing takes is asked of the store and its codec
on one layer of the true shape, times the layers; what they keep is of one size whatever the values are. So bitmaps,
scales and rounding are those of the real thing, and no formula is written twice (our choice).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cache

import torch

from graphflow.experiment.capacity.order import Flight, Slots, Under, ticks
from graphflow.experiment.capacity.traffic import Call, Request
from graphflow.kv import KVConfig, KVShape, OperationStore, Rope, StateMode
from graphflow.kv.modes import Allocation, Control, Weighting
from graphflow.kv.paths import Key

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
        batch: The dense cache of the batch besides that, at its largest; every row is as long as the longest.
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
class _Held:
    """What a request in flight keeps.

    Attributes:
        nbytes: Bytes of text and operation state of its own.
        keys: Paths whose residual it refers to.
    """

    nbytes: int = 0
    keys: set[Key] = field(default_factory=set)


class Replay:
    """An operation store that is served traffic.

    Args:
        kv: How operation state is kept.
        shape: Shape and dtype of the backbone's KV.
        prompts: Tokens of every operation's segment by name; all of them have a base.
        judges: Operations that judge.
        concurrency: Requests in flight at most.
        max_batch: Rows of the running batch at most.
        gather: See `EngineConfig.gather`.
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
        gather: float = 0.5,
        sizes: Sizes | None = None,
    ) -> None:
        check_planned(kv)
        kv = replace(kv, saliency=Weighting.NONE)  # weights decide which entries are kept, not how many
        self.kv, self.prompts, self.judges = kv, prompts, frozenset(judges)
        self.concurrency, self.max_batch, self.gather = concurrency, max_batch, gather
        self.sizes, self._probe = sizes or Sizes(kv, shape), KVShape(1, 1, 2, torch.float32)
        self.store = OperationStore(kv, Rope(torch.zeros(1)), self._probe)
        self._kv = {op: torch.zeros(self._probe.of(length)) for op, length in prompts.items()}
        for op, length in prompts.items():
            self.store.add_base(op, range(length), self._kv[op])

    def serve(self, requests: Iterable[Request]) -> Footprint:
        """Serves requests and gives the bytes that they left; what the store learned stays for the next ones."""
        live, coming = dict[Under, _Held](), dict[Flight, _Held]()
        counts: Counter[str] = Counter()
        slots, resident = Slots(self.prompts), 0
        for tick in ticks(requests, self.concurrency, self.max_batch, self.gather):
            for one in tick.admitted:
                live[one] = _Held(self.sizes.dense(one.request.task))
                counts.update(prefill=one.request.task, text=live[one].nbytes)
            plans = [self.store.plan(f.call.op, f.call.path, f.call.op in self.judges) for f in tick.joined]
            for flight, plan in zip(tick.joined, plans, strict=True):
                coming[flight] = self._run(flight.call, plan.stored, counts)
            used = set[Key]().union(*(held.keys for held in (*live.values(), *coming.values())))
            for flight in tick.ended:
                own, new = live[flight.one], coming.pop(flight)
                own.nbytes, own.keys = own.nbytes + new.nbytes, own.keys | new.keys
            resident = max(resident, self._shared(used) + sum(held.nbytes for held in live.values()))
            slots.see(tick)
            live = {one: held for one, held in live.items() if not one.done}
        return Footprint(
            store=self._bases() + self._residuals(),
            operation=counts["operation"],
            text=counts["text"],
            resident=resident,
            batch=self.sizes.dense(slots.most),
            prefill=counts["prefill"],
            reused=counts["reused"],
        )

    def _run(self, call: Call, stored: int, counts: Counter[str]) -> _Held:
        """What a call leaves behind; the store learns of it."""
        length, text = self.prompts[call.op], self.sizes.dense(call.pending + call.output)
        operation, keys = self.sizes.dense(length - stored) if stored else self.sizes.prompt(length), set[Key]()
        if stored:
            self.store.touch(call.op, call.path)
            keys.add((call.op, call.path))
        else:
            self.store.observe(call.op, call.path, self._kv[call.op])
        reused = call.before - call.pending + stored
        counts.update(prefill=call.pending + length - stored, reused=reused, operation=operation, text=text)
        return _Held(operation + text, keys)

    def _core(self, op: str) -> int:
        """Tokens of a prompt that the store keeps."""
        exact = 0 if self.kv.per_request else self.kv.exact_head + self.kv.exact_tail
        return max(0, self.prompts[op] - exact)

    def _bases(self) -> int:
        return self.sizes.dense(self.store.nbytes().base // self._probe.bytes_per_token)

    def _residuals(self) -> int:
        return sum(self.sizes.residual(self._core(op)) for op, _ in self.store.materialised)

    def _shared(self, used: Set[Key]) -> int:
        """The store now, with moments and decoded segments: all up to the workspace's limit, or those used."""
        entries = sum(self._core(op) for op, _ in self.store.learning) * self.sizes.shape.bytes_per_token
        moments = MOMENTS * entries // self.sizes.shape.dtype.itemsize
        decoded = {key: self.sizes.dense(self._core(key[0])) for key in self.store.materialised}
        kept = min(sum(decoded.values()), self.kv.workspace_bytes)
        workspace = max(kept, sum(decoded[key] for key in used & decoded.keys()))
        return self._bases() + self._residuals() + moments + (0 if self.kv.per_request else workspace)


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
