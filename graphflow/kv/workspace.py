"""Decoded shared segments: a bounded LRU that counts what is really alive (our choice)."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable

from graphflow.kv.accounting import tensor_bytes
from graphflow.kv.paths import Key
from graphflow.kv.segment import Segment


class Workspace:
    """Shared segments by (operation, path), so that the same object is handed out while anyone uses it.

    The bounds hold for what the workspace itself keeps alive. A segment that was evicted but is still in a live context
    is handed out again and counted until the last context lets it go.

    Args:
        items: Segments kept at most.
        nbytes: Bytes kept at most; the latest segment is kept whatever its size.
    """

    def __init__(self, items: int, nbytes: int) -> None:
        self._items = items
        self._nbytes = nbytes
        self._kept: OrderedDict[Key, Segment] = OrderedDict()
        self._kept_bytes = 0
        self._by_key: weakref.WeakValueDictionary[Key, Segment] = weakref.WeakValueDictionary()
        self._alive: weakref.WeakSet[Segment] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of every segment that is alive, evicted or not."""
        return sum(tensor_bytes(segment.kv) for segment in self._alive)

    def get(self, key: Key, decode: Callable[[], Segment]) -> Segment:
        """The segment of a key, decoded if nobody holds it."""
        segment = self._kept.get(key)
        if segment is not None:
            self._kept.move_to_end(key)
            return segment
        segment = self._by_key.get(key)
        if segment is None:
            segment = decode()
            self._by_key[key] = segment
            self._alive.add(segment)
        self._kept[key] = segment
        self._kept_bytes += tensor_bytes(segment.kv)
        while len(self._kept) > 1 and (len(self._kept) > self._items or self._kept_bytes > self._nbytes):
            self._evict(next(iter(self._kept)))
        return segment

    def drop(self, key: Key) -> None:
        """Forget a key: what is decoded for it next is a new segment. Contexts that hold the old one keep it."""
        if key in self._kept:
            self._evict(key)
        self._by_key.pop(key, None)

    def _evict(self, key: Key) -> None:
        self._kept_bytes -= tensor_bytes(self._kept.pop(key).kv)
