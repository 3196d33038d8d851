"""How a task's state is kept between its steps: as contexts of segments, each task its own.

A memory turns a branch and an operation into a request to the decoder, and the reply into the branches that go on from
it. `graphflow.engine.sharing` has the other memory, where all tasks share what they have in common.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphflow.backbone.load import Backbone
from graphflow.engine.decode import Decoder
from graphflow.engine.request import Reply, Request
from graphflow.engine.state import Branch, Text, flat
from graphflow.kv import OperationStore, StoreBytes
from graphflow.wgraph.operation import Operation


@dataclass(frozen=True)
class Limits:
    """How a step samples.

    Attributes:
        max_tokens: Limit a sample.
        temperature: 0 is greedy.
        seeds: One a sample.
    """

    max_tokens: int
    temperature: float
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Root:
    """Where a task begins.

    Attributes:
        branch: Holds its text.
        prefilled: Tokens that ran through the model for it.
        reused: Tokens whose KV was there.
        added: Bytes that it added to what all tasks share: operation prompts, dynamic text.
    """

    branch: Branch
    prefilled: int
    reused: int = 0
    added: tuple[int, int] = (0, 0)


class Memory(ABC):
    """Keeps the state of tasks.

    Attributes:
        prompts: Token ids of every operation's prompt, the opening of the output included.

    Args:
        backbone: The model.
        store: State of operations.
        decoder: Runs requests.
        prompts: Text of every operation's prompt.
    """

    def __init__(self, backbone: Backbone, store: OperationStore, decoder: Decoder, prompts: Mapping[str, str]):
        self.backbone, self.store, self.decoder = backbone, store, decoder
        self.prompts = {name: self._prompt(text) for name, text in prompts.items()}
        self.closing = tuple(backbone.encode(backbone.turns.closing))

    def _prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of an operation's prompt."""
        return tuple(self.backbone.encode(self.backbone.turns.write_operation(text)))

    @abstractmethod
    def begin(self, texts: Sequence[str]) -> list[Root]:
        """Branches that hold the texts of tasks."""

    @abstractmethod
    def request(self, branch: Branch, operation: Operation, limits: Limits) -> Request:
        """What the decoder is asked for to call an operation on a branch; good until the next `trim`."""

    @abstractmethod
    def branches(self, branch: Branch, request: Request, reply: Reply) -> list[Branch]:
        """Branches that go on from the reply to a request on ``branch``, one a sample."""

    def added(self) -> tuple[int, int]:
        """Bytes added to what all tasks share since this was last asked: operation prompts, dynamic text."""
        return 0, 0

    @abstractmethod
    def trim(self) -> None:
        """Brings what all tasks share back within its bound; called when no request is open."""

    def nbytes(self) -> StoreBytes:
        """Bytes of what all tasks share."""
        return self.store.nbytes()

    def behind(self, output: tuple[int, ...]) -> Text:
        """What follows an output's tokens with KV: its last token unless that one ended it, and the turn's closing."""
        return Text((*(() if output[-1] in self.backbone.stops else output[-1:]), *self.closing))


class SegmentMemory(Memory):
    """Every branch holds its own context; operation prompts come from the store."""

    def begin(self, texts: Sequence[str]) -> list[Root]:
        """Branches whose context is the text of a task."""
        contexts = self.decoder.prefill([self.backbone.encode(self.backbone.turns.write_task(text)) for text in texts])
        return [Root(Branch(context), context.length) for context in contexts]

    def request(self, branch: Branch, operation: Operation, limits: Limits) -> Request:
        """The operation's prompt behind the branch, as the store has it for the branch's path."""
        return Request(
            context=branch.context,
            pending=flat(branch.pending),
            op=operation.name,
            prompt=self.prompts[operation.name],
            plan=self.store.plan(operation.name, branch.context.path, operation.judge),
            **vars(limits),
        )

    def trim(self) -> None:
        """Nothing: the store keeps within its bound by itself."""

    def branches(self, branch: Branch, request: Request, reply: Reply) -> list[Branch]:
        """Branches with the context after each sample; the branch itself keeps the KV of what was pending."""
        if branch.context is request.context:
            branch.context, branch.pending = reply.trunk, ()
        return [
            Branch(context, (self.behind(output),), branch)
            for output, context in zip(reply.outputs, reply.contexts, strict=True)
        ]
