"""The run directory: what was asked, on what machine, every episode, and a mark that it is finished (our choice).

A run directory is named by the hash of what determines the run. ``record.json`` is written before anything is computed,
``episodes.jsonl`` grows by one flushed line an episode, ``done.json`` comes last, by temp file and rename. A killed run
resumes behind its last whole line; two processes on one run exclude each other.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from graphflow.engine.episode import Episode
from graphflow.paths import ROOT

MODEL_FILES = (
    *("*.safetensors", "*.bin", "config.json", "generation_config.json", "adapter_config.json"),
    *("tokenizer*", "*.model", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.jinja"),
)
PACKAGES = ("torch", "transformers", "torch-geometric", "accelerate", "hydra-core", "datasets", "numpy", "pandas")


class RunLockedError(RuntimeError):
    """Another process is working on this run."""


def digest(value: Any) -> str:
    """First 12 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def file_digest(*paths: Path) -> str:
    """First 12 hex digits of the SHA-256 over all files of the given files and folders, names included."""
    state = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            state.update(str(file.relative_to(path if path.is_dir() else path.parent)).encode())
            state.update(file.read_bytes())
    return state.hexdigest()[:12]


def weights_digest(folder: Path) -> str:
    """As `file_digest`, of what a model in Hugging Face format computes with: not of its card and its records.

    A folder in another format counts as a whole.
    """
    found = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    return file_digest(*(found or [folder]))


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all: temp file, then rename."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")
    partial.replace(path)


class RunDir:
    """One run's folder.

    Attributes:
        path: The folder.
        run_id: Its name.
    """

    def __init__(self, runs_dir: str | Path, run_id: str) -> None:
        self.path = Path(runs_dir) / run_id
        self.run_id = run_id

    @property
    def done(self) -> dict[str, Any] | None:
        """What `finish` wrote; None while the run is not finished."""
        file = self.path / "done.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    @property
    def record(self) -> dict[str, Any]:
        """What `begin` wrote."""
        return json.loads((self.path / "record.json").read_text(encoding="utf-8"))

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[RunDir]:
        """Hold the run for this process.

        Args:
            wait: Wait for a process that holds it instead of giving up.

        Raises:
            RunLockedError: Another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(self.path / "lock"))
        try:
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise RunLockedError(
                f"run {self.run_id} is being worked on by another process; wait for it, or stop it, then start again "
                f"({self.path})"
            ) from None
        try:
            yield self
        finally:
            lock.release()

    def begin(self, record: Mapping[str, Any]) -> list[Episode]:
        """Write the record before compute, and give back the episodes that an earlier, killed run left.

        A last line that was torn by a kill is cut off. A record that is there already stays: the first one counts.
        """
        if not (self.path / "record.json").exists():
            write_json(self.path / "record.json", record)
        file = self.path / "episodes.jsonl"
        if not file.exists():
            return []
        whole, _, torn = file.read_bytes().rpartition(b"\n")
        if torn:
            with file.open("rb+") as handle:
                handle.truncate(len(whole) + 1 if whole else 0)
        return self.episodes()

    def append(self, episode: Episode, shared_bytes: int, peak_bytes: int) -> None:
        """Append one episode, with what the store held when it ended, and flush it.

        Args:
            episode: The episode.
            shared_bytes: Base and residual bytes of the store now.
            peak_bytes: Peak of resident KV so far in this process.
        """
        line = {"episode": episode.to_dict(), "shared_bytes": shared_bytes, "peak_bytes": peak_bytes}
        with (self.path / "episodes.jsonl").open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line so far, as `append` wrote it."""
        file = self.path / "episodes.jsonl"
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0] if file.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def episodes(self) -> list[Episode]:
        """Every whole episode so far, with its score once the run is finished."""
        episodes = [Episode.from_dict(line["episode"]) for line in self.lines()]
        scores = (self.done or {}).get("scores", {})
        for episode in episodes:
            episode.score = scores.get(episode.task_id, episode.score)
        return episodes

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the done-marker, last."""
        write_json(self.path / "done.json", result)


def provenance() -> dict[str, Any]:
    """Commit, dirty flag, package versions and machine: the part of a record that the config does not say.

    Tables and figures that were written before, by the same command or another, make no code dirty.
    """
    return {
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "machine": machine(),
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """Short commit hash of the checkout; ``unknown`` outside one."""
    return _git("rev-parse", "--short=12", "HEAD") or "unknown"


@lru_cache(maxsize=1)
def machine() -> dict[str, Any]:
    """CPU model, usable cores, memory (bytes), operating system and GPU, as far as they can be had."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {"cpu": _cpu_model(), "cores": _cores(), "memory": memory, "system": platform.platform(), "gpu": gpu}


def machine_name() -> str:
    """The machine in a few words, for a table."""
    facts = machine()
    return f"{facts['cores']} x {facts['cpu']}" + (f", {facts['gpu']}" if facts["gpu"] else "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return run.stdout.strip() if run.returncode == 0 else ""
