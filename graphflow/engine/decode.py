"""The decode loop: explicit positions, ragged batches, state of operations from the store.

One call prefills what is new of every request in one forward pass and then generates for all of them together. Samples
of a request share its prefill: the cache's row is repeated, the pieces of the context are not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphflow.backbone.cache import Placed, ResidualCache
from graphflow.backbone.load import Backbone
from graphflow.engine.request import Reply, Request
from graphflow.kv import Context, OperationStore, Piece, SegmentKind


@dataclass
class _Row:
    """A sample in flight: which request it is of, and what it has generated."""

    request: int
    generator: torch.Generator
    output: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    kv: Tensor | None = None
    done: bool = False


class Decoder:
    """Runs requests on a backbone and keeps what the store says.

    Args:
        backbone: The model.
        store: State of operations.
        clock: Seconds, monotonic.
    """

    def __init__(self, backbone: Backbone, store: OperationStore, clock: Callable[[], float] = time.perf_counter):
        self.backbone, self.store, self.clock = backbone, store, clock
        self.kept = store.shape.dtype
        self.cache_bytes = 0

    def _cache(self, rows: Sequence[Placed]) -> ResidualCache:
        return self.backbone.batch(rows, self.store.shape)

    def _run(self, cache: ResidualCache, fresh: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[Tensor, int]:
        """Prefills ragged rows, left-padded; gives hidden states of the last token and the first slot of column 0."""
        width, first = max(len(ids) for ids, _ in fresh), cache.slots
        ids = torch.zeros(len(fresh), width, dtype=torch.long)
        positions = torch.full((len(fresh), width), -1)
        for row, (tokens, places) in enumerate(fresh):
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
            positions[row, width - len(tokens) :] = torch.tensor(places)
        device = self.backbone.device
        hidden = self.backbone.forward(ids.to(device), positions.to(device), cache)
        self.cache_bytes = max(self.cache_bytes, cache.nbytes)
        return hidden[:, -1], first + width

    def bare(self, prompt: Sequence[int], before: Sequence[int] = ()) -> Tensor:
        """KV of a prompt without any request's text before it, local frame: the operation's base.

        Args:
            prompt: The prompt.
            before: What stands before it and is dropped; nothing is the paper's prefix-free base.

        Returns:
            (layers, 2, kv_heads, L, head_dim) in the dtype in which KV is kept.
        """
        cache = self._cache([()])
        start, stop = len(before), len(before) + len(prompt)
        self._run(cache, [((*before, *prompt), range(stop))])
        return cache.take(0, start, stop, start, self.backbone.rope, self.kept)

    def prefill(self, texts: Sequence[Sequence[int]], after: Sequence[Context] | None = None) -> list[Context]:
        """Contexts with one dynamic segment more: the tasks.

        Args:
            texts: Tokens of each segment, at least one.
            after: What each follows; nothing where None.
        """
        after = [Context()] * len(texts) if after is None else after
        cache = self._cache([context.pieces for context in after])
        fresh = [
            (ids, range(context.length, context.length + len(ids))) for ids, context in zip(texts, after, strict=True)
        ]
        _, end = self._run(cache, fresh)
        return [
            context.append(self._segment(cache, row, end - len(ids), ids, context.length, SegmentKind.DYNAMIC))
            for row, (ids, context) in enumerate(zip(texts, after, strict=True))
        ]

    def generate(self, requests: Sequence[Request], keep_logits: bool = False) -> list[Reply]:
        """Prefills and decodes a batch.

        Args:
            requests: The steps, of any operations and lengths.
            keep_logits: Also give the logits of every output token.

        Returns:
            One reply a request, in order.
        """
        started = self.clock()
        cache = self._cache([request.held for request in requests])
        fresh = [request.fresh for request in requests]
        hidden, end = self._run(cache, fresh)
        replies, prompts = [], []
        for row, (request, (ids, _)) in enumerate(zip(requests, fresh, strict=True)):
            trunk, prompt = self._keep(cache, row, end - len(ids), request)
            prompts.append(prompt)
            whole = request.offset + len(request.prompt)
            replies.append(Reply(trunk, prefill_tokens=len(ids), reused_tokens=whole - len(ids)))
            replies[-1].operation_tokens, replies[-1].operation_reused = request.operation_counts
        rows = [
            _Row(index, torch.Generator().manual_seed(seed))
            for index, request in enumerate(requests)
            for seed in request.seeds
        ]
        if len(rows) > len(requests):
            index = torch.tensor([row.request for row in rows], device=self.backbone.device)
            cache.select(index)
            hidden = hidden[index]
        self._decode(cache, hidden, rows, requests, keep_logits, replies, started)
        for row in rows:
            reply, context = replies[row.request], prompts[row.request]
            if row.kv is not None:
                context = context.append(self.store.hold(row.output[:-1], row.kv, SegmentKind.DYNAMIC))
            reply.outputs.append(tuple(row.output))
            reply.contexts.append(context)
            if keep_logits:
                reply.logits.append(torch.stack(row.logits))
        return replies

    def _decode(
        self,
        cache: ResidualCache,
        hidden: Tensor,
        rows: list[_Row],
        requests: Sequence[Request],
        keep_logits: bool,
        replies: list[Reply],
        started: float,
    ) -> None:
        """Generates until every row is done; rows that are done leave the batch when they are half of it."""
        active, first = list(rows), cache.slots
        while True:
            logits = self.backbone.logits(hidden).cpu()
            now = self.clock() - started
            for index, row in enumerate(active):
                if row.done:
                    continue
                request = requests[row.request]
                replies[row.request].first_token_s = replies[row.request].first_token_s or now
                if keep_logits:
                    row.logits.append(logits[index])
                row.output.append(_choose(logits[index], request.temperature, row.generator))
                if row.output[-1] == self.backbone.stop or len(row.output) == request.max_tokens:
                    row.done = True
                    self._finish(cache, index, row, first, request)
            left = [index for index, row in enumerate(active) if not row.done]
            if not left:
                return
            if 2 * len(left) <= len(active):
                cache.select(torch.tensor(left, device=self.backbone.device))
                active = [active[index] for index in left]
            ids = torch.tensor([[row.output[-1]] for row in active], device=self.backbone.device)
            places = [-1 if row.done else self._next(requests[row.request], row) for row in active]
            positions = torch.tensor(places, device=self.backbone.device)[:, None]
            hidden = self.backbone.forward(ids, positions, cache)[:, -1]
            self.cache_bytes = max(self.cache_bytes, cache.nbytes)

    @staticmethod
    def _next(request: Request, row: _Row) -> int:
        """Position of a row's newest token."""
        return request.offset + len(request.prompt) + len(row.output) - 1

    def _finish(self, cache: ResidualCache, index: int, row: _Row, first: int, request: Request) -> None:
        """Takes the KV of a finished output out of the cache; its last token has none."""
        length = len(row.output) - 1
        if length:
            offset = request.offset + len(request.prompt)
            row.kv = cache.take(index, first, first + length, offset, self.backbone.rope, self.kept)

    def _segment(
        self, cache: ResidualCache, row: int, slot: int, ids: Sequence[int], offset: int, kind: SegmentKind
    ) -> Piece:
        """Tokens of a row, from a slot on, as the request keeps them."""
        kv = cache.take(row, slot, slot + len(ids), offset, self.backbone.rope, self.kept)
        return self.store.hold(ids, kv, kind)

    def _keep(self, cache: ResidualCache, row: int, slot: int, request: Request) -> tuple[Context, Context]:
        """Contexts before and after the operation's prompt; tells the store what it has seen."""
        trunk, plan, prompt = request.context, request.plan, request.prompt
        for ids, kind in request.runs:
            trunk = trunk.append(self._segment(cache, row, slot, ids, trunk.length, kind))
            slot += len(ids)
        context, path = trunk, trunk.path
        if not plan.pieces:
            exact = cache.take(row, slot, slot + len(prompt), trunk.length, self.backbone.rope, self.kept)
            context = context.append(self.store.keep(request.op, path, prompt, exact))
            self.store.observe(request.op, path, exact)
            return trunk, context.with_operation(request.op)
        for start, stop, piece in plan.runs(len(prompt)):
            if piece is None:
                piece = self._segment(cache, row, slot, prompt[start:stop], context.length, SegmentKind.OPERATION)
                slot += stop - start
            context = context.append(piece)
        self.store.touch(request.op, path)
        return trunk, context.with_operation(request.op)


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """The next token: the likeliest, or a sample."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
