"""Writing traces as token ids, segment by segment as the engine writes contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from graphflow.backbone.packing import Document, Piece, documents
from graphflow.backbone.turns import TurnFormat
from graphflow.benchmarks.mini.traces import Branch, Call, Role, Spans, Trace, Turn


def output_weight(tokens: int) -> float:
    """Weight of an output's tokens in the loss: up to 4 for short ones, 1 from 16 tokens on.

    A name or a verdict is three tokens and decides a task; a program is forty. Without it nearly all of the loss is
    long outputs, most of whose tokens are easy (our choice).
    """
    return min(4.0, max(1.0, 16 / max(1, tokens)))


STRESS = 8.0  # factor on the weight of tokens that an output's worth hangs on (our choice)


class TraceWriter:
    """Turns traces into documents to train on, in either layout.

    Task first: [task][operation][output][operation][output]... in one growing context. Operation first: each call is
    [operation][task][earlier outputs and results][output].

    Args:
        tokenizer: The backbone's.
        turns: Its turn format.
        prompts: Static prompt of every operation.
        text_weight: Weight of task text in the loss; outputs have 1 or more (`output_weight`).
        words: Operation prompts are cut to so many words, 0: whole. What follows stands where it would after the whole
            prompt, so that distances are learnt without the tokens between (after PoSE, Zhu et al. 2023).
    """

    def __init__(
        self, tokenizer: Any, turns: TurnFormat, prompts: Mapping[str, str], text_weight: float = 0.0, words: int = 0
    ):
        self.tokenizer, self.turns, self.prompts, self.text_weight = tokenizer, turns, prompts, text_weight
        self.words = words
        self._prompts: dict[str, Piece] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text with its special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def root(self, trace: Trace) -> str:
        """The shared beginning as text; left open where the branches go on with the task."""
        continued = any(branch[0].role is Role.TASK for branch in trace.branches)
        return self.turns.write_task(trace.root).removesuffix(self.turns.task[1] if continued else "")

    def text(self, turn: Turn) -> str:
        """One turn as text; a TASK turn is the rest of a task that the root began."""
        match turn.role:
            case Role.TASK:
                return turn.text + self.turns.task[1]
            case Role.OPERATION:
                return self.turns.write_operation(self.prompts[turn.text])
            case Role.OUTPUT | Role.DRAFT:
                return turn.text + self.turns.closing
            case Role.TOOL:
                return self.turns.write_tool(turn.text)
            case Role.GIVEN:
                label, _, text = turn.text.partition(": ")
                return self.turns.write_given(label, text)

    def pieces(self, branch: Branch, blocked: bool = False) -> Iterator[Piece]:
        """The turns of a branch; ``blocked``: operation prompts see nothing before themselves."""
        for turn in branch:
            if turn.role is Role.OPERATION:
                yield self.prompt(turn.text, self.turns.write_operation, blocked)
                continue
            if turn.role is Role.OUTPUT:
                yield from self.output(turn.text, turn.stress)
            else:
                yield Piece(self.ids(self.text(turn)), self.text_weight if turn.role is Role.TASK else 0.0)

    def output(self, text: str, stress: Spans) -> Iterator[Piece]:
        """An output with its weights."""
        encoded = self.tokenizer(text + self.turns.closing, add_special_tokens=False, return_offsets_mapping=True)
        weight = output_weight(len(encoded["input_ids"]))
        weights = [
            weight * STRESS if any(first < end and start < last for start, end in stress) else weight
            for first, last in encoded["offset_mapping"]
        ]
        for weight, tokens in groupby(zip(weights, encoded["input_ids"], strict=True), key=itemgetter(0)):
            yield Piece([token for _, token in tokens], weight)

    def prompt(self, operation: str, write: Callable[[str], str], blocked: bool = False) -> Piece:
        """An operation's prompt as ``write`` puts it into a context, cut if prompts are."""
        text = write(self.prompts[operation])
        if text not in self._prompts:
            ids = whole = self.ids(text)
            if self.words:
                ids = self.ids(write(" ".join(self.prompts[operation].split()[: self.words])))
            self._prompts[text] = Piece(ids, gap=len(whole) - len(ids))
        return replace(self._prompts[text], blocked=blocked)

    def write(self, trace: Trace, length: int, blocked: bool = False) -> Iterator[Document]:
        """Task-first documents of at most ``length`` tokens that hold every branch of a trace."""
        branches = [list(self.pieces(branch, blocked)) for branch in trace.branches]
        return documents([Piece(self.ids(self.root(trace)), self.text_weight)], branches, length)

    def call_root(self, operation: str, root: str) -> tuple[str, str]:
        """Operation and beginning of the task in the operation-first layout, as two texts."""
        return self.turns.write_instruction(self.prompts[operation]), self.call_task(root)

    def call_task(self, root: str) -> str:
        """Common beginning of the tasks of operation-first calls; empty where there is none."""
        return self.turns.task[0] + root if root else ""

    def call_text(self, call: Call, continued: bool) -> str:
        """A call after its root, up to the output; ``continued``: the root holds the task's beginning."""
        parts = [
            self.turns.opening + self.text(turn) if turn.role is Role.DRAFT else self.text(turn)
            for turn in call.history
        ]
        return ("" if continued else self.turns.task[0]) + "".join(parts) + self.turns.opening

    def write_calls(self, operation: str, root: str, calls: Sequence[Call], length: int) -> Iterator[Document]:
        """Operation-first documents of calls of one operation.

        Args:
            operation: The operation.
            root: Common beginning of their tasks; empty where there is none.
            calls: The calls.
            length: Tokens of a document.
        """
        instruction = self.prompt(operation, self.turns.write_instruction)
        start = [instruction, Piece(self.ids(self.call_task(root)), self.text_weight)]
        branches = []
        for call in calls:
            text = self.call_text(call, bool(root))
            task = text.index(self.turns.task[1]) + len(self.turns.task[1])
            branches.append(
                [
                    Piece(self.ids(text[:task]), self.text_weight),
                    Piece(self.ids(text[task:])),
                    *self.output(call.output, call.stress),
                ]
            )
        return documents(start, branches, length)
