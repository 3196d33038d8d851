"""Reads original benchmark rows from a local folder or from the Hugging Face hub, and splits them.

A benchmark names its `Source`s; `FileBenchmark` does the rest. Where the original has one split only, a seeded shuffle
carves it 20/80 into validation and test (our choice, the proportions AFlow uses). Where it has no training rows, the
training split is the validation split: that part of the data is there to train and search on.
"""

from __future__ import annotations

import json
import random
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from graphflow.benchmarks.base import Benchmark, BenchmarkConfig, BenchmarkError, Example

Row = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Source:
    """Where the rows of one original split are.

    Attributes:
        files: Paths below ``data_dir``; the first that exists is read.
        hub: Dataset id on the hub.
        configs: Dataset configurations, read one after the other; empty means the default one.
        splits: Splits on the hub, read one after the other.
        revision: Pinned commit of the dataset.
    """

    files: tuple[str, ...]
    hub: str
    configs: tuple[str, ...]
    splits: tuple[str, ...]
    revision: str

    @property
    def split(self) -> str:
        """The original split's name, for task ids."""
        return self.splits[0]


class FileBenchmark(Benchmark):
    """A benchmark whose rows come from original files.

    Subclasses implement `sources` and `example`.
    """

    @abstractmethod
    def sources(self) -> dict[str, Source]:
        """Source of each original split, under "test" and, where the original has training rows, "train"."""

    @abstractmethod
    def example(self, index: int, row: Row, source: Source) -> Example:
        """The example of a row; ``index`` is its place in the original file."""

    def load(self, split: str) -> list[Example]:
        """Examples of a split; see `Benchmark.load`."""
        sources = self.sources()
        own = split == "train" and "train" in sources
        source = sources["train" if own else "test"]
        rows = list(enumerate(read_rows(source, self.config)))
        if not own:
            rows = carve(rows, "validation" if split == "train" else split, self.config)
        size = self.config.size(split)
        if size > len(rows):
            raise BenchmarkError(f"benchmark.{split}_size is {size}, but {self.name} has {len(rows)} such rows")
        return [self.example(index, row, source) for index, row in rows[: size or None]]


def carve(rows: list[Item], split: str, config: BenchmarkConfig) -> list[Item]:
    """The validation or test part of rows, in shuffled order, so that its first rows are a fair sample of it."""
    order = list(range(len(rows)))
    random.Random(config.seed).shuffle(order)
    cut = round(len(rows) * config.validation_fraction)
    return [rows[i] for i in (order[:cut] if split == "validation" else order[cut:])]


def read_rows(source: Source, config: BenchmarkConfig) -> list[Row]:
    """All rows of a source, from ``config.data_dir`` if that is set, else from the hub.

    Raises:
        BenchmarkError: If the file is absent or not JSON rows, or the hub cannot be reached.
    """
    if not config.data_dir:
        return list(hub_rows(source, config.revision or source.revision))
    folder = Path(config.data_dir)
    for name in source.files:
        if (folder / name).is_file():
            return file_rows(folder / name)
    raise BenchmarkError(
        f"benchmark.data_dir={config.data_dir} lacks {' or '.join(source.files)}; put the original file there, "
        f"or leave benchmark.data_dir empty to read {source.hub} from the hub"
    )


def file_rows(path: Path) -> list[Row]:
    """Rows of a JSON list (``.json``) or of JSON lines (any other name)."""
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            rows = json.loads(text)
        else:
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except json.JSONDecodeError as error:
        form = "a JSON list" if path.suffix == ".json" else "one JSON object a line"
        raise BenchmarkError(f"{path} is not {form}: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path} must hold one or more JSON objects as rows")
    return rows


def hub_rows(source: Source, revision: str) -> Iterator[Row]:
    """Rows of a hub dataset at a commit."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    for name in source.configs or (None,):
        for split in source.splits:
            try:
                rows = load_dataset(source.hub, name, split=split, revision=revision)
            except (ConnectionError, OSError, DatasetNotFoundError) as error:
                raise BenchmarkError(
                    f"{source.hub} at {revision[:12]} cannot be read from the hub ({type(error).__name__}): give "
                    "access to the hub, or set benchmark.data_dir to a folder that holds " + " or ".join(source.files)
                ) from error
            yield from (dict(row) for row in rows)  # type: ignore[call-overload]


def required(row: Row, source: Source, index: int, **types: type) -> tuple[Any, ...]:
    """Values of the named fields, in order.

    Raises:
        BenchmarkError: If a field is missing or of another type.
    """
    for field, kind in types.items():
        place = f"{source.files[0]}, row {index + 1}"
        if field not in row:
            raise BenchmarkError(f"{place}: field {field!r} is missing, there are {', '.join(map(str, row)) or 'none'}")
        if not isinstance(row[field], kind):
            found = type(row[field]).__name__
            raise BenchmarkError(f"{place}: field {field!r} must be {kind.__name__}, got {found}")
    return tuple(row[field] for field in types)
