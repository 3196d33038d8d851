"""Sweeps: Hydra's multirun and its launchers (basic, submitit, ray) over single cells."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig
from rich.console import Console

from graphflow.experiment.compose import to_config
from graphflow.experiment.config import register
from graphflow.experiment.single import run_single
from graphflow.paths import CONF

QUIET = (
    "hydra/job_logging=none",
    "hydra/hydra_logging=none",
    "hydra.sweep.dir=${machine.runs_dir}/sweeps/${now:%Y-%m-%d_%H-%M-%S}",
)


def run_one(raw: DictConfig) -> float:
    """One job of a sweep; its metric, so that an optimising sweeper can be used."""
    return run_single(to_config(raw), Console())["metric"]


def run_sweep(overrides: Sequence[str]) -> None:
    """Run a sweep; the overrides are checked already."""
    register()
    given = {override.partition("=")[0] for override in overrides}
    quiet = [default for default in QUIET if default.partition("=")[0] not in given]
    before = sys.argv
    sys.argv = ["graphflow", "--multirun", *quiet, *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_one)()
    finally:
        sys.argv = before
