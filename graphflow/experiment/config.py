"""The whole configuration: every floor's dataclass in one tree, and its registration with Hydra.

The dataclasses live beside the code that they configure; here they only meet. YAML in conf/ holds values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache

from hydra.core.config_store import ConfigStore

from graphflow.backbone.load import BackboneConfig, check_device
from graphflow.benchmarks.base import BenchmarkConfig
from graphflow.engine.executor import EngineConfig
from graphflow.experiment.fit import FitConfig
from graphflow.experiment.plan import ExperimentConfig, Split
from graphflow.experiment.tracking import TrackingConfig
from graphflow.generator.generator import GeneratorConfig
from graphflow.kv.modes import KVConfig
from graphflow.methods import MethodConfig
from graphflow.methods.trials import TrialConfig


@dataclass
class MachineConfig:
    """Facts about the machine, and where files go.

    Attributes:
        name: How tables name the machine; empty takes its CPU and GPU.
        device: torch device, for example ``cpu`` or ``cuda:0``.
        threads: CPU threads of torch; 0 leaves torch's default.
        runs_dir: Folder of run directories.
        results_dir: Folder of tables, figures and the report.

    Raises:
        ValueError: ``threads`` is out of range, or ``device`` is not one of torch's or not there.
    """

    name: str = ""
    device: str = "cpu"
    threads: int = 0
    runs_dir: str = "runs"
    results_dir: str = "results"

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        if not 0 <= self.threads <= cores:
            raise ValueError(
                f"machine.threads must be between 0 and {cores} (the cores of this machine), got {self.threads}"
            )
        check_device("machine.device", self.device)


@dataclass
class Config:
    """Everything that a command needs to know.

    Attributes:
        backbone: Group backbone: which model.
        benchmark: Group benchmark: which tasks.
        kv: Group kv: how operation state is kept.
        method: Group method: how a workflow is built for a task.
        generator: Group generator: the GNN and its training.
        engine: Group engine: concurrency, batching, sandbox.
        machine: Group machine: device, threads, folders.
        tracking: Group tracking: wandb or nothing.
        experiment: Group experiment: what `graphflow reproduce` runs.
        fit: What methods learn from: the outcome table.
        trials: What methods may spend that search for a workflow.
        split: Part of the benchmark that is run.
        warmup: Training tasks served before the measurement starts, in the modes that learn residuals, so that the
            operation store is in its steady state; they are not in the episodes, what they left in the store is in
            the bytes.

    Raises:
        ValueError: ``warmup`` is negative.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    benchmark: BenchmarkConfig = field(default_factory=BenchmarkConfig)
    kv: KVConfig = field(default_factory=KVConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    trials: TrialConfig = field(default_factory=TrialConfig)
    split: Split = Split.TEST
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must be 0 or more, got {self.warmup}")


GROUPS: dict[str, type] = {
    "backbone": BackboneConfig,
    "benchmark": BenchmarkConfig,
    "kv": KVConfig,
    "method": MethodConfig,
    "generator": GeneratorConfig,
    "engine": EngineConfig,
    "machine": MachineConfig,
    "tracking": TrackingConfig,
    "experiment": ExperimentConfig,
}


@cache
def register() -> None:
    """Register the schema once, so that every YAML and every override is checked against it."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
