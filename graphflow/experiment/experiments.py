"""The command `graphflow experiment NAME`: which experiments there are, and how one is started."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pandas as pd
from rich.console import Console

from graphflow.errors import unknown_name
from graphflow.experiment.baselines.main_table import main_table
from graphflow.experiment.choosing.generator import generator
from graphflow.experiment.compose import ConfigError, compose
from graphflow.experiment.config import Config
from graphflow.experiment.kv.codecs import kv_codecs
from graphflow.experiment.kv.horizon import long_horizon
from graphflow.experiment.kv.layouts import layouts
from graphflow.experiment.kv.modes import kv_modes
from graphflow.experiment.kv.similarity import similarity
from graphflow.experiment.kv.stream import pruning, steady_state
from graphflow.experiment.kv.study import Study
from graphflow.experiment.progress import clock
from graphflow.experiment.serve import House
from graphflow.experiment.serving.concurrency import concurrency
from graphflow.experiment.serving.scheduling import scheduling

EXPERIMENTS: dict[str, Callable[[Study], pd.DataFrame]] = {
    "kv_modes": kv_modes,
    "kv_codecs": kv_codecs,
    "similarity": similarity,
    "steady_state": steady_state,
    "pruning": pruning,
    "long_horizon": long_horizon,
    "layouts": layouts,
    "layouts_long": layouts,
    "concurrency": concurrency,
    "scheduling": scheduling,
    "generator": generator,
    "main_table": main_table,
    "leaders": main_table,
}
SHORT = ("backbones", "benchmarks", "tasks")
"""Keys of the experiment that may be given without ``experiment.`` in front."""


def experiment(
    name: str, words: Sequence[str], command: str, console: Console, house: House | None = None
) -> pd.DataFrame:
    """Run what is left of an experiment; write its tables and figures.

    Args:
        name: One of `EXPERIMENTS`; its settings are in ``conf/experiment/<name>.yaml``.
        words: Overrides: of the experiment (``backbones=[...]``, ``tasks=20``, ``experiment.sizes.window=10``), and
            settings that hold for every cell.
        command: The command, for tables.
        console: Where progress and tables go.
        house: What cells share; None makes a new one.

    Raises:
        ConfigError: There is no such experiment, or a setting is wrong.
    """
    config, started = settings(name, words), time.monotonic()
    rest = [word for word in _full(words) if not word.startswith("experiment")]
    frame = EXPERIMENTS[name](Study(config, rest, command, console, house or House()))
    console.print(f"done in {clock(time.monotonic() - started)}", highlight=False)
    return frame


def settings(name: str, words: Sequence[str]) -> Config:
    """The configuration of an experiment; arguments as for `experiment`.

    Raises:
        ConfigError: There is no such experiment, or a setting is wrong.
    """
    if name not in EXPERIMENTS:
        raise ConfigError(unknown_name("experiment", name, EXPERIMENTS))
    return compose([f"experiment={name}", *_full(words)])


def _full(words: Sequence[str]) -> list[str]:
    return [f"experiment.{word}" if word.partition("=")[0] in SHORT else word for word in words]
