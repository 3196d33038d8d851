"""Runs requests and texts on a backbone, with the state that the store has of operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from graphflow.backbone.load import Backbone
from graphflow.backbone.padding import PADDING, alike
from graphflow.engine.batch import Batch
from graphflow.engine.prefill import Fresh, Prefill
from graphflow.engine.request import Reply, Request
from graphflow.kv import Context, OperationStore, SegmentKind


class Decoder:
    """Runs requests on a backbone and keeps what the store says.

    Attributes:
        cache_bytes: Most bytes that a cache has held since this was last set to 0; running batches count their own.
        between: Called between two passes over texts, so that a running batch goes on meanwhile.

    Args:
        backbone: The model.
        store: State of operations.
        clock: Seconds, monotonic.
        chunk: Tokens of one prefill pass at most, see `Prefill`; 0 for no bound.
        padding: Tokens that one more pass costs as much as, see `alike`.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: OperationStore,
        clock: Callable[[], float] = time.perf_counter,
        chunk: int = 0,
        padding: int = PADDING,
    ):
        self.backbone, self.store, self.clock = backbone, store, clock
        self.chunk, self.padding = chunk, padding
        self.kept = store.shape.dtype
        self.cache_bytes = 0
        self.between: Callable[[], None] = lambda: None

    def open(self) -> Batch:
        """An empty running batch."""
        return Batch(self.backbone, self.store, self.clock, self.chunk, self.padding)

    def _prefilled(self, after: Sequence[Context], fresh: Sequence[Fresh]) -> Prefill:
        """Rows whose tokens have run."""
        cache = self.backbone.batch([context.pieces for context in after], self.store.shape)
        prefill = Prefill(self.backbone, cache, fresh, self.chunk)
        while not prefill.done:
            prefill.advance()
            self.cache_bytes = max(self.cache_bytes, cache.nbytes)
            if not prefill.done:
                self.between()
        return prefill

    def bare(self, prompt: Sequence[int], before: Sequence[int] = ()) -> Tensor:
        """KV of a prompt without any request's text before it, local frame: the operation's base.

        Args:
            prompt: The prompt.
            before: What stands before it and is dropped; nothing is the paper's prefix-free base.

        Returns:
            (layers, 2, kv_heads, L, head_dim) in the dtype in which KV is kept.
        """
        start, stop = len(before), len(before) + len(prompt)
        run = self._prefilled([Context()], [((*before, *prompt), range(stop))])
        return run.cache.take(0, start, stop, start, self.backbone.rope, self.kept)

    def prefill(self, texts: Sequence[Sequence[int]], after: Sequence[Context] | None = None) -> list[Context]:
        """Contexts with one dynamic segment more: the tasks.

        Args:
            texts: Tokens of each segment, at least one.
            after: What each follows; nothing where None.
        """
        grown = [Context()] * len(texts) if after is None else list(after)
        for first, group in enumerate(alike([len(ids) for ids in texts], self.padding)):
            if first:
                self.between()
            own = self._extended([grown[place] for place in group], [texts[place] for place in group])
            for place, context in zip(group, own, strict=True):
                grown[place] = context
        return grown

    def _extended(self, before: Sequence[Context], texts: Sequence[Sequence[int]]) -> list[Context]:
        """Contexts with these texts behind them, of one pass; its cache is let go."""
        starts = [context.length for context in before]
        run = self._prefilled(
            before, [(ids, range(start, start + len(ids))) for ids, start in zip(texts, starts, strict=True)]
        )
        grown = []
        for row, (context, ids) in enumerate(zip(before, texts, strict=True)):
            kv = run.cache.take(row, run.end - len(ids), run.end, context.length, self.backbone.rope, self.kept)
            grown.append(context.append(self.store.hold(ids, kv, SegmentKind.DYNAMIC)))
        return grown

    def generate(self, requests: Sequence[Request], keep_logits: bool = False) -> list[Reply]:
        """Prefills and decodes requests to their end, in a batch of their own.

        Args:
            requests: The steps, of any operations and lengths.
            keep_logits: Also give the logits of every output token.

        Returns:
            One reply a request, in order.
        """
        batch = self.open()
        batch.isolated = False
        flights = batch.join(requests, keep_logits)
        while batch.flights:
            batch.step()
        self.cache_bytes = max(self.cache_bytes, batch.peak_bytes)
        return [flight.reply for flight in flights]
