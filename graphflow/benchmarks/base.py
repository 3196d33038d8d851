"""What a benchmark is: examples in three splits, and a score for an answer.

A `Task` is all that a workflow may see; the reference answer and the hidden tests stay in the `Example` around it and
are read by the scorer only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from graphflow.engine.episode import Task
from graphflow.engine.sandbox import Sandbox, SandboxConfig

SPLITS = ("train", "validation", "test")
SCORINGS = ("strict", "aflow")


class BenchmarkError(ValueError):
    """A benchmark was asked for something it does not have; the message says what and what is allowed."""


@dataclass(frozen=True)
class Example:
    """One task together with what only the scorer may see.

    Attributes:
        task: What the workflow gets.
        reference: The right answer as text (for code kinds a right program, or empty where none is known).
        hidden_tests: Python statements that a program must survive, in order; empty for other kinds.
    """

    task: Task
    reference: str
    hidden_tests: tuple[str, ...] = ()


@dataclass
class BenchmarkConfig:
    """Which benchmark, from where, how much of it and how it is scored.

    Attributes:
        name: Benchmark name, for example ``gsm8k`` or ``mini-gsm8k``.
        data_dir: Folder with the original files (``<data_dir>/gsm8k/test.jsonl`` ...); empty means the hub.
        revision: Hub revision that replaces the pinned one of the repository with the test rows; empty keeps it.
        variant: Which subset of the original, where there are several; empty means the default one. ``aflow`` means
            AFlow's subset, sizes and order.
        train_size: Rows of the training split; 0 means all of them, for generated suites their default.
        validation_size: Rows of the validation split; 0 as above.
        test_size: Rows of the test split; 0 as above. heldout_size: of the embedded suite's held-out structures.
        limit: At most so many examples a split when the caller names no limit; 0 means all.
        seed: Seed of the validation/test split and of generated suites.
        validation_fraction: Share of an unsplit file that becomes the validation split, in (0, 1).
        scoring: ``strict``, the official semantics of each benchmark, or ``aflow``, what AFlow's published scorers
            do (real benchmarks only).
        show_first_assert: MBPP only: show the workflow the first hidden assert, as AFlow does. That is a leak.

    Raises:
        BenchmarkError: If a value is outside its range.
    """

    name: str = "mini-gsm8k"
    data_dir: str = ""
    revision: str = ""
    variant: str = ""
    train_size: int = 0
    validation_size: int = 0
    test_size: int = 0
    heldout_size: int = 0
    limit: int = 0
    seed: int = 42
    validation_fraction: float = 0.2
    scoring: str = "strict"
    show_first_assert: bool = False

    def __post_init__(self) -> None:
        for field in ("train_size", "validation_size", "test_size", "heldout_size", "limit", "seed"):
            value = getattr(self, field)
            if value < 0:
                raise BenchmarkError(f"benchmark.{field} must be 0 or more, got {value}")
        if not 0.0 < self.validation_fraction < 1.0:
            raise BenchmarkError(f"benchmark.validation_fraction must lie in (0, 1), got {self.validation_fraction}")
        if self.scoring not in SCORINGS:
            raise BenchmarkError(f"benchmark.scoring must be one of {', '.join(SCORINGS)}, got {self.scoring!r}")

    def size(self, split: str) -> int:
        """Configured size of a split; 0 means all of it."""
        return int(getattr(self, f"{split}_size"))


class Benchmark(ABC):
    """Tasks of one kind and their scoring.

    Subclasses set the class attributes, implement `load` and `score`, and override `score_many` where a batch is
    cheaper than its parts.

    Attributes:
        name: Benchmark name as in the results.
        kind: One of gsm8k, math, hotpotqa, humaneval, mbpp.
        metric_name: ``accuracy``, ``f1`` or ``pass@1``.
        version: Version of the scoring in use; raised whenever scores of old and new rows are not comparable.
        splits: Names of its splits.
        scorings: The scorings it knows.
        external: Whether its rows come from outside, so that code and settings do not tell what they are.
    """

    name: str = ""
    kind: str = ""
    metric_name: str = "accuracy"
    version: int = 1
    splits: tuple[str, ...] = SPLITS
    scorings: tuple[str, ...] = SCORINGS[:1]
    external: bool = False

    def __init__(self, config: BenchmarkConfig, sandbox: Sandbox | None = None) -> None:
        if config.scoring not in self.scorings:
            allowed = ", ".join(self.scorings)
            raise BenchmarkError(f"benchmark.scoring must be {allowed} for {config.name}, got {config.scoring!r}")
        self.config = config
        self._sandbox = sandbox
        self._loaded: dict[str, list[Example]] = {}

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox that code scoring uses; one with default limits is made on first use."""
        if self._sandbox is None:
            self._sandbox = Sandbox(SandboxConfig())
        return self._sandbox

    @sandbox.setter
    def sandbox(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @abstractmethod
    def load(self, split: str) -> list[Example]:
        """All examples of a split, in an order that never changes; called once a split."""

    @abstractmethod
    def score(self, example: Example, answer: str) -> float:
        """Score of one answer in [0, 1]. Never raises for a strange answer: that one scores 0."""

    def examples(self, split: str, limit: int | None = None) -> list[Example]:
        """The first examples of a split.

        Args:
            split: train, validation or test; the embedded suite also has heldout.
            limit: At most so many; None means ``config.limit``, and 0 there means all.

        Raises:
            BenchmarkError: If there is no such split, or the limit is negative.
        """
        if limit is not None and limit < 0:
            raise BenchmarkError(f"limit must be 0 or more, got {limit}")
        if split not in self.splits:
            raise BenchmarkError(f"split of {self.name} must be one of {', '.join(self.splits)}, got {split!r}")
        if split not in self._loaded:
            self._loaded[split] = self.load(split)
        loaded = self._loaded[split]
        if limit is None:
            limit = self.config.limit or len(loaded)
        return loaded[:limit]

    def statistics(self) -> dict[str, int]:
        """What scoring has counted since this process began, for the run record."""
        return {}

    def score_many(self, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        """Scores of many answers, in order."""
        return [self.score(example, answer) for example, answer in zip(examples, answers, strict=True)]
