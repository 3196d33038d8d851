"""Compares mathematical expressions in a process that can be killed, so that every comparison ends in time.

The process (`graphflow/benchmarks/math_worker.py`) runs in bubblewrap where that works: no network, no files but the
interpreter and its libraries. AFlow's comparison evaluates the answer as Python, so it needs that isolation, as
programs do, though only expressions are let through; math-verify only parses, and runs without it too. A verdict is not
lost to a worker that somebody killed: the comparison is made once more, in a fresh one.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from graphflow.engine.sandbox import SandboxError
from graphflow.engine.sandbox_container import bubblewrap_problem, container, interpreter
from graphflow.engine.seccomp import build_filter

WORKER = Path(__file__).with_name("math_worker.py")
LIBRARIES = ("sympy", "mpmath", "math_verify", "latex2sympy2_extended", "antlr4")
CPU_S, WALL_S = 3, 30.0
START_S = 300.0
SPARE_S = 10.0


class MathJudge:
    """One worker process and the pipe to it. Threads take turns; a forked process starts its own worker.

    Args:
        cpu_s: CPU seconds that one comparison may take, whole ones; after them the answer counts as not equal.
        wall_s: Seconds after which a verdict is there in any case; many times ``cpu_s``, for a busy machine.
        extra: Folders to import from before the installed libraries, for example one with another antlr runtime.

    Attributes:
        comparisons: Comparisons made.
        timeouts: Those among them without a verdict, which count as not equal: stopped at a limit, or lost twice.
        retries: Those that were made twice, because the process ended or hung before it had answered.
    """

    def __init__(self, cpu_s: int = CPU_S, wall_s: float = WALL_S, extra: tuple[str, ...] = ()) -> None:
        self.cpu_s, self.wall_s, self.extra = cpu_s, wall_s, extra
        self.comparisons = self.timeouts = self.retries = 0
        bwrap = shutil.which("bwrap") or ""
        self.problem = bubblewrap_problem(bwrap)
        self._bwrap = "" if self.problem else bwrap
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._received = b""

    def equal(self, kind: str, given: str, wanted: str) -> bool:
        """Whether the two texts are equal.

        Args:
            kind: ``strict`` (math-verify) or ``aflow``.
            given: The answer, without its box.
            wanted: The reference.

        Raises:
            SandboxError: For ``aflow`` where nothing isolates the process, or if the process does not start.
        """
        if kind == "aflow" and self.problem:
            raise SandboxError(
                f"benchmark.scoring=aflow evaluates MATH answers as Python, which cannot be isolated: {self.problem}. "
                "Either install bubblewrap (the program bwrap), or set benchmark.scoring=strict"
            )
        with self._lock:
            self.comparisons += 1
            limits = {"cpu_s": self.cpu_s, "wall_s": self.wall_s}
            request = {"id": self.comparisons, "kind": kind, "given": given, "wanted": wanted, **limits}
            reply = self._ask(request)
            if reply == "lost":
                self.retries += 1
                reply = self._ask(request)
            self.timeouts += reply in ("limit", "lost")
        return reply == "yes"

    def close(self) -> None:
        """Ends the worker process."""
        process, self._process, self._received = self._process, None, b""
        if process is None or self._owner != os.getpid():
            return
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def _ask(self, request: dict) -> str:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._read(self.wall_s + SPARE_S)
        except OSError:
            line = b""
        row = json.loads(line) if line else {}
        if row.get("id") != request["id"] or row["reply"] == "lost":  # the process ended or hangs: take a fresh one
            self.close()
            return "lost"
        return row["reply"]

    def _start(self) -> None:
        self.close()
        folders = [*self.extra, *library_folders()]
        command = [interpreter(), "-P", "-s", "-S", "-B"]
        if self._bwrap:
            binds = [part for folder in (*folders, str(WORKER)) for part in ("--ro-bind", folder, folder)]
            command = [*container(self._bwrap), *binds, "--remount-ro", "/", "--", *command]
        self._process = subprocess.Popen(
            [*command, str(WORKER), build_filter(1).hex() or "-", *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
        )
        self._owner = os.getpid()
        if not self._read(START_S):
            try:
                found = f"ended with code {self._process.wait(SPARE_S)}"
            except subprocess.TimeoutExpired:
                found = f"was not ready within {START_S:g} s"
            self.close()
            raise SandboxError(
                f"the process that compares expressions {found}; it needs {', '.join(LIBRARIES[:3])} and, on a busy "
                "machine, patience: the episodes are kept, the same command goes on with scoring"
            )

    def _read(self, seconds: float) -> bytes:
        """The next line of the worker; empty if none comes in time or the worker ended."""
        assert self._process is not None and self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                return b""
            data = os.read(descriptor, 1 << 16)
            if not data:
                return b""
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


def library_folders() -> list[str]:
    """Folders that hold the libraries of the worker."""
    found = (importlib.util.find_spec(name) for name in LIBRARIES)
    return list(dict.fromkeys(str(Path(spec.origin).parent.parent) for spec in found if spec and spec.origin))


@functools.cache
def judge() -> MathJudge:
    """The worker that all scoring of this process shares; it ends with the process."""
    shared = MathJudge()
    atexit.register(shared.close)
    return shared
