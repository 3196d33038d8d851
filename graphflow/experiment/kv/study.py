"""What every experiment has in hand: its cells, where results go, and the rows' common columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.config import Config
from graphflow.experiment.plan import Cell, cells
from graphflow.experiment.record import commit, machine_name, provenance
from graphflow.experiment.run import scope_of
from graphflow.experiment.serve import House
from graphflow.experiment.tables import state_label

SHOWN = 24
"""Rows of a table that the terminal shows at most."""
PLAIN, REUSE = "plain", "reuse"
"""Kinds of a backbone: as it is found, and adapted to operation state that is shared."""


@dataclass
class Study:
    """One experiment, about to run.

    Attributes:
        config: Its configuration; ``config.experiment`` says what is run.
        words: Overrides of the command line that hold for every cell.
        command: The command, for tables.
        console: Where progress and tables go.
        house: What cells share.
        area: Folder of its tables in the results folder.
    """

    config: Config
    words: Sequence[str]
    command: str
    console: Console
    house: House = field(default_factory=House)
    area: str = "kv"

    def within(self, area: str) -> Study:
        """The same experiment, with its tables in another folder."""
        return replace(self, area=area)

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.config.experiment.name

    @property
    def folder(self) -> Path:
        """Where tables go; figures go into a folder beside them."""
        return Path(self.config.machine.results_dir) / self.area

    @property
    def figures(self) -> Path:
        """Where figures go."""
        return self.folder / "figures"

    @property
    def runs(self) -> Path:
        """Where runs are kept."""
        return Path(self.config.machine.runs_dir)

    def cells(self) -> Iterator[tuple[Cell, Config]]:
        """Every cell with its configuration."""
        for cell in cells(self.config.experiment):
            yield cell, compose([*cell.overrides, *self.words])

    def settings(self) -> Iterator[tuple[Cell, Config]]:
        """As `cells`, every setting once: all benchmarks are in every one."""
        experiment = self.config.experiment
        for cell in cells(replace(experiment, benchmarks=experiment.benchmarks[:1])):
            yield cell, compose([*cell.overrides, *self.words])

    def size(self, name: str) -> int:
        """A number of the experiment's own.

        Raises:
            ConfigError: It is not given, or below 1.
        """
        value = self.config.experiment.sizes.get(name, 0)
        if value < 1:
            raise ConfigError(f"experiment.sizes.{name} must be 1 or more in experiment {self.name}, got {value}")
        return value

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Columns that say where a row comes from."""
        dirty = "-dirty" if provenance()["dirty"] else ""
        machine = self.config.machine.name or machine_name()
        return {"command": self.command, "commit": commit() + dirty, "machine": machine}

    def write(self, name: str, rows: Sequence[dict[str, Any]]) -> Any:
        """Write a table by temp file and rename; every row says which kind its backbone is and where it comes from.

        Rows of the kinds of one backbone that are otherwise alike stand next to each other.

        Returns:
            The table, a data frame, as it can be read back.
        """
        frame = side_by_side(pd.DataFrame([{"experiment": self.name, **row, **self.origin} for row in rows]))
        file = self.folder / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        frame.to_csv(partial, index=False, float_format="%.6g")
        partial.replace(file)
        self.say(file)
        return pd.read_csv(file, dtype={"commit": "str", "run_id": "str"})

    def say(self, *files: Path) -> None:
        """Where something was written."""
        self.console.print("written: " + ", ".join(map(str, files)), highlight=False)

    def show(self, frame: Any, columns: Sequence[str], title: str) -> None:
        """Print columns of a table."""
        table = Table(title=title, title_justify="left", header_style="bold")
        for name in columns:
            table.add_column(name.replace("_", " "), justify="left" if frame[name].dtype == object else "right")
        for row in frame.head(SHOWN)[list(columns)].itertuples(index=False):
            table.add_row(*map(_cell, row))
        self.console.print(table)
        if len(frame) > SHOWN:
            self.console.print(f"and {len(frame) - SHOWN} rows more", highlight=False)


def side_by_side(frame: Any) -> Any:
    """A table with the kind of every row's backbone, and the kinds of one backbone row by row.

    Args:
        frame: Rows with a column ``backbone``; those of one backbone in the same order as those of any other.
    """
    if frame.empty:
        return frame
    names = frame["backbone"].astype(str)
    reuse = names.str.endswith(f"-{REUSE}")
    frame.insert(frame.columns.get_loc("backbone") + 1, "kind", np.where(reuse, REUSE, PLAIN))
    families = pd.factorize(names.str.removesuffix(f"-{REUSE}"))[0]
    return frame.iloc[np.lexsort((frame.groupby("backbone").cumcount(), families))]


def backbone_of(config: Config) -> str:
    """What tables call a backbone: its name, which ends in ``-reuse`` for that kind; random weights are said."""
    own = config.backbone
    return f"random-{own.name}" if own.random and not own.name.startswith("random-") else own.name


def names_of(config: Config) -> dict[str, Any]:
    """Columns that name a cell."""
    kv = config.kv
    return {
        "backbone": backbone_of(config),
        "benchmark": config.benchmark.name,
        "state": state_label(kv.mode.value, scope_of(kv)),
        "kv_mode": kv.mode.value,
        "kv_scope": scope_of(kv),
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
