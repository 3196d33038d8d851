"""When steps join the running batch and leave it, without a model: the rules of `graphflow.engine.serving`.

Which requests come before a path is learned, and so what they keep of its prompt, hangs on this order. Time is counted
in steps of the batch: in each of them tasks are let in, calls that are ready join and have their prompts run, and every
row writes a token. Tools take no time. The schedule is the engine's default: first come, first served; prompts run
whole; a task arrives when another one ends; nothing waits for memory (our choice, as the engine's).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from graphflow.experiment.capacity.traffic import Call, Request


@dataclass(eq=False)
class Under:
    """A request under way.

    Attributes:
        request: What it brings.
        asked: Places of its calls that have become ready.
        ended: Places of those that have ended.
    """

    request: Request
    asked: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)

    @property
    def done(self) -> bool:
        """True once every call has ended."""
        return len(self.ended) == len(self.request.calls)

    def ready(self) -> list[int]:
        """Places of calls that nothing is left to wait for; each is given once."""
        calls = enumerate(self.request.calls)
        found = [place for place, call in calls if place not in self.asked and self.ended.issuperset(call.after)]
        self.asked.update(found)
        return found


@dataclass(eq=False)
class Flight:
    """A call that is ready, or in the batch.

    Attributes:
        one: The request that it belongs to.
        place: Its place there.
        joined: The step in which it joined the batch.
    """

    one: Under
    place: int
    joined: int = 0

    @property
    def call(self) -> Call:
        """The call."""
        return self.one.request.calls[self.place]

    @property
    def rows(self) -> int:
        """Rows of the batch that it takes."""
        return self.call.samples

    @property
    def last(self) -> int:
        """The step in which it ends: the one in which it joins gives two tokens, every other one."""
        return self.joined + max(0, self.call.longest - 2)


@dataclass(frozen=True)
class Tick:
    """What happens in one step of the batch, in this order.

    Attributes:
        at: Its number; steps in which nothing happens but decoding are left out.
        admitted: Requests that are let in.
        joined: Calls that join: what the store has for them is asked for all of them before any of them runs.
        ended: Calls that end.
    """

    at: int
    admitted: list[Under]
    joined: list[Flight]
    ended: list[Flight]


def ticks(requests: Iterable[Request], concurrency: int, max_batch: int, gather: float) -> Iterator[Tick]:
    """Runs requests through the batch.

    Args:
        requests: In order of arrival.
        concurrency: Requests in flight at most.
        max_batch: Rows of the batch at most; a call of more samples runs alone.
        gather: What could join waits until it is so many for every row that decodes.
    """
    waiting, live = deque(requests), list[Under]()
    queue, flights = deque[Flight](), list[Flight]()
    at = 0

    def worth_while(tasks: int = 0) -> bool:
        return tasks + sum(flight.rows for flight in queue) >= gather * sum(flight.rows for flight in flights)

    while waiting or live:
        free = min(concurrency - len(live), len(waiting))
        admitted = [Under(waiting.popleft()) for _ in range(free if worth_while(free) else 0)]
        live += admitted
        for one in admitted:
            queue.extend(Flight(one, place) for place in one.ready())
        joined, places = list[Flight](), max_batch - sum(flight.rows for flight in flights)
        if worth_while():
            while queue and (queue[0].rows <= places or not (flights or joined)):
                joined.append(queue.popleft())
                joined[-1].joined, places = at, places - joined[-1].rows
            flights += joined
        ended = [flight for flight in flights if flight.last <= at]
        flights = [flight for flight in flights if flight.last > at]
        for flight in ended:
            flight.one.ended.add(flight.place)
            queue.extend(Flight(flight.one, place) for place in flight.one.ready())
        yield Tick(at, admitted, joined, ended)
        live = [one for one in live if not one.done]
        at = at + 1 if ended or not flights else min(flight.last for flight in flights)


class Slots:
    """Slots of the dense cache of the batch, where every row is as long as the longest; room to grow is left out.

    Attributes:
        most: Slots held at once at most, those of prompts that are about to join included.

    Args:
        prompts: Tokens of every operation's segment by name.
    """

    def __init__(self, prompts: Mapping[str, int]) -> None:
        self.most, self._prompts = 0, prompts
        self._flights: list[Flight] = []
        self._rows = self._length = self._since = 0

    def see(self, tick: Tick) -> None:
        """Takes the next step into account."""
        if tick.joined:
            before = self._rows * (self._length + tick.at - self._since)
            self.most = max(self.most, before + len(tick.joined) * max(map(self._context, tick.joined)))
            self._flights += tick.joined
            self._rows, self._since = sum(flight.rows for flight in self._flights), tick.at
            self._length = max(self._context(flight) + tick.at - flight.joined for flight in self._flights)
        written = tick.at - self._since + 1
        self.most = max(self.most, self._rows * (self._length + written))
        self._flights = [flight for flight in self._flights if flight not in tick.ended]
        left = sum(flight.rows for flight in self._flights)
        if 2 * left <= self._rows:  # rows that have ended leave when they are half of the batch, or when others join
            self._rows = left

    def _context(self, flight: Flight) -> int:
        """Tokens before a call's output."""
        return flight.call.before + self._prompts[flight.call.op]
