"""Admission by bytes: nothing is let in that would not fit with all that it can grow to (estimates: our choice).

Text and prompts are taken to be kept densely, outputs to reach their limits. What a tool will say is not known when a
task is admitted: a step that such text has made too long waits until there is room, and if there never will be its
task fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphflow.backbone.cache import ROOM
from graphflow.backbone.load import Backbone
from graphflow.engine.batch import Flight
from graphflow.engine.config import EngineConfig
from graphflow.engine.request import Request
from graphflow.kv import OperationStore, StateMode
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Workflow

LEARNED = 8  # bytes an entry of what is learned of a path: float32 mean and sum of squares


class Budget:
    """What tasks and requests can come to take.

    Args:
        backbone: The model.
        store: State of operations.
        library: Operations.
        prompts: Token ids of every operation's prompt.
        config: Has the limits of outputs.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: OperationStore,
        library: Library,
        prompts: Mapping[str, Sequence[int]],
        config: EngineConfig,
    ) -> None:
        self.library, self.prompts, self.config = library, prompts, config
        self.kept = store.shape.bytes_per_token
        self.computed = backbone.shape(backbone.dtype).bytes_per_token
        self._contexts = store.config.mode is StateMode.OPERATION_FIRST  # a step runs its whole context again
        self._learned = 0
        if store.config.learns_paths:  # moments, the residual, and its segment in the workspace
            self._learned = self.kept // store.shape.dtype.itemsize * LEARNED + 2 * self.kept

    def task(self, text: int, workflow: Workflow) -> tuple[int, int]:
        """Bytes that a task keeps at its end, and the batch's bytes for its largest step.

        Args:
            text: Tokens of the task.
            workflow: Its steps; what they write is taken to be one context.
        """
        whole, samples, learned, steps = text, 1, 0, 0
        for step in workflow.steps:
            operation = self.library[step.op]
            if operation.kind is Kind.LLM:
                prompt = len(self.prompts[step.op])
                whole += prompt + step.samples * self.config.max_tokens(operation.max_tokens)
                samples = max(samples, step.samples)
                learned += prompt * self._learned
                steps += step.samples
        contexts = max(1, steps) if self._contexts else 1
        return contexts * whole * self.kept + learned, (2 * samples * (whole + ROOM)) * self.computed

    def keeps(self, request: Request) -> int:
        """Bytes that a request may leave behind: text, prompt, outputs, and what the store learns."""
        outputs = len(request.seeds) * (request.max_tokens - 1)
        learned = self._learned * len(request.prompt) if request.plan.fallback else 0
        return (len(request.fresh[0]) + outputs) * self.kept + learned

    def caches(self, flights: Iterable[Flight], joining: Sequence[Request], held: int = 0) -> int:
        """Bytes that the batch's caches may take until all of these have ended, those that join prefilled beside it.

        Rows are padded to the longest. Beside them stand, for a moment, the joining rows, padded to theirs. Until these
        are in, rows that have ended may be there too, as many at most as decode, and grow with the others.

        Args:
            flights: Requests in the batch.
            joining: Requests that would join.
            held: Bytes that the batch holds now.
        """
        decoding = [flight.request for flight in flights]
        requests = [*decoding, *joining]
        rows = sum(len(request.seeds) for request in requests)
        longest = max((_length(request) + request.max_tokens + ROOM for request in requests), default=0)
        reused = max((_length(request) - len(request.fresh[0]) for request in joining), default=0)
        fresh = max((len(request.fresh[0]) for request in joining), default=0)
        beside = sum(len(request.seeds) for request in joining) * (reused + fresh + ROOM)
        growth = max((request.max_tokens + ROOM for request in decoding), default=0)
        until = held + 2 * sum(len(request.seeds) for request in decoding) * growth * self.computed
        return max(rows * longest * self.computed, until) + beside * self.computed


def _length(request: Request) -> int:
    """Tokens before the first output token."""
    return request.offset + len(request.prompt)
