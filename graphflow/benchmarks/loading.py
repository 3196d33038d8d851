"""Reads original benchmark rows from a local folder or from the Hugging Face hub, and splits them.

A benchmark names its `Source`s; `FileBenchmark` does the rest. Where the original has one split only, a seeded shuffle
carves it 20/80 into validation and test (our choice, the proportions AFlow uses). Where it has no training rows, the
training split is the validation split: that part of the data is there to train and search on.

The variant ``aflow`` has AFlow's sizes and AFlow's shuffle: numpy's seed 42 over the rows in their original order, the
first rows are validation (geekan/MetaGPT at 56d0af1, metagpt/ext/aflow/benchmark/utils.py).

The hub and the original files do not always have the same order. Rows that have something to sort by are sorted before
they are numbered and split (`FileBenchmark.order`), so that both give the same examples.
"""

from __future__ import annotations

import ast
import gzip
import json
import random
import zlib
from abc import abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from graphflow.benchmarks.base import SCORINGS, Benchmark, BenchmarkConfig, BenchmarkError, Example

Row = dict[str, Any]
Item = TypeVar("Item")
AFLOW = "aflow"
AFLOW_SEED = 42


@dataclass(frozen=True)
class Source:
    """Where the rows of one original split are.

    Attributes:
        files: Paths below ``data_dir``; the first that exists is read. One that ends in "/" is a folder with a JSON
            file a row.
        hub: Dataset id on the hub.
        configs: Dataset configurations, read one after the other; empty means the default one.
        splits: Splits on the hub, read one after the other.
        revision: Pinned commit of the dataset.
        places: Where each row of the benchmark stands in its source, for messages; empty where that is the same.
        origin: What the rows were read from, for messages; empty for the first of the files.
    """

    files: tuple[str, ...]
    hub: str
    configs: tuple[str, ...]
    splits: tuple[str, ...]
    revision: str
    places: tuple[int, ...] = ()
    origin: str = ""

    @property
    def split(self) -> str:
        """The original split's name, for task ids."""
        return self.splits[0]


class FileBenchmark(Benchmark):
    """A benchmark whose rows come from original files.

    Subclasses implement `sources` and `example`.

    Attributes:
        versions: Version of each scoring; `version` is that of the one in use.
        variants: Subsets of the original, the default one first.
        aflow_sizes: Validation and test rows of the variant ``aflow``.
    """

    scorings, external = SCORINGS, True
    versions: dict[str, int] = {"strict": 3, "aflow": 2}
    variants: tuple[str, ...] = ("original", AFLOW)
    aflow_sizes: tuple[int, int] = (0, 0)

    def __init__(self, config: BenchmarkConfig) -> None:
        super().__init__(config)
        self.version = self.versions[config.scoring]
        self.variant = config.variant or self.variants[0]
        if self.variant not in self.variants:
            allowed = ", ".join(self.variants)
            raise BenchmarkError(f"benchmark.variant must be one of {allowed} for {self.name}, got {config.variant!r}")

    @abstractmethod
    def sources(self) -> dict[str, Source]:
        """Source of each original split, under "test" and, where the original has training rows, "train"."""

    @abstractmethod
    def example(self, index: int, row: Row, source: Source) -> Example:
        """The example of a row; ``index`` is its place among the rows in order."""

    def order(self, row: Row) -> Any:
        """What rows are sorted by, whatever order their source has them in; None keeps that order."""
        return None

    def selected(self, items: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """The numbered test rows that the variant keeps; all of them unless overridden."""
        return items

    def load(self, split: str) -> list[Example]:
        """Examples of a split; see `Benchmark.load`."""
        sources = self.sources()
        own = split == "train" and "train" in sources
        source = sources["train" if own else "test"]
        # The revision is one of the repository that is tested on; training rows of another one keep their own.
        revision = self.config.revision if source.hub == sources["test"].hub else ""
        read, origin = read_rows(source, self.config.data_dir, revision)
        source = replace(source, places=tuple(self.places(read)), origin=origin)
        rows = [(number, read[at]) for number, at in enumerate(source.places)]
        if not own:
            part = "validation" if split == "train" else split
            rows = self.selected(rows)
            rows = self.carve_aflow(rows, part) if self.variant == AFLOW else carve(rows, part, self.config)
        size = self.config.size(split)
        if size > len(rows):
            raise BenchmarkError(f"benchmark.{split}_size is {size}, but {self.name} has {len(rows)} such rows")
        return [self.example(index, row, source) for index, row in rows[: size or None]]

    def places(self, rows: list[Row]) -> list[int]:
        """Places of rows in their source, in the order of `order`; as they are if a row has nothing to sort by."""
        keys = [self.order(row) for row in rows]
        return sorted(range(len(rows)), key=None if None in keys else keys.__getitem__)

    def carve_aflow(self, rows: list[Item], split: str) -> list[Item]:
        """AFlow's validation or test part of rows.

        Raises:
            BenchmarkError: If the rows are too few, so that they cannot be the ones that AFlow shuffled.
        """
        validation, test = self.aflow_sizes
        if len(rows) < validation + test:
            raise BenchmarkError(
                f"benchmark.variant=aflow of {self.name} needs {validation + test} rows, the file has {len(rows)}"
            )
        order = np.random.RandomState(AFLOW_SEED).permutation(len(rows)).tolist()
        return [rows[i] for i in (order[:validation] if split == "validation" else order[validation:][:test])]


def carve(rows: list[Item], split: str, config: BenchmarkConfig) -> list[Item]:
    """The validation or test part of rows, in shuffled order, so that its first rows are a fair sample of it."""
    order = list(range(len(rows)))
    random.Random(config.seed).shuffle(order)
    cut = round(len(rows) * config.validation_fraction)
    return [rows[i] for i in (order[:cut] if split == "validation" else order[cut:])]


def read_rows(source: Source, data_dir: str, revision: str = "") -> tuple[list[Row], str]:
    """All rows of a source, and what they were read from.

    Args:
        source: Where they are.
        data_dir: Folder with the original files; empty reads the hub.
        revision: Hub revision that replaces the pinned one.

    Raises:
        BenchmarkError: If the folder or the file is absent, the file is not JSON rows, or the hub cannot be reached.
    """
    if not data_dir:
        return list(hub_rows(source, revision or source.revision)), f"{source.hub} {'+'.join(source.splits)}"
    folder = Path(data_dir).expanduser()
    if not folder.is_dir():
        raise BenchmarkError(f"benchmark.data_dir must be a folder that holds {source.files[0]}, got {data_dir!r}")
    for name in source.files:
        if name.endswith("/") and (folder / name).is_dir():
            return folder_rows(folder / name), name
        if (folder / name).is_file():
            return file_rows(folder / name), name
    instead = ", or learn and warm up on the validation split (fit.split=validation)" if source.split == "train" else ""
    raise BenchmarkError(
        f"benchmark.data_dir={data_dir} lacks {' or '.join(source.files)}; put the original file there, "
        f"or leave benchmark.data_dir empty to read {source.hub} from the hub{instead}"
    )


def folder_rows(folder: Path) -> list[Row]:
    """Rows of a folder with a JSON file a row, in subfolders, ordered by subfolder and number (the original MATH)."""
    files = sorted(folder.rglob("*.json"), key=lambda file: (str(file.parent), len(file.stem), file.stem))
    if not files:
        raise BenchmarkError(f"{folder} must hold JSON files, one a row")
    return [row for file in files for row in checked(json_text(file, file.read_bytes(), "a JSON object"), file)]


def file_rows(path: Path) -> list[Row]:
    """Rows of a JSON list (``.json``) or of JSON lines (any other name); ``.gz`` is unpacked."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BenchmarkError(f"{path} is not a whole gzip file: {error}") from error
    if path.suffix == ".json":
        return checked(json_text(path, data, "a JSON list"), path)
    lines = [(number, line) for number, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    return checked([json_text(path, line, f"one JSON object a line (line {number})") for number, line in lines], path)


def json_text(path: Path, data: bytes, form: str) -> Any:
    """The value of a JSON text in UTF-8."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError as error:  # of the JSON or of the encoding
        raise BenchmarkError(f"{path} is not {form}: {error}") from error


def checked(value: Any, path: Path) -> list[Row]:
    """A value as rows: itself if it is a list of objects, one row if it is an object."""
    rows = [value] if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BenchmarkError(f"{path} must hold one or more JSON objects as rows")
    return rows


def hub_rows(source: Source, revision: str) -> Iterator[Row]:
    """Rows of a hub dataset at a commit.

    Raises:
        BenchmarkError: If the hub cannot be reached or has no such dataset, configuration or split; the message names
            both ways out.
    """
    import httpx
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    # ValueError: no such configuration or split at this revision. RuntimeError: the revision holds a loading script.
    absent = (ConnectionError, OSError, httpx.HTTPError, DatasetNotFoundError, ValueError, RuntimeError)
    for name in source.configs or (None,):
        for split in source.splits:
            try:
                rows = load_dataset(source.hub, name, split=split, revision=revision)
            except absent as error:
                reason = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
                raise BenchmarkError(
                    f"{source.hub} at {revision[:12]} cannot be read from the hub ({reason:.200}): give access to the "
                    "hub, or set benchmark.data_dir to a folder that holds " + " or ".join(source.files)
                ) from error
            yield from (dict(row) for row in rows)  # type: ignore[call-overload]


def place(source: Source, index: int) -> str:
    """Where a row is, for messages."""
    return f"{source.origin or source.files[0]}, row {(source.places[index] if source.places else index) + 1}"


def texts(row: Row, source: Source, index: int, field: str) -> list[str]:
    """The value of a field that is a list of texts.

    Raises:
        BenchmarkError: If the field is missing or anything else.
    """
    (value,) = required(row, source, index, **{field: list})
    for number, item in enumerate(value, start=1):
        if not isinstance(item, str):
            raise BenchmarkError(
                f"{place(source, index)}: field {field!r} must be a list of str, got {item!r:.60} as its item {number}"
            )
    return value


def one_of(row: Row, source: Source, index: int, field: str, allowed: Collection[str]) -> str:
    """The value of a field that may be absent (then empty).

    Raises:
        BenchmarkError: If there is another value.
    """
    value = row.get(field, "")
    if not isinstance(value, str) or value and value not in allowed:
        names = ", ".join(allowed)
        raise BenchmarkError(f"{place(source, index)}: field {field!r} must be one of {names}, got {value!r:.60}")
    return value


def python(code: str, source: Source, index: int, field: str) -> ast.Module:
    """The syntax tree of a field.

    Raises:
        BenchmarkError: If it is not Python.
    """
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes
        raise BenchmarkError(
            f"{place(source, index)}: field {field!r} is not Python ({error}): {code!r:.60}"
        ) from error


def required(row: Row, source: Source, index: int, **types: type) -> tuple[Any, ...]:
    """Values of the named fields, in order.

    Raises:
        BenchmarkError: If a field is missing or of another type.
    """
    for field, kind in types.items():
        if field not in row:
            there = ", ".join(map(str, row)) or "none"
            raise BenchmarkError(f"{place(source, index)}: field {field!r} is missing, there are {there}")
        if not isinstance(row[field], kind):
            found = type(row[field]).__name__
            raise BenchmarkError(f"{place(source, index)}: field {field!r} must be {kind.__name__}, got {found}")
    return tuple(row[field] for field in types)
