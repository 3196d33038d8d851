"""What a method has a model write about workflows: a plan, an edit, a flow, a reason (our choice).

Each is an operation like any other: it costs a call, its tokens and its KV. A backbone that never learned the form
cannot show what a method is worth, only that it does not know the form; there a script may write in its place, in the
same form, read by the same parser and refused by the same checks. Results say which operations were scripted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphflow.engine.tools import Tool
from graphflow.methods.asking import Asking
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation


@dataclass(frozen=True)
class Proposal:
    """One text that a method needs.

    Attributes:
        operation: As a model writes it.
        script: What writes it where no model can; it sees what the model would see.
    """

    operation: Operation
    script: Tool

    @property
    def name(self) -> str:
        """Its operation's name."""
        return self.operation.name

    def made(self, scripted: bool) -> Operation:
        """The operation, as a tool without a prompt where it is scripted."""
        return replace(self.operation, kind=Kind.TOOL, prompt="") if scripted else self.operation


class MoreOperations(Asking):
    """Tasks as they are, and operations beside those of the library.

    Args:
        operations: A method's own.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)

    def library(self, library: Library) -> Library:
        """See `Asking.library`."""
        return Library([*library.operations.values(), *self.operations])
