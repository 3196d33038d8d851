"""What a method is: a way to get a workflow for a task (paper section 5, baselines; the reductions are ours)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from graphflow.engine.episode import Task
from graphflow.engine.growth import Outputs
from graphflow.engine.tools import Tool
from graphflow.errors import UnknownNameError, unknown_name
from graphflow.generator.outcomes import OutcomeTable
from graphflow.methods.asking import Asking
from graphflow.methods.proposing import MoreOperations, Proposal
from graphflow.methods.trials import Spent, Trials
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow


class MethodError(ValueError):
    """A method was asked for what it cannot give; the message says what is missing."""


class Method(ABC):
    """Builds a workflow for a task. Subclasses override `build` or `build_many`, and `fit` where they learn.

    Attributes:
        name: The name that configs and tables use.
        library: The operations.
        workflows: The repository's workflows by name.
        asking: How tasks are put to the backbone and answers read.
        tools: Tools of its own operations, by operation.
        scripted: Its operations that a script writes in place of the model; results say so.
        spent: What fitting it has cost on tasks of the benchmark that it serves.
    """

    name: ClassVar[str]
    asking: Asking = Asking()
    tools: Mapping[str, Tool] = MappingProxyType({})
    scripted: tuple[str, ...] = ()
    spent: Spent = Spent()

    def __init__(self, library: Library, workflows: Mapping[str, Workflow]) -> None:
        self.library, self.workflows = library, dict(workflows)

    def fit(self, table: OutcomeTable | None = None) -> None:  # noqa: B027 (overriding it is optional)
        """Learn from executed outcomes of training tasks. Does nothing where there is nothing to learn."""

    def search(self, trials: Trials) -> None:  # noqa: B027 (overriding it is optional)
        """Learn by trying workflows out on validation tasks of one benchmark. Does nothing where nothing is tried."""

    def propose(self, *proposals: Proposal, scripted: bool) -> None:
        """Give this method operations that a model writes, or a script in its place."""
        self.asking = MoreOperations([proposal.made(scripted) for proposal in proposals])
        if scripted:
            self.tools = {proposal.name: proposal.script for proposal in proposals}
            self.scripted = tuple(self.tools)

    def grow(self, task: Task, workflow: Workflow, outputs: Outputs) -> Workflow | None:
        """More steps, once the answer of a workflow is there (`graphflow.engine.growth`); None where it is whole."""
        return None

    @abstractmethod
    def build(self, task: Task) -> Workflow:
        """The workflow for one task."""

    def build_many(self, tasks: Sequence[Task]) -> list[Workflow]:
        """The workflows for some tasks, in their order; the same as `build` for each."""
        return [self.build(task) for task in tasks]

    def workflow(self, name: str) -> Workflow:
        """A workflow of the repository.

        Raises:
            UnknownNameError: There is none of that name.
        """
        if name not in self.workflows:
            raise UnknownNameError(unknown_name("workflow", name, self.workflows))
        return self.workflows[name]

    def needs(self, table: OutcomeTable | None) -> OutcomeTable:
        """The table, where a method cannot do without.

        Raises:
            MethodError: There is none, or it is empty.
        """
        if table is None or not len(table):
            raise MethodError(f"method {self.name!r} learns from outcomes: fit needs a table with at least one row")
        return table
