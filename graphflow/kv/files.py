"""The two files of a saved store, replaced as one: tensors named by their content, and a manifest that names them.

A save writes the tensors under a name that is their SHA-256, then the manifest; both by temporary file and rename. The
manifest is the switch: until it is renamed, readers get the old pair, and a save that is killed leaves that pair whole.
A reader needs no lock: if the tensors it was sent to are gone, a newer manifest is there. Savers on one file system
take turns by a lock file. Elsewhere (object stores) there is no lock between machines: let one process save. If two do
at once, one of the two stores remains, never a mixture, and an unused tensor file may be left. All of this is our
choice.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

MANIFEST = "manifest.json"
TENSORS = re.compile(r"tensors-[0-9a-f]{64}\.safetensors")
_TEMPORARY = re.compile(r"(manifest\.json|tensors-[0-9a-f]{64}\.safetensors)\.[0-9a-f]{32}\.tmp")
_TRIES = 100


class StoreFormatError(ValueError):
    """What is at a location is not a whole operation store; the message says what is wrong with it."""


class StoreLockedError(TimeoutError):
    """Another process holds the lock of a store for longer than one was ready to wait."""


def content_name(tensors: bytes) -> str:
    """File name of serialised tensors: their SHA-256."""
    return f"tensors-{hashlib.sha256(tensors).hexdigest()}.safetensors"


def is_store(location: str | os.PathLike[str]) -> bool:
    """True if there is something that may be a saved store."""
    filesystem, root = url_to_fs(os.fspath(location))
    return bool(filesystem.exists(f"{str(root).rstrip('/')}/{MANIFEST}"))


class Folder:
    """Where a store is saved.

    Args:
        location: Folder, as a plain path or as any fsspec URL (``file://``, ``memory://``, ``s3://``...).

    Raises:
        ValueError: A URL whose protocol fsspec does not know.
        ImportError: A protocol whose package is not installed.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        self.location = os.fspath(location)
        self._fs, root = url_to_fs(self.location)
        self._root = str(root).rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def publish(self, tensors: bytes, manifest: bytes, points_to: Callable[[bytes], str], wait_s: float) -> None:
        """Replace the pair of files.

        Args:
            tensors: Serialised tensors.
            manifest: The manifest, which names `content_name` of the tensors.
            points_to: Reads the name of the tensor file out of a manifest.
            wait_s: Seconds to wait for another saver.

        Raises:
            StoreLockedError: Another saver is still at it.
            OSError: The location cannot be written.
        """
        self._fs.makedirs(self._root, exist_ok=True)
        with self._lock(wait_s):
            name, old = content_name(tensors), None
            with suppress(FileNotFoundError, StoreFormatError):
                old = points_to(self._read(MANIFEST))
            self._write(name, tensors)
            self._write(MANIFEST, manifest)
            self._tidy(name, old)

    def prepare(self) -> None:
        """Make the folder and see whether files can be written there.

        Raises:
            OSError: They cannot.
        """
        self._fs.makedirs(self._root, exist_ok=True)
        probe = f".{uuid.uuid4().hex}.tmp"
        self._write(probe, b"")
        self._fs.rm_file(f"{self._root}/{probe}")

    def read(self, points_to: Callable[[bytes], str]) -> tuple[bytes, bytes]:
        """A manifest and the tensors that it names, of one and the same save.

        Raises:
            StoreFormatError: No manifest, or the tensor file that it names is missing.
        """
        seen = None
        for _ in range(_TRIES):
            try:
                manifest = self._read(MANIFEST)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StoreFormatError(f"no store is there: it has no {MANIFEST}") from error
            name = points_to(manifest)
            try:
                return manifest, self._read(name)
            except FileNotFoundError:
                if manifest == seen:
                    break
                seen = manifest  # a saver may just have replaced the pair: only a manifest that stays is at fault
        raise StoreFormatError(f"{MANIFEST} names {name}, which is missing")

    @contextmanager
    def _lock(self, wait_s: float) -> Iterator[None]:
        """One saver at a time: on a file system by a lock file, elsewhere within this process."""
        if not self._local:
            with _process_lock(self._fs.unstrip_protocol(self._root)):
                yield
            return
        try:
            with FileLock(os.path.join(self._root, ".lock"), timeout=wait_s):
                yield
        except Timeout as error:
            raise StoreLockedError(
                f"operation store at {self.location}: another process has been saving for more than {wait_s:g} s"
            ) from error

    def _read(self, name: str) -> bytes:
        return self._fs.cat_file(f"{self._root}/{name}")

    def _write(self, name: str, data: bytes) -> None:
        """Write a file by temporary file and rename, so that it is there whole or not at all."""
        target = f"{self._root}/{name}"
        temporary = f"{target}.{uuid.uuid4().hex}.tmp"
        try:
            if not self._local:
                self._fs.pipe_file(temporary, data)
                self._fs.mv(temporary, target)
                return
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                self._fs.rm_file(temporary)
            raise

    def _tidy(self, current: str, old: str | None) -> None:
        """Remove tensors that no manifest names any more, and what killed saves left.

        Called under the lock. Without a lock between machines only the tensors that were just replaced are removed.
        """
        if self._local:
            names = [entry.name for entry in Path(self._root).iterdir()]
            gone = [name for name in names if TENSORS.fullmatch(name) or _TEMPORARY.fullmatch(name)]
        else:
            gone = [old] if old is not None else []
        for name in set(gone) - {current}:
            with suppress(FileNotFoundError):
                self._fs.rm_file(f"{self._root}/{name}")


@functools.cache
def _process_lock(url: str) -> threading.Lock:
    return threading.Lock()
