"""Fixed contexts: what a stateful run wrote is written again, token by token, whatever the state mode (our choice).

Free-running modes drift apart after their first different token, and a divergence measured on different texts compares
nothing. Here every mode sees the same tasks, paths and outputs, so that only the KV differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from graphflow.backbone.cache import ResidualCache
from graphflow.benchmarks.base import Benchmark, Example
from graphflow.engine.batch import Batch, Flight, Row
from graphflow.engine.decode import Decoder
from graphflow.engine.episode import Episode, Task
from graphflow.engine.executor import Executor
from graphflow.engine.gate import Build
from graphflow.engine.request import Reply, Request
from graphflow.experiment.run import Server

Written = dict[int, tuple[int, ...]]
"""Outputs by the seed of their sample, which task, step and number of the sample determine."""
OUTPUTS = "outputs.jsonl"


class Recorder(Decoder):
    """Generates as ever and notes every output in a file, flushed group by group."""

    def __init__(self, like: Decoder, file: Path) -> None:
        super().__init__(like.backbone, like.store, like.clock, like.chunk, like.padding)
        self.file = file

    def generate(self, requests: Sequence[Request], keep_logits: bool = False) -> list[Reply]:
        """See `Decoder.generate`."""
        replies = super().generate(requests, keep_logits)
        with self.file.open("a", encoding="utf-8") as handle:
            for request, reply in zip(requests, replies, strict=True):
                for seed, output in zip(request.seeds, reply.outputs, strict=True):
                    handle.write(json.dumps([seed, output]) + "\n")
        return replies


class Replay(Batch):
    """A batch that writes what was written before; one forward pass over all outputs of a group that joins."""

    written: Written

    def _begin(
        self, cache: ResidualCache, hidden: Tensor, rows: list[Row], places: list[int]
    ) -> tuple[list[int], list[Flight]]:
        """Fills every row with its output, the logits that it would have been chosen from, and its KV."""
        if not rows:
            return [], []
        outputs = [self.written[row.generator.initial_seed()] for row in rows]
        index = torch.tensor(places, device=hidden.device)
        cache.select(index)
        first, width = cache.slots, max(map(len, outputs)) - 1
        logits = [self.backbone.logits(hidden[index]).cpu()[:, None]]
        if width:
            ids = torch.zeros(len(rows), width, dtype=torch.long)
            positions = torch.full((len(rows), width), -1)
            for place, (row, output) in enumerate(zip(rows, outputs, strict=True)):
                count = len(output) - 1
                ids[place, :count] = torch.tensor(output[:-1], dtype=torch.long)
                positions[place, :count] = torch.arange(row.first, row.first + count)
            states = self.backbone.forward(ids.to(hidden.device), positions.to(hidden.device), cache)
            logits.append(self.backbone.logits(states).cpu())
        whole = torch.cat(logits, dim=1)
        self._count()
        ended = []
        for place, (row, output) in enumerate(zip(rows, outputs, strict=True)):
            row.output = list(output)
            row.logits = list(whole[place, : len(output)]) if row.flight.keep_logits else []
            if self._end(row, cache, place, first + len(output) - 1):
                ended.append(row.flight)
        return [], ended


class Replayer(Decoder):
    """Writes what was written before."""

    def __init__(self, like: Decoder, written: Written) -> None:
        super().__init__(like.backbone, like.store, like.clock, like.chunk, like.padding)
        self.written = written

    def open(self) -> Replay:
        """An empty batch that writes what was written before."""
        batch = Replay(self.backbone, self.store, self.clock, self.chunk, self.padding)
        batch.written = self.written
        return batch


class AtOnce(Batch):
    """Runs every group that joins to its end, by `Decoder.generate`: for decoders that look at its replies."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(decoder.backbone, decoder.store, decoder.clock)
        self.decoder = decoder
        self._ended: list[Flight] = []

    @property
    def flights(self) -> list[Flight]:
        """Requests that have been answered and not been handed over."""
        return list(self._ended)

    def join(self, requests: Sequence[Request], keep_logits: bool | Sequence[bool] = False) -> list[Flight]:
        """Answers requests; the next step hands them over."""
        started = self.clock()
        replies = self.decoder.generate(requests, keep_logits if isinstance(keep_logits, bool) else any(keep_logits))
        flights = [
            Flight(request, reply, started, bool(reply.logits), 0)
            for request, reply in zip(requests, replies, strict=True)
        ]
        self._ended += flights
        return flights

    def step(self) -> list[Flight]:
        """Hands over what has joined."""
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, flight: Flight) -> None:
        """Hands nothing over."""
        self._ended = [other for other in self._ended if other is not flight]


def use(executor: Executor, decoder: Decoder) -> Executor:
    """Let an executor run its requests on another decoder, group by group."""
    executor.decoder = executor.memory.decoder = decoder
    executor.batch = AtOnce(decoder)
    return executor


def read_outputs(file: Path) -> Written:
    """What a `Recorder` noted."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return {int(seed): tuple(output) for seed, output in map(json.loads, lines)}


def server(
    executor: Executor,
    examples: Sequence[Example],
    warmup: Sequence[Example],
    build: Build,
    benchmarks: Mapping[str, Benchmark],
    shared_bytes: Callable[[], int] | None = None,
) -> Server:
    """A server of tasks of any benchmarks, each scored by its own.

    Args:
        executor: Serves them.
        examples: What is served.
        warmup: What is served first and not measured.
        build: Gives the workflows.
        benchmarks: By name.
        shared_bytes: What counts as shared; base and residuals where None.
    """

    def score(asked: Sequence[Example], answers: Sequence[str]) -> list[float]:
        found = [0.0] * len(asked)
        for name, benchmark in benchmarks.items():
            own = [place for place, example in enumerate(asked) if example.task.benchmark == name]
            values = benchmark.score_many([asked[i] for i in own], [answers[i] for i in own]) if own else []
            for place, value in zip(own, values, strict=True):
                found[place] = value
        return found

    config = executor.config

    def run(tasks: Sequence[Task]) -> Iterator[Episode]:
        warming = bool(tasks) and tasks[0].id.startswith("warmup/")
        executor.config = replace(config, fidelity=0) if warming else config
        return executor.run(tasks, build)

    def operation_bytes() -> int:
        held = executor.store_bytes()
        return held.base + held.residual

    return Server(
        examples=examples,
        warmup=[example.task for example in warmup],
        run=run,
        score=score,
        shared_bytes=shared_bytes or operation_bytes,
        peak_bytes=lambda: executor.peak_bytes,
    )
