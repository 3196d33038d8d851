"""The running batch: requests join and leave it between any two tokens.

One step runs the prefill of those that joined last, or a chunk of it, and one token of every row in flight. Positions
are explicit, so rows of any length and of any operation decode together; prompts of very different lengths are
prefilled apart, see `alike`. Samples of a request share its prefill: the row of the cache is repeated, the pieces of
the context are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphflow.backbone.cache import ResidualCache
from graphflow.backbone.lanes import LANE, Lanes
from graphflow.backbone.load import Backbone
from graphflow.backbone.padding import PADDING, alike
from graphflow.engine.failure import attempt
from graphflow.engine.prefill import Prefill
from graphflow.engine.request import Reply, Request
from graphflow.kv import OperationStore, SegmentKind


@dataclass(eq=False)
class Flight:
    """A request in the batch.

    Attributes:
        request: What is asked for.
        reply: What has come of it; whole once the batch gives it back.
        started: Clock when it joined, seconds.
        keep_logits: Whether the logits of every output token are kept.
        left: Samples that have not ended.
        cancelled: True if nobody waits for it.
        failure: What went wrong; empty if nothing did. A group whose prefill fails does so as a whole.
    """

    request: Request
    reply: Reply
    started: float
    keep_logits: bool
    left: int
    cancelled: bool = False
    failure: str = ""


@dataclass(eq=False)
class Row:
    """A sample in flight. A flight knows nothing of its rows, so that all of it is freed as soon as nobody holds it."""

    flight: Flight
    sample: int
    generator: torch.Generator
    output: list[int] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    @property
    def first(self) -> int:
        """Position of the output's first token."""
        return self.flight.request.offset + len(self.flight.request.prompt)


@dataclass(eq=False)
class Group:
    """Requests that are prefilled together.

    Attributes:
        flights: Its requests; those that were cancelled before the prefill began are out.
        prefill: Their rows, in order; None before it begins.
    """

    flights: list[Flight]
    prefill: Prefill | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.prefill.cache.nbytes if self.prefill is not None else 0


class Batch:
    """Rows in flight on one model.

    Attributes:
        isolated: Whether what a request raises is its own failure; if not, the batch raises it.
        peak_bytes: Most bytes that its caches have held since this was last set to 0.

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
        clock: Callable[[], float],
        chunk: int = 0,
        padding: int = PADDING,
    ) -> None:
        self.backbone, self.store, self.clock = backbone, store, clock
        self.chunk, self.padding = chunk, padding
        self.kept = store.shape.dtype
        self.isolated, self.peak_bytes = True, 0
        self._cache = backbone.lanes(store.shape)
        self._active: list[Row | None] = []  # one a row of the cache; None where the row has ended
        self._groups: list[Group] = []  # that are still to be prefilled, or whose rows are not in the cache yet

    @property
    def joining(self) -> bool:
        """True while prompts are prefilled; nothing else can join meanwhile."""
        return bool(self._groups)

    @property
    def _joining(self) -> list[Flight]:
        return [flight for group in self._groups for flight in group.flights if not flight.cancelled]

    @property
    def flights(self) -> list[Flight]:
        """Requests in flight, without those that are cancelled."""
        found = dict.fromkeys(row.flight for row in self._active if row is not None)
        return [*self._joining, *found]

    @property
    def rows(self) -> int:
        """Samples in flight, those of prompts that are prefilled included."""
        return sum(row is not None for row in self._active) + sum(flight.left for flight in self._joining)

    @property
    def nbytes(self) -> int:
        """Bytes that the caches hold now."""
        return self._cache.nbytes + sum(group.nbytes for group in self._groups)

    def join(self, requests: Sequence[Request], keep_logits: bool | Sequence[bool] = False) -> list[Flight]:
        """Lets requests of any operations and lengths in; their prefill begins with the next step.

        Args:
            requests: The steps, at least one.
            keep_logits: Whether to give the logits of every output token, for all or each of them.

        Returns:
            One flight a request, in order.
        """
        assert not self._groups, "those that joined before are prefilled first"
        keep = [keep_logits] * len(requests) if isinstance(keep_logits, bool) else keep_logits
        started, flights, wholes, fresh = self.clock(), list[Flight](), list[int](), list[int]()
        for request, wanted in zip(requests, keep, strict=True):
            whole, ran = request.offset + len(request.prompt), len(request.fresh[0])
            reply = Reply(request.context, prefill_tokens=ran, reused_tokens=whole - ran)
            reply.operation_tokens, reply.operation_reused = request.operation_counts
            flights.append(Flight(request, reply, started, wanted, len(request.seeds)))
            wholes.append(whole)
            fresh.append(ran)
        for same in alike(fresh, self.padding):
            for places in alike([wholes[place] for place in same], LANE):
                self._groups.append(Group([flights[same[place]] for place in places]))
        return flights

    def cancel(self, flight: Flight) -> None:
        """Lets a request go: nothing comes of it."""
        flight.cancelled = True
        self._active = [None if row is not None and row.flight is flight else row for row in self._active]
        for group in self._groups:
            if group.prefill is None:
                group.flights = [own for own in group.flights if not own.cancelled]
        self._groups = [group for group in self._groups if not all(own.cancelled for own in group.flights)]
        self._leave()

    def step(self) -> list[Flight]:
        """Runs prefills, or a chunk of one, and one token of every row; gives the requests that end with it."""
        ended = self._advance()
        if self._active:
            ended += self._decode()
        self._leave()
        return ended

    def _advance(self) -> list[Flight]:
        """Prefills those that join, one chunk if there is a bound; gives the requests that end or fail with it."""
        ended, ready = [], list[Group]()
        for group in list(self._groups):
            failure = self._try(lambda group=group: self._chunk(group))
            if failure:
                self._groups.remove(group)
                failed = [flight for flight in group.flights if not flight.cancelled]
                for flight in failed:
                    flight.failure = failure
                ended += failed
            elif group.prefill is not None and group.prefill.done:
                ready.append(group)
            if self.chunk:
                break
        return ended + (self._board(ready) if ready else [])

    def _try(self, action: Callable[[], object]) -> str:
        """What an action has raised, in words; it is raised where failures are not isolated."""
        if self.isolated:
            return attempt(action)
        action()
        return ""

    def _chunk(self, group: Group) -> None:
        """Runs a chunk of a group's prompts; all of them if there is no bound."""
        if group.prefill is None:
            requests = [flight.request for flight in group.flights]
            cache = self.backbone.batch([request.held for request in requests], self.store.shape)
            group.prefill = Prefill(self.backbone, cache, [request.fresh for request in requests], self.chunk)
        group.prefill.advance()
        self._count()

    def _count(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self.nbytes)

    def _board(self, groups: Sequence[Group]) -> list[Flight]:
        """Lets the rows of prefilled prompts decode; gives those that fail or end with their first token."""
        ended, boarding, caches = [], list[Row](), list[ResidualCache]()
        for group in groups:
            assert group.prefill is not None and group.prefill.hidden is not None
            rows, places, failed = self._kept(group.flights, group.prefill)
            left, over = self._begin(group.prefill.cache, group.prefill.hidden, rows, places)
            ended += failed + over
            if left:
                if [places[index] for index in left] != list(range(len(group.flights))):
                    chosen = torch.tensor([places[index] for index in left], device=self.backbone.device)
                    group.prefill.cache.select(chosen)
                caches.append(group.prefill.cache)
                boarding += [rows[index] for index in left]
        self._groups = [group for group in self._groups if group not in groups]
        if boarding:
            self._merge(caches, boarding)
        return ended

    def _kept(self, flights: Sequence[Flight], prefill: Prefill) -> tuple[list[Row], list[int], list[Flight]]:
        """Fills in what a prefill has made of requests.

        Returns:
            A row a sample, its place in the prefill, and the requests that failed.
        """
        rows, places, failed = [], [], []
        for place, flight in enumerate(flights):
            if flight.cancelled:
                continue
            failure = self._try(lambda flight=flight, place=place: self._keep(prefill, place, flight))
            if failure:
                flight.failure = failure
                failed.append(flight)
                continue
            request, reply, count = flight.request, flight.reply, len(flight.request.seeds)
            (prompt,) = reply.contexts
            reply.outputs, reply.contexts = [()] * count, [prompt] * count
            reply.logits = [torch.empty(0)] * count if flight.keep_logits else []
            rows += [Row(flight, i, torch.Generator().manual_seed(seed)) for i, seed in enumerate(request.seeds)]
            places += [place] * count
        return rows, places, failed

    def _begin(
        self, cache: ResidualCache, hidden: Tensor, rows: list[Row], places: list[int]
    ) -> tuple[list[int], list[Flight]]:
        """First tokens of rows behind prompts in these places of a cache.

        Returns:
            The rows that go on, and the requests that have ended.
        """
        if not rows:
            return [], []
        alive, ended = self._write(rows, hidden[torch.tensor(places, device=hidden.device)], cache)
        return [index for index, row in enumerate(alive) if row is not None], ended

    def _merge(self, caches: Sequence[ResidualCache], rows: list[Row]) -> None:
        """Puts rows behind those that are still decoding."""
        stay = [place for place, row in enumerate(self._active) if row is not None]
        every = [*(self._active[place] for place in stay), *rows]
        self._active = [every[place] for place in self._cache.join(stay, *caches)]
        self._count()

    def _decode(self) -> list[Flight]:
        """One token of every row."""
        ids = [[row.output[-1] if row else 0] for row in self._active]
        places = [[row.first + len(row.output) - 1 if row else -1] for row in self._active]
        where = self.backbone.device
        hidden = self.backbone.forward(torch.tensor(ids, device=where), torch.tensor(places, device=where), self._cache)
        self._count()
        self._active, ended = self._write(self._active, hidden[:, -1], self._cache)
        return ended

    def _write(
        self, rows: Sequence[Row | None], hidden: Tensor, cache: ResidualCache | Lanes
    ) -> tuple[list[Row | None], list[Flight]]:
        """Chooses the next token of every row; gives the rows that go on, None for the others, and ended requests."""
        logits, now = self.backbone.logits(hidden).cpu(), self.clock()
        left, ended = list(rows), []
        for index, row in enumerate(rows):
            if row is None:
                continue
            flight, request = row.flight, row.flight.request
            flight.reply.first_token_s = flight.reply.first_token_s or now - flight.started
            if flight.keep_logits:
                row.logits.append(logits[index])
            row.output.append(_choose(logits[index], request.temperature, row.generator))
            if row.output[-1] in self.backbone.stops or len(row.output) == request.max_tokens:
                left[index] = None
                if self._end(row, cache, index, cache.end(index)):
                    ended.append(flight)
        return left, ended

    def _end(self, row: Row, cache: ResidualCache | Lanes, place: int, slot: int) -> bool:
        """Hands over an output whose KV ends before a slot of a row; True if it was the last one of its request."""
        flight, reply, length = row.flight, row.flight.reply, len(row.output) - 1  # the last token has no KV
        if length:
            kv = cache.take(place, slot - length, slot, row.first, self.backbone.rope, self.kept)
            own = self.store.hold(row.output[:-1], kv, SegmentKind.DYNAMIC)
            reply.contexts[row.sample] = reply.contexts[row.sample].append(own)
        reply.outputs[row.sample] = tuple(row.output)
        if flight.keep_logits:
            reply.logits[row.sample] = torch.stack(row.logits)
        flight.left -= 1
        return not flight.left

    def _leave(self) -> None:
        """Rows that have ended leave when they are half of the batch; the others leave when somebody joins."""
        left = [place for place, row in enumerate(self._active) if row is not None]
        if not left and self._active:
            self._active, self._cache = [], self.backbone.lanes(self.store.shape)
        elif self._active and 2 * len(left) <= len(self._active):
            self._cache.select(left)
            self._active = [self._active[place] for place in left]

    def _keep(self, prefill: Prefill, row: int, flight: Flight) -> None:
        """Fills in the contexts before and after an operation's prompt, of what ran in a row; the store learns."""
        store, request, reply = self.store, flight.request, flight.reply
        trunk, plan, prompt = request.context, request.plan, request.prompt
        slot = prefill.end - reply.prefill_tokens

        def taken(count: int, offset: int) -> Tensor:
            return prefill.cache.take(row, slot, slot + count, offset, self.backbone.rope, self.kept)

        for ids, kind in request.runs:
            trunk = trunk.append(store.hold(ids, taken(len(ids), trunk.length), kind))
            slot += len(ids)
        context, path = trunk, trunk.path
        if plan.pieces:
            for start, stop, piece in plan.runs(len(prompt)):
                if piece is None:
                    piece = store.hold(prompt[start:stop], taken(stop - start, context.length), SegmentKind.OPERATION)
                    slot += stop - start
                context = context.append(piece)
            store.touch(request.op, path)
        else:
            exact = taken(len(prompt), trunk.length)
            context = context.append(store.keep(request.op, path, prompt, exact))
            store.observe(request.op, path, exact)
        reply.trunk, reply.contexts = trunk, [context.with_operation(request.op)]


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    """The next token: the likeliest, or a sample."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
