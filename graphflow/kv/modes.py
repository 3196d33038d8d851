"""How operation state is kept: the state mode, whose the residual is, and the settings of the store."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from graphflow.kv.codecs import CODECS, check_codec
from graphflow.kv.codecs.base import check_value_bits


class StateMode(Enum):
    """How the KV of operation prompts is kept."""

    STATEFUL = "stateful"
    """Every request computes and keeps its own, exactly."""
    STATELESS = "stateless"
    """The base alone, moved to its place."""
    DIFFERENTIAL = "differential"
    """Base and residual for the paths that are used."""
    NO_PRUNING = "no_pruning"
    """Base and residual for every path seen often enough to estimate one, whatever its share of traffic."""
    STATEFUL_INT8 = "stateful_int8"
    """As stateful, prompts kept in 8 bits."""
    STATEFUL_INT4 = "stateful_int4"
    """As stateful, prompts kept in 4 bits."""
    PREFIX = "prefix"
    """Exact sharing by tokens: whatever a context begins with and any context has held before (PagedAttention with
    prefix caching, RadixAttention)."""
    OPERATION_FIRST = "operation_first"
    """As prefix, in the other layout: a call's context is the operation's prompt, then the task, then what was written
    so far without other prompts. Every prompt is shared exactly; text runs again for every call."""
    BLEND = "blend"
    """The base, and the tokens that deviate most from it run again (CacheBlend)."""


class Scope(Enum):
    """Whose the residual is, in the modes that have one."""

    PATH = "path"
    """Shared by all requests of a path: saves memory and prefill."""
    REQUEST = "request"
    """Of one request, after an exact prefill: saves memory only."""


class Anchor(Enum):
    """What stands before a prompt while its base is computed, and is dropped afterwards (our choice)."""

    NONE = "none"
    """Nothing: the paper's prefix-free base."""
    BOS = "bos"
    """What every context begins with."""
    NEUTRAL = "neutral"
    """A task that says nothing."""


class Weighting(Enum):
    """What an error in a residual's entry counts when a codec chooses what to keep."""

    NONE = "none"
    """All alike."""
    QUERIES = "queries"
    """Keys by the squared queries that read them, values by the attention on them, seen in exact runs."""


class Allocation(Enum):
    """How layers and sides share the bytes of a residual."""

    EVEN = "even"
    """The same density for each."""
    WATERFILL = "waterfill"
    """The densities of least error for the bytes that an even share would take."""


class Control(Enum):
    """What is served in place of a path's residual: controls that must do worse (our choice)."""

    NONE = "none"
    """Nothing: the residual itself."""
    ZERO = "zero"
    """The base alone."""
    OTHER_PATH = "other_path"
    """The residual of the same operation's most used other path."""
    OTHER_OPERATION = "other_operation"
    """The residual of the most used path of another operation, cut or filled up with zeros to the length."""
    OTHER_REQUEST = "other_request"
    """What the last observed request alone differed by, not the mean over requests."""


_E = TypeVar("_E", bound=Enum)
_ENUMS: dict[str, type[Enum]] = {
    "mode": StateMode,
    "scope": Scope,
    "saliency": Weighting,
    "allocate": Allocation,
    "base_anchor": Anchor,
    "control": Control,
}


@dataclass
class KVConfig:
    """Settings of operation state (the paper's three modes are stateful, differential and stateless).

    Attributes:
        mode: How operation state is kept.
        scope: Whose the residual is; without meaning in modes that have none.
        exact_head: First tokens of every prompt that always run through the model, 0 or more. They stand next to what
            differs from request to request.
        exact_tail: Last tokens of every prompt that always run, 1 or more.
        exact_rows: Share of a prompt's stored tokens that always run too, in [0, 1), rounded up to whole tokens: those
            that deviate most from the base over exact runs; path scope only. One first token and a fiftieth of the
            others take as many bytes as four first tokens and come up to four times closer (`results/LOG.md`).
        density: Share of a residual's entries to keep, in (0, 1].
        value_bits: Bits a kept value: 8, 16 or 32.
        codec: How residuals are kept: sparse, dense, int8, int4, rows, mean_shift or low_rank.
        saliency: What an error in an entry counts.
        allocate: How layers and sides share bytes; waterfill needs a codec with densities of entries (sparse or
            mean_shift).
        max_error: With allocate waterfill, the share of a residual's weighted energy that may be left out, in [0, 1):
            fewer entries than ``density`` are kept where that is enough; 0 always keeps as many. Rounding of values
            comes on top.
        dynamic_codec: How a request's own KV is kept between steps: none, as it is; or a codec, and later steps read
            what it decodes to. That is text (task, outputs, tool results) in any mode, and in modes with bases also
            the tokens of prompts that ran for the request: head, tail, and prompts of paths without a residual.
        dynamic_density: As ``density``, for ``dynamic_codec``.
        base_anchor: What stands before a prompt while its base is computed.
        control: What is served in place of a path's residual; path scope only.
        rerun: Share of a prompt's stored tokens that blend mode runs again, in [0, 1], rounded up to whole tokens.
        min_observations: Exact runs of a path before its mean is encoded, or of an operation before blend mode knows
            its tokens, 1 or more.
        coverage: Share of traffic that materialised paths cover, in (0, 1]; differential mode only.
        decay: Factor on all traffic per transition, in (0, 1].
        hysteresis: A materialised path is dropped below this share of the entry level, in [0, 1]. Under a byte budget
            a newcomer takes the place of a path only if that one is worth less than this share of it.
        judges_exact: Operations that judge always run exactly.
        prune_every: Transitions between two prunings, 1 or more.
        workspace_items: Decoded segments kept at most; 0 hands paths out as they are stored, and whoever reads one
            decodes it (``backbone.attention=residual`` does not have to).
        workspace_bytes: Bytes of decoded segments kept at most, 0 or more; the latest one is always kept.
        store_bytes: Bytes that the store holds at most, everything counted, 0 or more; 0 is no limit. Bases are never
            evicted; residuals and moments are, those first that save fewest tokens a byte. In prefix and
            operation_first modes it bounds the tree of tokens, whose least recently used ends are evicted.
        tracked_paths: Paths whose traffic is counted at most, 1 or more; beyond it the least used are forgotten.
        learning_paths: Paths whose moments are kept at once at most, 1 or more. Moments take 8 bytes an entry, four
            times a base in 16 bits, so that ever-new paths would pile them up.
        store: Folder or fsspec URL of a saved store: loaded where there is one, saved when tasks have been served;
            empty for none.

    Raises:
        ValueError: A field out of range; the message names field, allowed range and value.
    """

    mode: StateMode = StateMode.DIFFERENTIAL
    scope: Scope = Scope.PATH
    exact_head: int = 1
    exact_tail: int = 1
    exact_rows: float = 0.02
    density: float = 0.25
    value_bits: int = 16
    codec: str = "sparse"
    saliency: Weighting = Weighting.NONE
    allocate: Allocation = Allocation.EVEN
    max_error: float = 0.0
    dynamic_codec: str = "none"
    dynamic_density: float = 1.0
    base_anchor: Anchor = Anchor.NONE
    control: Control = Control.NONE
    rerun: float = 0.15
    min_observations: int = 8
    coverage: float = 0.95
    decay: float = 0.999
    hysteresis: float = 0.5
    judges_exact: bool = False
    prune_every: int = 32
    workspace_items: int = 256
    workspace_bytes: int = 256 * 2**20
    store_bytes: int = 0
    tracked_paths: int = 4096
    learning_paths: int = 64
    store: str = ""

    def __post_init__(self) -> None:
        for name, kind in _ENUMS.items():
            setattr(self, name, _member(kind, name, getattr(self, name)))
        for name, lowest in (
            ("exact_head", 0),
            ("exact_tail", 1),
            ("min_observations", 1),
            ("prune_every", 1),
            ("workspace_items", 0),
            ("workspace_bytes", 0),
            ("store_bytes", 0),
            ("tracked_paths", 1),
            ("learning_paths", 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ValueError(f"{name} must be an integer of {lowest} or more, got {value!r}")
        if not self.by_tokens and 0 < self.store_bytes < 8 * self.tracked_paths:
            raise ValueError(
                f"store_bytes must be 0 or at least 8 x tracked_paths = {8 * self.tracked_paths:,}, "
                f"got {self.store_bytes:,}"
            )
        for name in (
            "density",
            "dynamic_density",
            "coverage",
            "decay",
            "hysteresis",
            "rerun",
            "exact_rows",
            "max_error",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        for name in ("density", "dynamic_density", "coverage", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        for name in ("hysteresis", "rerun"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("exact_rows", "max_error"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not isinstance(self.judges_exact, bool):
            raise ValueError(f"judges_exact must be true or false, got {self.judges_exact!r}")
        self._check_codecs()
        if self.control is not Control.NONE and (not self.learns_paths or self.per_request):
            raise ValueError(
                f"control must be none unless paths have residuals (modes differential and no_pruning, scope path), "
                f"got {self.control.value!r} in mode {self.mode.value}, scope {self.scope.value}"
            )
        self.store = os.fspath(self.store)
        if self.store and not self.has_bases:
            raise ValueError(f"store must be empty in mode {self.mode.value}, which has no bases, got {self.store!r}")

    def _check_codecs(self) -> None:
        check_value_bits(self.value_bits, (8, 16, 32))
        check_codec(self.codec)
        check_codec(self.dynamic_codec, "dynamic_codec", ("none", *CODECS))
        for name in ("codec", "dynamic_codec"):
            if getattr(self, name) in ("dense", "low_rank") and self.value_bits == 8:
                raise ValueError(f"value_bits must be one of 16, 32 with {name} {getattr(self, name)}, got 8")
        if self.allocate is Allocation.WATERFILL and self.codec not in ("sparse", "mean_shift"):
            raise ValueError(f"codec must be one of sparse, mean_shift with allocate waterfill, got {self.codec!r}")
        if self.max_error and self.allocate is not Allocation.WATERFILL:
            raise ValueError(f"max_error must be 0 unless allocate is waterfill, got {self.max_error}")

    @property
    def has_bases(self) -> bool:
        """True if prompts are served from bases: all modes but the stateful ones and those that share by tokens."""
        return self.learns_paths or self.mode in (StateMode.STATELESS, StateMode.BLEND)

    @property
    def by_tokens(self) -> bool:
        """True if state is shared by tokens: prefix and operation_first modes."""
        return self.mode in (StateMode.PREFIX, StateMode.OPERATION_FIRST)

    @property
    def learns_paths(self) -> bool:
        """True if residuals of paths are learned: differential and no_pruning modes."""
        return self.mode in (StateMode.DIFFERENTIAL, StateMode.NO_PRUNING)

    @property
    def weighs_tokens(self) -> bool:
        """True if it is learned which tokens of a prompt deviate most, because those run again."""
        return self.mode is StateMode.BLEND or (self.learns_paths and not self.per_request and self.exact_rows > 0)

    @property
    def per_request(self) -> bool:
        """True if each request keeps its own encoded remainder: request scope in a mode that has residuals."""
        return self.learns_paths and self.scope is Scope.REQUEST


def _member(kind: type[_E], field: str, value: _E | str) -> _E:
    """The enum member of a value that may have arrived as text (its value or its name, in any case)."""
    if isinstance(value, kind):
        return value
    text = str(value).lower()
    allowed = [str(member.value) for member in kind]
    if text in allowed:
        return kind(text)
    close = difflib.get_close_matches(text, allowed, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {value!r}{hint}")
