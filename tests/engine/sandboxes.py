"""What the sandbox's tests share: limits, the skip where nothing can be isolated, and the state of the host."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from graphflow.engine.sandbox import bubblewrap_problem

PROBLEM = bubblewrap_problem(shutil.which("bwrap") or "")
isolated = pytest.mark.skipif(bool(PROBLEM), reason=f"programs cannot be isolated here: {PROBLEM}")
LIMITS: dict[str, Any] = {"cpu_s": 2.0, "wall_s": 20.0, "memory_mb": 256, "file_mb": 1, "output_kb": 4, "workers": 2}
LIMIT_NAMES = [name for name in dir(resource) if name.startswith("RLIMIT_")]


def descendants() -> set[int]:
    """Processes below this one, whatever session or namespace they are in."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found, size = {os.getpid()}, 0
    while len(found) > size:
        size = len(found)
        found |= {pid for pid, parent in parents.items() if parent in found}
    return found - {os.getpid()}


def host_state(folder: Path) -> dict[str, Any]:
    """All that a program must leave as it was."""
    mask = os.umask(0o022)
    os.umask(mask)
    return {
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMIT_NAMES},
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "mask": mask,
        "cwd": (os.getcwd(), sorted(os.listdir("."))),
        "temporary files": sorted(str(path) for path in folder.rglob("*")),
        "shared memory": sorted(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else [],
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": descendants(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs; a process that was there before and has ended is no harm."""
    gone = before["processes"] - after["processes"]
    before = before | {"processes": before["processes"] - gone}
    return {name: (before[name], value) for name, value in after.items() if value != before[name]}


@pytest.fixture
def unharmed(tmp_path, monkeypatch):
    """Fails the test if the host, this process or its files are not as before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gc.collect()  # what earlier tests left open goes now, and not in the middle of this one
    before = host_state(tmp_path)
    yield
    give_up = time.monotonic() + 20
    while (harm := changes(before, host_state(tmp_path))) and time.monotonic() < give_up:
        time.sleep(0.05)  # what a process that is just ending, or another one on this machine, has for a moment
    assert not harm, harm
