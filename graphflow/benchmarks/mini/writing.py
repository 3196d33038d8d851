"""Writing traces as token ids, segment by segment as the engine writes contexts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphflow.backbone.packing import Document, Piece, documents
from graphflow.backbone.turns import TurnFormat
from graphflow.benchmarks.mini.traces import Branch, Role, Trace, Turn

SHORT_WORDS = 5


class TraceWriter:
    """Turns traces into documents to train on.

    Args:
        tokenizer: The backbone's.
        turns: Its turn format.
        prompts: Static prompt of every operation.
        text_weight: Weight of task text in the loss; outputs have 1.
    """

    def __init__(self, tokenizer: Any, turns: TurnFormat, prompts: Mapping[str, str], text_weight: float = 0.0):
        self.tokenizer, self.turns, self.prompts, self.text_weight = tokenizer, turns, prompts, text_weight

    def ids(self, text: str) -> list[int]:
        """Token ids of a text with its special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def root(self, trace: Trace) -> str:
        """The shared beginning as text; left open where the branches go on with the task."""
        continued = any(branch[0].role is Role.TASK for branch in trace.branches)
        return self.turns.write_task(trace.root).removesuffix(self.turns.task[1] if continued else "")

    def text(self, turn: Turn, short: bool = False) -> str:
        """One turn as text; ``short`` cuts operation prompts to their first words."""
        match turn.role:
            case Role.TASK:
                return turn.text + self.turns.task[1]
            case Role.OPERATION:
                prompt = self.prompts[turn.text]
                return self.turns.write_operation(" ".join(prompt.split()[:SHORT_WORDS]) if short else prompt)
            case Role.OUTPUT | Role.DRAFT:
                return turn.text + self.turns.closing
            case Role.TOOL:
                return self.turns.write_tool(turn.text)
            case Role.GIVEN:
                label, _, text = turn.text.partition(": ")
                return self.turns.write_given(label, text)

    def pieces(self, branch: Branch, short: bool = False) -> Iterator[Piece]:
        """Token ids of each turn of a branch, and their weight in the loss."""
        weights = {Role.OUTPUT: 1.0, Role.TASK: self.text_weight}
        for turn in branch:
            yield self.ids(self.text(turn, short)), weights.get(turn.role, 0.0)

    def write(self, trace: Trace, length: int, short: bool = False) -> Iterator[Document]:
        """Documents of at most ``length`` tokens that hold every branch of a trace."""
        branches = [list(self.pieces(branch, short)) for branch in trace.branches]
        return documents((self.ids(self.root(trace)), self.text_weight), branches, length)
