"""The line to a server: requests run in a thread of their own, so that tools and the loop of a run wait for none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from graphflow.backbone.server import ChatServer

_T = TypeVar("_T")


class Line:
    """Open from `__init__` to `close`; a request whose future is cancelled is given up at once.

    Args:
        server: Whom the requests are for.
    """

    def __init__(self, server: ChatServer) -> None:
        self._server, self._loop = server, asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="requests", daemon=True)
        self._thread.start()

    def send(self, request: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Starts a request."""
        return asyncio.run_coroutine_threadsafe(request, self._loop)

    def close(self) -> None:
        """Gives up what is under way, and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _give_up(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._server.close()
