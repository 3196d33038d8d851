"""Workflows on a plain per-request server: what one would take instead of the engine (our choice of rivals).

A per-request server sees no workflow. Every language-model step reaches it as one prompt, the whole text of the step's
context, the same token ids that exact state in the engine holds, and it decodes greedily with the same stop token and
the same limit. Everything around the model is the engine's own: workflows and their guards, tools, reading of outputs,
arrivals, clocks. So the executor is the engine's too, with another memory (tokens without KV) and another batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList

from graphflow.backbone.compat import attention_for
from graphflow.backbone.load import Backbone
from graphflow.engine.batch import Batch, Flight
from graphflow.engine.calls import Calls
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, Task
from graphflow.engine.gate import Build
from graphflow.engine.memory import Limits, Memory, Root
from graphflow.engine.request import Reply, Request
from graphflow.engine.state import Branch, Text, flat, joined
from graphflow.engine.tools import ToolBox
from graphflow.experiment.serving.measured import Measured
from graphflow.kv import Context, KVConfig, OperationStore, Plan, StateMode
from graphflow.kv.accounting import tensor_bytes
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation


class TextMemory(Memory):
    """Branches hold tokens and no KV: every call is the whole text of its context."""

    def begin(self, texts: Sequence[str]) -> list[Root]:
        """Branches with the tokens of tasks; they run with every call."""
        tasks = [tuple(self.backbone.encode(self.backbone.turns.write_task(text))) for text in texts]
        return [Root(Branch(Context(), (Text(ids),)), 0) for ids in tasks]

    def request(self, branch: Branch, operation: Operation, limits: Limits) -> Request:
        """A call in which everything runs."""
        prompt = self.prompts[operation.name]
        return Request(branch.context, flat(branch.pending), operation.name, prompt, Plan(), **vars(limits))

    def branches(self, branch: Branch, request: Request, reply: Reply) -> list[Branch]:
        """Branches with the tokens of each sample."""
        context = Context(path=(*branch.context.path, request.op))
        return [
            Branch(
                context,
                joined((*branch.pending, Text(request.prompt), Text(output[:-1]), self.behind(output))),
                branch,
            )
            for output in reply.outputs
        ]

    def trim(self) -> None:
        """Nothing is shared."""


class RequestServer(Batch):
    """Where requests go: whole prompts in, tokens out.

    Args:
        backbone: The model.
        store: Of no use here; an empty one.
        clock: Seconds, monotonic.
    """

    def __init__(self, backbone: Backbone, store: OperationStore, clock: Callable[[], float]) -> None:
        super().__init__(backbone, store, clock)
        self._open: list[Flight] = []
        self._attention = ""

    @property
    def flights(self) -> list[Flight]:
        """Requests that have not been handed over."""
        return list(self._open)

    @property
    def rows(self) -> int:
        """As many."""
        return len(self._open)

    def start(self, concurrency: int, longest: int) -> None:
        """Makes ready for so many requests at a time, of so many tokens each; its time counts as set-up.

        The model attends as transformers loads it.
        """
        config: Any = self.backbone.model.config
        self._attention = config._attn_implementation
        self._attend(attention_for(config))

    def stop(self) -> None:
        """Lets go of what `start` took."""
        if self._attention:
            self._attend(self._attention)
            self._attention = ""

    def _attend(self, implementation: str) -> None:
        model: Any = self.backbone.model
        model.set_attn_implementation(implementation)

    def groups(self, tasks: Sequence[Task], concurrency: int) -> Iterator[Sequence[Task]]:
        """Tasks that are served together; all of them, where one can begin as soon as another ends."""
        yield tasks

    def join(self, requests: Sequence[Request], keep_logits: bool | Sequence[bool] = False) -> list[Flight]:
        """Takes requests, for the next steps to answer."""
        flights = super().join(requests, keep_logits)
        self._groups = []
        self._open += flights
        return flights

    @abstractmethod
    def step(self) -> list[Flight]:
        """Gives requests that have been answered, some at least."""

    def cancel(self, flight: Flight) -> None:
        """Nobody waits for it any more."""
        flight.cancelled = True
        self._open = [other for other in self._open if other is not flight]

    def answered(self, flight: Flight, output: Sequence[int], first_token: float) -> Flight:
        """Fills in what came of a request.

        Args:
            flight: The request.
            output: Token ids, the stop token included where it came.
            first_token: Clock at the first of them, seconds.
        """
        flight.reply.outputs = [tuple(output)]
        flight.reply.first_token_s = first_token - flight.started
        self._open = [other for other in self._open if other is not flight]
        return flight


class Generate(RequestServer):
    """`generate` of transformers: all requests at hand in one batch, padded on the left, run to its end.

    Tasks go in lockstep, a group of as many as may be in flight, which was faster here and answered sooner than to let
    a new one in for each that ends: their steps are alike, and a short step does not wait for another's long one.
    """

    def groups(self, tasks: Sequence[Task], concurrency: int) -> Iterator[Sequence[Task]]:
        """So many tasks at a time."""
        return (tasks[start : start + concurrency] for start in range(0, len(tasks), concurrency))

    def step(self) -> list[Flight]:
        """Answers everything."""
        flights = self.flights
        prompts = [flight.request.fresh[0] for flight in flights]
        width = max(map(len, prompts))
        ids, mask = torch.zeros(2, len(prompts), width, dtype=torch.long, device=self.backbone.device)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        limits = _Limits([flight.request.max_tokens for flight in flights], width, self.clock)
        model: Any = self.backbone.model
        cache = DynamicCache(config=model.config)
        whole = model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=greedy(self.backbone.stops, int(limits.most.max())),
            stopping_criteria=StoppingCriteriaList([limits]),
        )
        self.peak_bytes = max(self.peak_bytes, sum(map(_layer_bytes, cache.layers)))
        outputs = [
            _cut(row[width:].tolist(), self.backbone.stops, flight.request.max_tokens)
            for row, flight in zip(whole, flights, strict=True)
        ]
        return [self.answered(flight, own, limits.first) for flight, own in zip(flights, outputs, strict=True)]


class _Limits(StoppingCriteria):
    """Ends every row at its own limit, which `generate` has for a whole batch only; notes when the first token came."""

    def __init__(self, most: Sequence[int], width: int, clock: Callable[[], float]) -> None:
        self.most, self.width, self.clock, self.first = torch.tensor(most), width, clock, 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:  # type: ignore[override]
        self.first = self.first or self.clock()
        return (input_ids.shape[1] - self.width >= self.most).to(input_ids.device)


def greedy(stops: Sequence[int], most: int) -> GenerationConfig:
    """Greedy decoding as the engine's, whatever a model's own settings are."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        max_new_tokens=most,
        eos_token_id=list(stops),
        pad_token_id=stops[0],
        use_cache=True,
    )


def _cut(ids: Sequence[int], stops: Sequence[int], most: int) -> list[int]:
    """An output without what pads it."""
    end = next((place for place, token in enumerate(ids, start=1) if token in stops), len(ids))
    return list(ids[: min(end, most)])


def _layer_bytes(layer: Any) -> int:
    return tensor_bytes(layer.keys) + tensor_bytes(layer.values)


class Rival(Measured):
    """Serves workflows on a per-request server.

    Args:
        server: Which one.
        backbone: The model.
        library: Operations; all that is asked for decodes greedily.
        config: Settings. ``concurrency`` tasks are in flight and as many requests in the batch; steps never wait for
            others.
        toolbox: What tools use.
    """

    def __init__(
        self, server: type[RequestServer], backbone: Backbone, library: Library, config: EngineConfig, toolbox: ToolBox
    ) -> None:
        config = replace(config, gather=0.0, max_batch=config.concurrency, fidelity=0)
        super().__init__(backbone, library, KVConfig(mode=StateMode.STATEFUL), config, toolbox)
        prompts = {op.name: op.prompt for op in library.operations.values() if op.kind is Kind.LLM}
        self.memory = TextMemory(backbone, self.store, self.decoder, prompts)
        self.calls = Calls(backbone, library, self.memory, config, toolbox, self.stop_clock)
        self.batch: RequestServer = server(backbone, self.store, self.clock)

    def run(self, tasks: Sequence[Task], build: Build) -> Iterator[Episode]:
        """See `Executor.run`; making the server ready is set-up, and nobody's latency."""
        try:
            began = self.clock()
            self.batch.start(self.config.concurrency, self._longest(tasks, build))
            took = self.clock() - began
            self.setup_s += took
            self.stop_clock(took)
            for group in self.batch.groups(tasks, self.config.concurrency):
                yield from super().run(group, build)
        finally:
            self.batch.stop()

    def _longest(self, tasks: Sequence[Task], build: Build) -> int:
        """Tokens of the longest context that tasks can come to, without what tools say."""
        texts = [len(self.backbone.encode(self.backbone.turns.write_task(task.text))) for task in tasks]
        flows = build(tasks)
        return max(self.budget.task(text, flow)[0] for text, flow in zip(texts, flows, strict=True)) // self.budget.kept
