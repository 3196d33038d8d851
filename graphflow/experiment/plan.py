"""What an experiment is made of: grids of cells, each cell one run (the artefacts of the evaluation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import product

SEARCHING = ("autoflow", "aflow")  # methods that are fitted by trying workflows out
UNTAUGHT = ("vanilla", "metagpt", "llmcompiler", "taskweaver", "random", *SEARCHING)
"""Methods that do not learn from outcomes of the repository's workflows."""


class Split(Enum):
    """Which part of a benchmark is run."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    HELDOUT = "heldout"  # the embedded suite only: problem structures that no other split has


@dataclass
class GridConfig:
    """One block of cells: the product of its lists.

    Attributes:
        artefact: Table that the cells belong to, for example ``main_table`` or ``kv_modes``.
        methods: Names in conf/method.
        kv: Names in conf/kv.
        benchmarks: Names in conf/benchmark; empty takes the experiment's.
        concurrency: Workflows in flight; empty leaves the engine's setting.
        overrides: Further overrides for every cell of the block, for example ``engine.fidelity=8``.
        sweeps: Settings with several values each, for example ``kv.density=0.1,0.25``: a cell for every combination.
    """

    artefact: str = "main_table"
    methods: list[str] = field(default_factory=lambda: ["graphflow"])
    kv: list[str] = field(default_factory=lambda: ["differential"])
    benchmarks: list[str] = field(default_factory=list)
    concurrency: list[int] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    sweeps: list[str] = field(default_factory=list)

    def swept(self) -> list[tuple[str, ...]]:
        """Overrides of every combination of the sweeps' values; one empty combination without sweeps."""
        parts = [sweep.partition("=") for sweep in self.sweeps]
        return list(product(*([f"{key}={value}" for value in values.split(",")] for key, _, values in parts)))


@dataclass
class ExperimentConfig:
    """What `graphflow reproduce` runs.

    Attributes:
        name: Name of the profile.
        backbones: Names in conf/backbone.
        benchmarks: Names in conf/benchmark.
        tasks: Test tasks a cell, at least 1.
        overrides: Overrides for every cell and for training, for example ``fit.train_tasks=8``.
        grids: The cells.
        sizes: Further numbers of an experiment on operation state, for example ``window``.
        also: Experiments that `graphflow reproduce` runs after a profile's cells, by name; they have settings of their
            own (``conf/experiment/<name>.yaml``).

    Raises:
        ValueError: ``tasks`` is out of range.
    """

    name: str = "default"
    backbones: list[str] = field(default_factory=lambda: ["qwen-mini"])
    benchmarks: list[str] = field(default_factory=list)
    tasks: int = 40
    overrides: list[str] = field(default_factory=list)
    grids: list[GridConfig] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    also: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"experiment.tasks must be 1 or more, got {self.tasks}")


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    Attributes:
        artefact: Table that its row belongs to; two artefacts may share one run.
        overrides: What makes its config, for `compose`.
        label: The cell in a few words, for the progress display.
        needs_fit: True if the method learns from the outcome table.
        swept: The overrides that its grid's sweeps made.
    """

    artefact: str
    overrides: tuple[str, ...]
    label: str
    needs_fit: bool
    swept: tuple[str, ...] = ()


def cells(experiment: ExperimentConfig) -> Iterator[Cell]:
    """Every cell, benchmark by benchmark so that a backbone and its tasks stay loaded."""
    for backbone in experiment.backbones:
        for grid in experiment.grids:
            names = grid.benchmarks or experiment.benchmarks
            blocks = product(names, grid.methods, grid.kv, grid.swept(), grid.concurrency or [0])
            for benchmark, method, kv, swept, flight in blocks:
                concurrency = [f"engine.concurrency={flight}"] if flight else []
                yield Cell(
                    artefact=f"{grid.artefact}_{flight}" if flight else grid.artefact,
                    overrides=(
                        f"backbone={backbone}",
                        f"benchmark={benchmark}",
                        f"method={method}",
                        f"kv={kv}",
                        f"benchmark.limit={experiment.tasks}",
                        *experiment.overrides,
                        *grid.overrides,
                        *swept,
                        *concurrency,
                    ),
                    label=" ".join(filter(None, [benchmark, method, kv, *swept, f"x{flight}" if flight else ""])),
                    needs_fit=method not in UNTAUGHT,
                    swept=swept,
                )
