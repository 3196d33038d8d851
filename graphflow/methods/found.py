"""What searching methods share: one workflow a benchmark, found once, kept in files (our choice)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from graphflow.engine.episode import Task
from graphflow.methods.base import Method, MethodError
from graphflow.methods.vanilla import SINGLE_CALL
from graphflow.wgraph import strict
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow, validate


class Found(Method):
    """Builds what its search found. Subclasses override `search`, which calls `keep` at its end, and `executions`.

    Attributes:
        best: The workflow of each benchmark.
        history: Everything that was tried for it, ready for JSON.
    """

    def __init__(self, library: Library, workflows: Mapping[str, Workflow]) -> None:
        super().__init__(library, workflows)
        self.best: dict[str, Workflow] = {}
        self.history: dict[str, Sequence[Mapping[str, Any]]] = {}

    @abstractmethod
    def executions(self, tasks: int) -> int:
        """Executions of a workflow on a task that a search over so many tasks makes at most."""

    def first(self, task: Task) -> Workflow:
        """The workflow of one call that is made for a task's kind: where a search starts.

        Raises:
            MethodError: There is none.
        """
        for name in SINGLE_CALL:
            if name in self.workflows and task.kind in self.workflows[name].kinds:
                return self.workflows[name]
        raise MethodError(f"no single-call workflow ({', '.join(SINGLE_CALL)}) is made for the kind {task.kind!r}")

    def keep(self, benchmark: str, workflow: Workflow, history: Sequence[Mapping[str, Any]]) -> None:
        """Note what a search found."""
        self.best[benchmark], self.history[benchmark] = workflow, history

    def build(self, task: Task) -> Workflow:
        """See `Method.build`.

        Raises:
            MethodError: No search was made for the task's benchmark.
        """
        if task.benchmark not in self.best:
            raise MethodError(
                f"method {self.name!r} must be fitted on benchmark {task.benchmark!r} before it builds; "
                f"it was fitted on {', '.join(sorted(self.best)) or 'nothing'}"
            )
        return self.best[task.benchmark]

    def save(self, folder: str | Path) -> None:
        """Write ``<benchmark>.yaml``, the workflow, and ``<benchmark>.json``, the search, for each benchmark."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for benchmark, workflow in self.best.items():
            (place / f"{benchmark}.yaml").write_text(yaml.safe_dump(workflow.to_dict(), sort_keys=False))
            (place / f"{benchmark}.json").write_text(json.dumps(self.history[benchmark], indent=1) + "\n")

    def load(self, folder: str | Path, benchmark: str = "") -> None:
        """Read what `save` wrote.

        Args:
            folder: Given to `save`.
            benchmark: Read this one only; empty reads all.

        Raises:
            MethodError: There is nothing in the folder.
            WorkflowError: A workflow does not fit the library.
        """
        files = sorted(Path(folder).glob(f"{benchmark or '*'}.yaml"))
        if not files:
            raise MethodError(f"method {self.name!r}: no {benchmark or '<benchmark>'}.yaml in {folder}; fit it first")
        for file in files:
            workflow = Workflow.from_dict(strict.read_yaml(file))
            validate(workflow, self.library)
            self.keep(file.stem, workflow, json.loads(file.with_suffix(".json").read_text()))
