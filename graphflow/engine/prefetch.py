"""Stored state of prompts that will be needed soon, reconstructed while other steps decode (our choice)."""

from __future__ import annotations

import weakref
from collections import OrderedDict

from torch import Tensor

from graphflow.engine.job import Job
from graphflow.kv import Cut, OperationStore, Plan, Segment
from graphflow.kv.paths import Key
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Step


class Prefetch:
    """Decodes the prompts of steps that follow those in the batch; knows which prompts are decoded.

    The store's workspace keeps what is decoded, within its own bounds, and drops what was used least recently. A step
    that reads several branches goes on from their common beginning, which is not known ahead: it is left out.

    Attributes:
        decoded: Prompts that were decoded ahead.

    Args:
        store: State of operations.
        library: Operations.
        most: Prompts that may wait decoded for a step; 0 for none.
    """

    def __init__(self, store: OperationStore, library: Library, most: int) -> None:
        self.store, self.library = store, library
        self._most = min(most, store.config.workspace_items) if store.config.learns_paths else 0
        self._alive: weakref.WeakValueDictionary[Key, Tensor] = weakref.WeakValueDictionary()
        self._wanted: OrderedDict[Key, None] = OrderedDict()
        self.decoded = 0

    def resident(self, op: str, path: tuple[str, ...]) -> bool:
        """True if the stored state of a prompt is decoded, or needs no decoding; False too where it is not stored."""
        return (op, path) in self._alive

    def note(self, op: str, path: tuple[str, ...], plan: Plan) -> None:
        """Remembers what a plan has decoded; nothing waits for it any more."""
        self._wanted.pop((op, path), None)
        whole = plan.shared.of if isinstance(plan.shared, Cut) else plan.shared
        if isinstance(whole, Segment) and whole.shared:
            self._alive[op, path] = whole.kv  # all segments over it are handed out or kept by the store

    def expect(self, job: Job, step: Step, path: tuple[str, ...]) -> None:
        """Notes the language-model steps that read a step which has just begun.

        Args:
            job: Its task.
            step: It.
            path: Operations in its context, itself left out.
        """
        if not self._most:
            return
        for reader in job.workflow.steps:
            operation = self.library[reader.op]
            if reader.inputs != (step.id,):
                continue
            behind = (*path, step.op) if self.library[step.op].kind is Kind.LLM else path
            if operation.kind is not Kind.LLM:
                self.expect(job, reader, behind)  # what a tool says is text: the path goes on behind it
            elif not self.resident(reader.op, behind):
                self._wanted[reader.op, behind] = None
                self._wanted.move_to_end((reader.op, behind))
        while len(self._wanted) > self._most:
            self._wanted.popitem(last=False)

    def advance(self) -> None:
        """Decodes one of the prompts that are expected."""
        while self._wanted:
            key, _ = self._wanted.popitem(last=False)
            if self.resident(*key) or key not in self.store.materialised:
                continue
            self.note(*key, self.store.plan(*key))
            self.decoded += 1
            return
