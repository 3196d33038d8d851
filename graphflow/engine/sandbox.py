"""Runs Python programs that a model wrote: untrusted, so outside this process and with nothing to break.

A batch of programs runs in one bubblewrap container: no network, a root that holds only the interpreter and the system
libraries, private empty /tmp, its own process, IPC and user namespaces, no environment, no capabilities. Inside it the
supervisor (`graphflow/engine/sandbox_supervisor.py`) forks one child a program, with resource limits, a system-call
filter (no fork, exec, socket, kill, ptrace) and a wall clock, and reports each verdict with a token that no child
ever sees. A program that brings its batch down costs it nothing but time: what is unfinished runs again, alone.

What this cannot give: a program and the statements that test it share one interpreter, as in the official HumanEval
scorer, so a value whose ``__eq__`` always agrees passes any ``==`` test. Programs of one batch can also see each
other's files in /tmp while they run. The design is ours; the paper does not say how code was run.
"""

from __future__ import annotations

import functools
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from graphflow.engine.seccomp import build_filter

SUPERVISOR = Path(__file__).with_name("sandbox_supervisor.py")
SYSTEM_FOLDERS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/nix/store")
BATCH = 256
START_S = 20.0
RANGES: dict[str, tuple[float, float]] = {
    "cpu_s": (0.1, 600),
    "wall_s": (0.1, 3600),
    "memory_mb": (64, 65536),
    "processes": (1, 64),
    "file_mb": (0, 1024),
    "output_kb": (1, 16384),
    "workers": (0, 256),
}


class SandboxError(RuntimeError):
    """Programs cannot be run as configured; the message says why and what to do."""


class Status(Enum):
    """How a program ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    KILLED = "killed"


@dataclass
class SandboxConfig:
    """Limits of one program, and whether it may run without isolation.

    Attributes:
        cpu_s: CPU seconds, rounded up to whole ones.
        wall_s: Wall-clock seconds.
        memory_mb: Address space, MiB.
        processes: Processes, its own included; at 1 the system-call filter forbids fork and exec altogether.
        file_mb: Size of one file it writes, MiB.
        output_kb: Characters of output, and of the value, that are kept, KiB; the rest is cut.
        workers: Programs that run at once; 0 means as many as this process may use cores.
        syscall_filter: Forbid fork, exec, sockets, signals and ptrace (Linux on x86-64 and aarch64).
        allow_unisolated: Run without bubblewrap where it does not work: limits and filter only, files are in reach.

    Raises:
        ValueError: If a limit is outside its range.
    """

    cpu_s: float = 5.0
    wall_s: float = 10.0
    memory_mb: int = 512
    processes: int = 1
    file_mb: int = 8
    output_kb: int = 64
    workers: int = 0
    syscall_filter: bool = True
    allow_unisolated: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"sandbox.{name} must lie in [{low:g}, {high:g}], got {value}")


@dataclass(frozen=True)
class Job:
    """A program, and what to evaluate once it ran.

    Attributes:
        program: Python source.
        call: An expression, or statements of which the last may be one; evaluated in the program's namespace. The
            program cannot see it before it has run to its end.
    """

    program: str
    call: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a program.

    Attributes:
        status: How it ended.
        value: ``repr`` of the call's value (``"None"`` without one); for an error the exception as
            ``"NameError: ..."``; otherwise the reason in words.
        output: What it printed, cut at the limit.
        seconds: Wall-clock seconds it took.
    """

    status: Status
    value: str
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        """True if program and call ran to their end."""
        return self.status is Status.OK


class Sandbox:
    """Runs programs under the limits of its config.

    Attributes:
        isolated: True if programs run in bubblewrap; goes into the run record.

    Raises:
        SandboxError: If bubblewrap is absent or refused, and ``allow_unisolated`` is false.
    """

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self.config = config or SandboxConfig()
        self.isolated = False
        self._bwrap = shutil.which("bwrap") or ""
        problem = bubblewrap_problem(self._bwrap)
        if not problem:
            self.isolated = True
        elif not self.config.allow_unisolated:
            raise SandboxError(
                f"model-written programs cannot be isolated: {problem}. Either install bubblewrap (the program bwrap), "
                "or set engine.sandbox.allow_unisolated=true to run them with resource limits only"
            )

    def run(self, program: str, call: str = "") -> Verdict:
        """Runs one program; see `Job` and `Verdict`."""
        return self.run_many([Job(program, call)])[0]

    def run_many(self, jobs: Sequence[Job]) -> list[Verdict]:
        """Runs programs, several at once, and returns their verdicts in order.

        Raises:
            SandboxError: If the supervisor does not even start.
        """
        verdicts: dict[int, Verdict] = {}
        for start in range(0, len(jobs), BATCH):
            ids = range(start, min(start + BATCH, len(jobs)))
            verdicts.update(self._run_batch(jobs, ids))
            for left in (i for i in ids if i not in verdicts):
                verdicts.update(self._run_batch(jobs, [left]))
                verdicts.setdefault(left, Verdict(Status.KILLED, "it took its supervisor down", "", 0.0))
        return [verdicts[i] for i in range(len(jobs))]

    def _run_batch(self, jobs: Sequence[Job], ids: Sequence[int]) -> dict[int, Verdict]:
        """Verdicts of one container; a program that may have been another one's victim is left out."""
        config = self.config
        workers = min(config.workers or usable_cores(), len(ids))
        token = secrets.token_hex(16)
        settings = {
            "token": token,
            "workers": workers,
            "cpu_s": math.ceil(config.cpu_s),
            "wall_s": config.wall_s,
            "memory": config.memory_mb << 20,
            "file": config.file_mb << 20,
            "output": config.output_kb << 10,
            "processes": config.processes,
            "filter": build_filter(config.processes).hex() if config.syscall_filter else "",
            "isolated": self.isolated,
        }
        lines = [json.dumps(settings)]
        lines += [json.dumps({"id": i, "program": jobs[i].program, "call": jobs[i].call}) for i in ids]
        patience = START_S + math.ceil(len(ids) / workers) * (config.wall_s + 1.0)
        replies = self._converse("\n".join(lines).encode() + b"\n", token, patience)
        alone = len(ids) == 1
        return {
            row["id"]: Verdict(Status(row["status"]), row["value"], row["output"], row["seconds"])
            for row in replies
            if alone or not row["suspect"]
        }

    def _converse(self, request: bytes, token: str, patience: float) -> list[dict]:
        """Sends a batch to a fresh supervisor and reads its report lines."""
        with tempfile.TemporaryDirectory(prefix="graphflow-") as folder:
            process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={"PYTHONHASHSEED": "0"}, cwd=folder, start_new_session=True,
            )  # fmt: skip
            try:
                out, err = process.communicate(request, timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, err = process.communicate()
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        prefix = f"{token} ".encode()
        lines = [line[len(prefix) :] for line in out.split(b"\n") if line.startswith(prefix)]
        if not lines:
            raise SandboxError(f"the sandbox did not start: {err.decode(errors='replace').strip() or 'no message'}")
        return [row for row in map(json.loads, lines) if "id" in row]

    def _command(self) -> list[str]:
        supervisor = [interpreter(), "-P", "-s", "-S", "-B"]
        if not self.isolated:
            return [*supervisor, str(SUPERVISOR)]
        hide = ["--ro-bind", str(SUPERVISOR), "/supervisor.py"]
        return [*container(self._bwrap), *hide, "--remount-ro", "/", "--", *supervisor, "/supervisor.py"]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interpreter() -> str:
    """The real Python program behind a virtual environment's link."""
    return os.path.realpath(sys.executable)


def container(bwrap: str) -> list[str]:
    """The bubblewrap command line up to the binding of further files."""
    command = [
        bwrap, "--unshare-all", "--unshare-user", "--cap-drop", "ALL", "--new-session", "--die-with-parent",
        "--as-pid-1", "--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--hostname", "sandbox",
        "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp",
    ]  # fmt: skip
    for folder in dict.fromkeys((*SYSTEM_FOLDERS, sys.base_prefix, sys.base_exec_prefix)):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.exists(folder):
            command += ["--ro-bind", folder, folder]
    return command


@functools.cache
def bubblewrap_problem(bwrap: str) -> str:
    """Why bubblewrap cannot run the interpreter here; empty if it can."""
    if not bwrap:
        return "bubblewrap is not installed"
    command = [*container(bwrap), "--", interpreter(), "-I", "-S", "-c", "pass"]
    try:
        probe = subprocess.run(command, capture_output=True, timeout=START_S)
    except subprocess.TimeoutExpired:
        return f"bubblewrap did not start within {START_S:g} s"
    if probe.returncode:
        return f"bubblewrap failed ({probe.stderr.decode(errors='replace').strip()})"
    return ""
