"""A task's context as a chat: how branches become messages (our choice).

Task, operation prompts, tool results and other branches' outputs are the user's turns, what the model wrote is the
assistant's. Turns of the user that follow each other are one message, with an empty line between them: many chat
templates refuse two in a row. A tool result begins with ``Result:`` and another branch's output with its letter, as in
the turn formats of the real families (`graphflow.backbone.turns`). There is no system message: a template that has one
of its own writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from graphflow.backbone.server import Message
from graphflow.engine.state import Branch
from graphflow.kv import Context
from graphflow.wgraph.operation import Operation

BETWEEN = "\n\n"


class Turn(NamedTuple):
    """Who says what."""

    role: str
    text: str


@dataclass(eq=False)
class Dialogue(Branch):
    """A branch that holds what was said. Its context has no KV, only the operations that were called.

    Attributes:
        turns: What was said up to here.
    """

    turns: tuple[Turn, ...] = ()

    def heard(self, texts: Iterable[str]) -> Dialogue:
        """A branch that goes on with turns of the user."""
        return Dialogue(self.context, (), self, (*self.turns, *(Turn("user", text) for text in texts)))

    def asked(self, operation: Operation) -> tuple[Turn, ...]:
        """What is said when an operation is called here."""
        return (*self.turns, Turn("user", operation.prompt))

    def answered(self, operation: Operation, text: str) -> Dialogue:
        """A branch that goes on with an operation's call and what the model wrote."""
        context = self.context.with_operation(operation.name)
        return Dialogue(context, (), self, (*self.asked(operation), Turn("assistant", text)))


def begin(task: str) -> Dialogue:
    """Where a task begins."""
    return Dialogue(Context(), (), None, (Turn("user", task),))


def join(branch: Branch, given: Sequence[tuple[str, str]]) -> Dialogue:
    """See `graphflow.engine.call.Join`."""
    return spoken(branch).heard(f"{letter}: {text}" for letter, text in given)


def extend(branch: Branch, result: str) -> Dialogue:
    """A branch that goes on with a tool's result."""
    return spoken(branch).heard([f"Result:\n{result}"])


def spoken(branch: Branch) -> Dialogue:
    """A branch of a task that a server serves: every one is a dialogue."""
    assert isinstance(branch, Dialogue)
    return branch


def messages(turns: Sequence[Turn]) -> list[Message]:
    """Turns as a server takes them: those that one side says in a row are one message."""
    sides = groupby(turns, key=lambda turn: turn.role)
    return [{"role": role, "content": BETWEEN.join(turn.text for turn in own)} for role, own in sides]
