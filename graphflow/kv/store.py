"""The store of operation state: what `MemoryStore` learns while it serves, saved and loaded again (our choice).

What is saved belongs to one model: its weights, tokenizer, rotary frequencies and prompts. Loading refuses what does
not fit or is damaged and says what it is; a loaded store serves the same KV bit by bit and goes on learning. Weights of
errors are not saved: a few exact runs give them again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch

from graphflow.kv import persistence
from graphflow.kv.accounting import KVShape
from graphflow.kv.bases import UnknownOperationError
from graphflow.kv.memory import Allowed, MemoryStore
from graphflow.kv.modes import KVConfig
from graphflow.kv.paths import key_name
from graphflow.kv.plan import EXACT, FALLBACK, Plan
from graphflow.kv.residual import Moments
from graphflow.kv.rope import Rope
from graphflow.kv.snapshot import ModelIdentity, Run, Snapshot

__all__ = ["EXACT", "FALLBACK", "Allowed", "OperationStore", "Plan", "UnknownOperationError"]


class OperationStore(MemoryStore):
    """Bases, residuals and traffic of operations, which can be saved.

    Attributes:
        model: Whose KV this is; needed to `save`.
        dropped: After `load`, a sentence for every saved entry that was left out.

    Args:
        config: Settings.
        rope: Rotary embedding of the model.
        shape: Shape and dtype of the model's KV.
        allowed: Transitions that may be stored; None for all.
        model: Whose KV this is.
    """

    def __init__(
        self,
        config: KVConfig,
        rope: Rope,
        shape: KVShape,
        allowed: Allowed | None = None,
        model: ModelIdentity | None = None,
    ) -> None:
        super().__init__(config, rope, shape, allowed)
        self.model = model
        self.dropped: tuple[str, ...] = ()

    def save(self, location: str | os.PathLike[str], moments: bool = True, wait_s: float = 60.0) -> None:
        """Write bases, residuals, traffic and what is being learned; a store that is there is replaced as a whole.

        Args:
            location: Folder, as a plain path or as any fsspec URL.
            moments: Also write the moments of paths that are being learned, so that learning goes on after `load`.
                They are the larger part of a young store.
            wait_s: Seconds to wait for another process that is saving to the same place.

        Raises:
            ValueError: The store does not know whose KV it holds (``model``).
            StoreLockedError: Another process is saving to the same place for longer than that.
        """
        if self.model is None:
            raise ValueError("to save a store its model must be known: OperationStore(..., model=ModelIdentity(...))")
        run = Run(self.model, self.rope, self.shape)
        persistence.save(location, self._snapshot(moments), run, self.config, wait_s)

    @classmethod
    def load(
        cls,
        location: str | os.PathLike[str],
        rope: Rope,
        shape: KVShape,
        model: ModelIdentity,
        config: KVConfig | None = None,
        prompts: Mapping[str, Sequence[int]] | None = None,
        allowed: Allowed | None = None,
        repair: bool = False,
        device: torch.device | str = "cpu",
    ) -> OperationStore:
        """A store as it was saved; its plans give the same KV bit by bit.

        Args:
            location: Folder, as a plain path or as any fsspec URL.
            rope: Rotary embedding of the model.
            shape: Shape and dtype of the model's KV.
            model: Whose KV it must be.
            config: Settings to go on with; those that decide what is stored must be as they were. None: as saved.
            prompts: Token ids of every operation; the saved ones must be the same. Operations that were not saved are
                still to be added (`add_base`). None: as saved.
            allowed: As for a new store; saved paths that it excludes are left out.
            repair: Leave damaged entries out (see ``dropped``) instead of refusing the store. Paths are learned again
                by themselves, a base has to be added again.
            device: Where the tensors go.

        Raises:
            StoreMismatchError: The store belongs to something else; names field, given and expected.
            StoreFormatError: It is not a store, or not a whole one.
            BudgetError: ``config.store_bytes`` does not hold the saved bases.
        """
        loaded = persistence.load(location, Run(model, rope, shape, config, prompts), repair, device)
        store = cls(loaded.config, rope, shape, allowed, model)
        store.dropped = (*loaded.dropped, *store._take_over(loaded.snapshot))
        return store

    def _snapshot(self, moments: bool) -> Snapshot:
        """Everything that is remembered, not copied."""
        learned, bases = self._learned, self._bases
        weight, traffic = self.paths.dump()
        return Snapshot(
            bases={op: (base.tokens, base.core and base.core.kv) for op in bases for base in [bases[op]]},
            residuals={key: (learned.residuals[key], learned.energies[key]) for key in learned.residuals},
            moments={key: (own.count, own.mean, own.squares) for key, own in learned.moments.items()}
            if moments
            else {},
            deviations=self._deviations.dump(),
            weight=weight,
            traffic=traffic,
            until_prune=self._until_prune,
        )

    def _take_over(self, snapshot: Snapshot) -> list[str]:
        """Fill an empty store, the most used paths first; gives a sentence for every path that may not be stored."""
        self.paths.restore(snapshot.weight, [(key, value) for key, value in snapshot.traffic if self.allows(*key)])
        self._until_prune = min(snapshot.until_prune, self.config.prune_every)
        if not self.config.has_bases:
            return []
        for op, (tokens, core) in snapshot.bases.items():
            self._keep_base(op, tokens, core)
        if self.config.weighs_tokens:
            for op, (count, sums) in snapshot.deviations.items():
                self._deviations.restore(op, count, sums)
        if not self.config.learns_paths:
            return []
        known = sorted([*snapshot.residuals, *snapshot.moments], key=self.paths.traffic, reverse=True)
        allowed = [key for key in known if self.allows(*key)]
        for key in allowed:
            if key in snapshot.residuals and self._admission.fits(snapshot.residuals[key][0].nbytes):
                self._learned.residuals[key], self._learned.energies[key] = snapshot.residuals[key]
        for key in allowed:
            core = self._bases.core_of(key[0])
            if key in snapshot.moments and core is not None and self._admission.fits_moments(core):
                self._learned.moments[key] = Moments.restore(core.kv, *snapshot.moments[key])
        return [f"{key_name(key)}: not among the allowed transitions" for key in known if key not in allowed]
