"""Tracking: the same numbers, tables and plots go to wandb, offline by default, or nowhere.

Nothing here needs a network: offline runs lie under the runs folder and `wandb sync` uploads them later.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from graphflow.engine.episode import Episode


class TrackingMode(Enum):
    """Where tracked numbers go."""

    OFFLINE = "offline"
    ONLINE = "online"
    NONE = "none"


@dataclass
class TrackingConfig:
    """Settings of tracking.

    Attributes:
        mode: offline (files, to be synced later), online (needs an account), or none.
        project: wandb project.
        group: wandb group; runs of one experiment share it. Empty for a single run.
    """

    mode: TrackingMode = TrackingMode.OFFLINE
    project: str = "graphflow"
    group: str = ""


class Tracker(Protocol):
    """What a run reports while it goes."""

    def episode(self, episode: Episode) -> None:
        """One scored episode."""

    def summary(self, row: Mapping[str, Any]) -> None:
        """The table row."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A whole table."""

    def figures(self, files: Sequence[Path]) -> None:
        """Pictures (PNG)."""


class NoTracker:
    """Reports nothing."""

    def episode(self, episode: Episode) -> None:
        """Do nothing."""

    def summary(self, row: Mapping[str, Any]) -> None:
        """Do nothing."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def figures(self, files: Sequence[Path]) -> None:
        """Do nothing."""


class WandbTracker:
    """Reports to one wandb run."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def episode(self, episode: Episode) -> None:
        """One step of the run: score, latency, calls, tokens and bytes of the episode."""
        self.run.log(
            {
                "episode/score": episode.score or 0.0,
                "episode/latency_s": episode.latency_s,
                "episode/llm_calls": episode.llm_calls,
                "episode/prefill_tokens": episode.total("prefill_tokens"),
                "episode/reused_tokens": episode.total("reused_tokens"),
                "episode/output_tokens": episode.total("output_tokens"),
                "episode/op_bytes": episode.op_bytes,
                "episode/dynamic_bytes": episode.dynamic_bytes,
            }
        )

    def summary(self, row: Mapping[str, Any]) -> None:
        """Summary values of the run."""
        self.run.summary.update(dict(row))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table of wandb."""
        import wandb

        columns: list[Any] = list(rows[0]) if rows else []
        self.run.log({name: wandb.Table(columns=columns, data=[[row[column] for column in columns] for row in rows])})

    def figures(self, files: Sequence[Path]) -> None:
        """Pictures as wandb images, named by their files."""
        import wandb

        self.run.log({f"figures/{file.stem}": wandb.Image(str(file)) for file in files})


@contextmanager
def track(config: TrackingConfig, folder: Path, name: str, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """A tracker for one run, closed at the end.

    Args:
        config: Where to report.
        folder: Folder that wandb writes its files under.
        name: Name of the run.
        settings: Resolved config, stored with the run.
    """
    if config.mode is TrackingMode.NONE:
        yield NoTracker()
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    options = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_save_requirements=False)
    mode = "online" if config.mode is TrackingMode.ONLINE else "offline"
    run = wandb.init(
        project=config.project,
        group=config.group or None,
        name=name,
        mode=mode,
        dir=str(folder),
        config=dict(settings),
        settings=options,
        reinit="finish_previous",
    )
    failed = True
    try:
        yield WandbTracker(run)
        failed = False
    finally:
        run.finish(exit_code=int(failed))
