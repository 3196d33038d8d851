"""Continuous batching of transformers, the machinery of `generate_batch`, with its prefix sharing.

`generate_batch` itself takes all prompts at once, and would make every step of a workflow wait for all others. Here its
manager is held open, and steps are added as they become ready. Its cache is sized for the work: left to itself it takes
60 % of the machine's memory, and masks to go with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from transformers import ContinuousBatchingConfig

from graphflow.engine.batch import Flight
from graphflow.engine.request import Request
from graphflow.experiment.serving.rival import RequestServer, greedy
from graphflow.kv.accounting import tensor_bytes

PAGE = 16
"""Tokens of a page: what is shared is whole pages."""
ROOM = 1.25
"""Pages above those of the longest contexts without what tools say."""
WAIT = 0.05  # seconds between two looks at whether the manager still runs


class ContinuousError(RuntimeError):
    """Continuous batching has failed."""


class Continuous(RequestServer):
    """A manager of continuous batching that requests are given to as they come; arguments as for `RequestServer`."""

    _manager: Any = None

    def start(self, concurrency: int, longest: int) -> None:
        """Opens a manager with pages for so many contexts of so many tokens."""
        super().start(concurrency, longest)
        self._numbers, self._by_id = count(), dict[str, Flight]()
        model: Any = self.backbone.model
        pages = concurrency * -(-int(longest * ROOM) // PAGE)
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages,
            max_batch_tokens=max(concurrency, longest, 512),
            max_requests_per_batch=concurrency,
            auto_switch_to_flash=self.backbone.device.type != "cpu",
        )
        self._manager = model.init_continuous_batching(greedy(self.backbone.stops, 1), config)
        self._manager.warmup()
        self.peak_bytes = max(self.peak_bytes, tensor_bytes(self._manager.batch_processor.cache.cache_tensor))
        self._manager.start()

    def stop(self) -> None:
        """Ends the manager and its thread."""
        if self._manager is not None:
            self._manager.stop(hard_stop=True)
            self._manager.destroy()
            self._manager = None
        super().stop()
        self._open = []

    def join(self, requests: Sequence[Request], keep_logits: bool | Sequence[bool] = False) -> list[Flight]:
        """Hands requests to the manager."""
        flights = super().join(requests, keep_logits)
        for flight in flights:
            name, request = str(next(self._numbers)), flight.request
            self._by_id[name] = flight
            self._manager.add_request(
                list(request.fresh[0]),
                request_id=name,
                max_new_tokens=request.max_tokens,
                eos_token_id=list(self.backbone.stops),
                record_timestamps=True,
            )
        return flights

    def step(self) -> list[Flight]:
        """Gives what has been answered; waits for one."""
        found = [self._next(wait=True)]
        while (flight := self._next(wait=False)) is not None:
            found.append(flight)
        return [flight for flight in found if flight is not None and not flight.cancelled]

    def _next(self, wait: bool) -> Flight | None:
        """The next answer.

        Raises:
            ContinuousError: The manager has stopped, or could not answer.
        """
        result = self._manager.get_result(timeout=WAIT if wait else 0)
        while result is None and wait:
            if not self._manager.is_running():
                raise ContinuousError("the manager of continuous batching has stopped")
            result = self._manager.get_result(timeout=WAIT)
        if result is None:
            return None
        if result.error is not None:
            raise ContinuousError(f"continuous batching: {result.error}")
        flight = self._by_id.pop(result.request_id)
        first = flight.started + result.timestamps[0] - result.created_time
        return self.answered(flight, result.generated_tokens, first)

    def cancel(self, flight: Flight) -> None:
        """Nobody waits for it any more."""
        super().cancel(flight)
        for name, own in self._by_id.items():
            if own is flight:
                self._manager.cancel_request(name)
