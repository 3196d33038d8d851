"""Exact sharing between tasks by their tokens: what serving engines with prefix caching do, in either layout.

A branch holds tokens alone. A call looks up how much of them a tree of tokens knows (`graphflow.kv.prefix`), the rest
runs through the model, and what ran is added to the tree. Task first, a call's tokens are the task and the steps so far
with their prompts; operation first, they are the operation's prompt, the task, and what was written so far without
other prompts, so that every prompt is shared and text runs again for every operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphflow.backbone.load import Backbone
from graphflow.engine.decode import Decoder
from graphflow.engine.memory import Limits, Memory, Root
from graphflow.engine.request import Reply, Request
from graphflow.engine.state import Branch, Text, flat, joined
from graphflow.kv import Context, OperationStore, Plan, PrefixTree, SegmentKind, StoreBytes
from graphflow.wgraph.operation import Operation


class TreeMemory(Memory):
    """Task first: a context goes on from what any context has held before."""

    def __init__(self, backbone: Backbone, store: OperationStore, decoder: Decoder, prompts: Mapping[str, str]):
        super().__init__(backbone, store, decoder, prompts)
        self.tree = PrefixTree(backbone.rope, store.config.store_bytes, store.dynamic_codec)
        self._counted = dict(self.tree.added)

    def begin(self, texts: Sequence[str]) -> list[Root]:
        """Branches with the tokens of a task; what the tree does not know of them runs now, all tasks in one batch."""
        tasks = [tuple(self.backbone.encode(self.backbone.turns.write_task(text))) for text in texts]
        known = [self.tree.match(ids) for ids in tasks]
        left = [(ids, held) for ids, held in zip(tasks, known, strict=True) if held.length < len(ids)]
        if left:
            grown = self.decoder.prefill([ids[held.length :] for ids, held in left], [held for _, held in left])
        roots, done = [], iter(grown if left else ())
        for ids, held in zip(tasks, known, strict=True):
            if held.length < len(ids):
                self._grow(held, next(done))
            branch = Branch(Context(), (Text(ids),))
            roots.append(Root(branch, len(ids) - held.length, held.length, self.added()))
        self.trim()
        return roots

    def request(self, branch: Branch, operation: Operation, limits: Limits) -> Request:
        """A call whose context is what the tree knows of its tokens, but for the last one, which always runs."""
        before, prompt = self._before(branch, operation.name), self._opened(operation.name)
        whole = (*flat(before), *prompt)
        held = self.tree.match(whole[:-1])
        rest = _without(before, held.length)
        pending = flat(rest)
        return Request(
            context=replace(held, path=branch.context.path),
            pending=pending,
            op=operation.name,
            prompt=whole[held.length + len(pending) :],
            plan=Plan(),
            kinds=tuple((len(text.tokens), text.kind) for text in rest),
            operation=self._counts(operation.name, len(whole), held.length),
            **vars(limits),
        )

    def branches(self, branch: Branch, request: Request, reply: Reply) -> list[Branch]:
        """Branches with the tokens of each sample; KV of what ran goes into the tree."""
        path = (*branch.context.path, request.op)
        for context in reply.contexts:
            self._grow(request.context, context)
        return [
            Branch(Context(path=path), joined((*self._after(branch, request.op, output), self.behind(output))), branch)
            for output in reply.outputs
        ]

    def added(self) -> tuple[int, int]:
        """Bytes added to the tree since this was last asked."""
        before, self._counted = self._counted, dict(self.tree.added)
        operation, dynamic = (
            self._counted[kind] - before[kind] for kind in (SegmentKind.OPERATION, SegmentKind.DYNAMIC)
        )
        return operation, dynamic

    def trim(self) -> None:
        """Evicts what the tree has no room for."""
        self.tree.trim()

    def nbytes(self) -> StoreBytes:
        """Bytes of the tree; what is never evicted counts as bases."""
        base, prompts = self.tree.pinned_bytes, self.tree.bytes_of(SegmentKind.OPERATION) - self.tree.pinned_bytes
        return replace(self.store.nbytes(), base=base, prompts=prompts, text=self.tree.bytes_of(SegmentKind.DYNAMIC))

    def _grow(self, known: Context, context: Context) -> None:
        """Adds the pieces of a context behind those that the tree gave out."""
        for piece, _ in context.pieces[len(known.pieces) :]:
            known = self.tree.insert(known, piece.tokens, piece.tensor(), piece.kind)

    def _before(self, branch: Branch, op: str) -> tuple[Text, ...]:
        """Everything before the opening part of a call."""
        return branch.pending

    def _opened(self, op: str) -> tuple[int, ...]:
        """The part of a call that opens the output."""
        return self.prompts[op]

    def _counts(self, op: str, whole: int, known: int) -> tuple[int, int]:
        """Tokens of the operation's prompt in a call of ``whole`` tokens, and those of them that are known."""
        length = len(self.prompts[op])
        return length, max(0, known - (whole - length))

    def _after(self, branch: Branch, op: str, output: tuple[int, ...]) -> tuple[Text, ...]:
        """What later calls read of the branch, the operation and an output, without the output's last token."""
        return (*branch.pending, Text(self.prompts[op], SegmentKind.OPERATION), Text(output[:-1]))


class OperationFirstMemory(TreeMemory):
    """Operation first: every prompt stands at the beginning and is never evicted, like the bases of other modes."""

    def __init__(self, backbone: Backbone, store: OperationStore, decoder: Decoder, prompts: Mapping[str, str]):
        super().__init__(backbone, store, decoder, prompts)
        self.opening = tuple(backbone.encode(backbone.turns.opening))
        for ids in self.prompts.values():
            known = self.tree.match(ids)
            if known.length < len(ids):
                (context,) = decoder.prefill([ids[known.length :]], [known])
                piece, _ = context.pieces[-1]
                self.tree.insert(known, piece.tokens, piece.tensor(), SegmentKind.OPERATION, pinned=True)
        self.tree.trim()

    def begin(self, texts: Sequence[str]) -> list[Root]:
        """Branches with the tokens of a task; they run with the first call."""
        tasks = [tuple(self.backbone.encode(self.backbone.turns.write_question(text))) for text in texts]
        return [Root(Branch(Context(), (Text(ids),)), 0) for ids in tasks]

    def _prompt(self, text: str) -> tuple[int, ...]:
        return tuple(self.backbone.encode(self.backbone.turns.write_instruction(text)))

    def _before(self, branch: Branch, op: str) -> tuple[Text, ...]:
        return (Text(self.prompts[op], SegmentKind.OPERATION), *branch.pending)

    def _opened(self, op: str) -> tuple[int, ...]:
        return self.opening

    def _counts(self, op: str, whole: int, known: int) -> tuple[int, int]:
        """The instruction alone: the opening, a token or a few, belongs to the text of every call."""
        length = len(self.prompts[op])
        return length, min(known, length)

    def _after(self, branch: Branch, op: str, output: tuple[int, ...]) -> tuple[Text, ...]:
        return (*branch.pending, Text((*self.opening, *output[:-1])))


def _without(texts: Sequence[Text], count: int) -> list[Text]:
    """What is left of some runs after the first ``count`` tokens."""
    left = []
    for text in texts:
        if count < len(text.tokens):
            left.append(Text(text.tokens[count:], text.kind))
        count = max(0, count - len(text.tokens))
    return left
