"""What a store remembers, as plain data, and whose state it is (our choice)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from graphflow.kv.accounting import KVShape
from graphflow.kv.codecs import Encoded
from graphflow.kv.learned import Energies
from graphflow.kv.modes import KVConfig
from graphflow.kv.paths import Key
from graphflow.kv.rope import Rope


@dataclass(frozen=True)
class ModelIdentity:
    """Whose KV a store holds.

    Attributes:
        name: Name of the model, for messages.
        fingerprint: Hash of its weights; a store of other weights is refused.
        tokenizer: Hash of its tokenizer, for example SHA-256 of its JSON; a store of another one is refused.
        revision: Commit or tag, for messages.

    Raises:
        ValueError: No fingerprint or no tokenizer hash.
    """

    name: str
    fingerprint: str
    tokenizer: str
    revision: str = ""

    def __post_init__(self) -> None:
        for what in ("fingerprint", "tokenizer"):
            if not getattr(self, what):
                raise ValueError(f"ModelIdentity.{what} must not be empty: it says whose state a saved store holds")


@dataclass(frozen=True)
class Run:
    """What a store belongs to, and what is known of it before it is loaded.

    Attributes:
        model: Whose KV.
        rope: Rotary embedding of the model.
        shape: Shape and dtype of its KV.
        config: Settings; None to take those that were saved.
        prompts: Token ids of every operation's prompt; None to take those that were saved.
    """

    model: ModelIdentity
    rope: Rope
    shape: KVShape
    config: KVConfig | None = None
    prompts: Mapping[str, Sequence[int]] | None = None

    @property
    def rope_digest(self) -> str:
        """SHA-256 of the frequencies, float32."""
        return hashlib.sha256(self.rope.inv_freq.cpu().contiguous().numpy().tobytes()).hexdigest()


@dataclass
class Snapshot:
    """Everything that a store remembers.

    Attributes:
        bases: Tokens of every operation's prompt, and KV of the part that is stored (None if it has no such part).
        residuals: Encoded means and the energies that they left.
        moments: Count, mean and sum of squares of paths that are being learned.
        deviations: Exact runs and summed deviations of every operation whose tokens were weighed.
        weight: Weight of the last touch (`PathStatistics.dump`).
        traffic: Undecayed sums, in the order in which the paths were first seen.
        until_prune: Transitions until the next pruning.
    """

    bases: dict[str, tuple[tuple[int, ...], Tensor | None]] = field(default_factory=dict)
    residuals: dict[Key, tuple[Encoded, Energies]] = field(default_factory=dict)
    moments: dict[Key, tuple[int, Tensor, Tensor]] = field(default_factory=dict)
    deviations: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    weight: float = 1.0
    traffic: list[tuple[Key, float]] = field(default_factory=list)
    until_prune: int = 1
