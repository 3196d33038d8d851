"""The library: every operation by name, and the folders that operations and workflows are read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from graphflow.errors import UnknownNameError, unknown_name
from graphflow.wgraph import strict
from graphflow.wgraph.operation import Operation, OperationError
from graphflow.wgraph.step import WorkflowError
from graphflow.wgraph.validation import KINDS
from graphflow.wgraph.workflow import Workflow, validate


class Library(Mapping[str, Operation]):
    """Operations by name, in alphabetical order, read-only.

    Attributes:
        operations: The same as a mapping.
    """

    def __init__(self, operations: Iterable[Operation] | Mapping[str, Operation]) -> None:
        given = list(operations.values() if isinstance(operations, Mapping) else operations)
        by_name = {operation.name: operation for operation in given}
        if len(by_name) < len(given):
            names = [operation.name for operation in given]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise OperationError(f"operations given twice: {', '.join(twice)}; a name stands for one operation")
        self.operations: Mapping[str, Operation] = MappingProxyType(dict(sorted(by_name.items())))

    def __getitem__(self, name: str) -> Operation:
        """The operation of this name.

        Raises:
            UnknownNameError: If there is none; the message says which name is near.
        """
        if name not in self.operations:
            raise UnknownNameError(unknown_name("operation", name, self.operations))
        return self.operations[name]

    def __contains__(self, name: object) -> bool:
        return name in self.operations

    def __iter__(self) -> Iterator[str]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def __repr__(self) -> str:
        return f"Library({', '.join(self.operations)})"


def load_operations(folder: str | Path) -> Library:
    """Read every ``<name>.yaml`` of a folder as an operation.

    Raises:
        OperationError: If a file is wrong; the message names file, key, what was given and what is allowed.
    """
    operations = []
    for path in _files(folder, OperationError):
        try:
            operation = Operation.from_dict(strict.read_yaml(path))
            _check_name(operation.name, path)
        except ValueError as error:
            raise OperationError(f"{path}: {error}") from error
        operations.append(operation)
    return Library(operations)


def load_workflows(folder: str | Path, library: Library) -> dict[str, Workflow]:
    """Read every ``<name>.yaml`` of a folder as a workflow and validate it.

    Returns:
        Workflows by name, in alphabetical order.

    Raises:
        WorkflowError: If a file is wrong; the message names file, key, what was given and what is allowed.
    """
    workflows = {}
    for path in _files(folder, WorkflowError):
        try:
            workflow = Workflow.from_dict(strict.read_yaml(path))
            _check_name(workflow.name, path)
            if not workflow.kinds:
                raise WorkflowError(f"kinds must name at least one of {', '.join(KINDS)}, not []")
            validate(workflow, library)
        except ValueError as error:
            raise WorkflowError(f"{path}: {error}") from error
        workflows[workflow.name] = workflow
    return workflows


def _files(folder: str | Path, error: type[ValueError]) -> list[Path]:
    paths = sorted(Path(folder).glob("*.yaml"))
    if not paths:
        raise error(f"{folder}: no *.yaml file in this folder")
    return paths


def _check_name(name: str, path: Path) -> None:
    if name != path.stem:
        raise ValueError(f"name must be the name of the file, {path.stem!r}, not {name!r}")
