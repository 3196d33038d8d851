"""Runs workflows over a backbone: many tasks at once, ready steps of all of them in one batch.

Closed loop: at most ``concurrency`` tasks are in flight; when one is done the next arrives. A task's latency runs from
its admission to its answer, building the workflow, waiting for a batch and tools included; fidelity measurements and
whoever takes the episodes stop the clock.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from graphflow.backbone.gate import check_frame
from graphflow.backbone.load import DTYPES, Backbone
from graphflow.engine.decode import Decoder, Reply, Request
from graphflow.engine.episode import Episode, StepOutput, StepRecord, Task
from graphflow.engine.fidelity import compare
from graphflow.engine.job import Job
from graphflow.engine.parse import LETTERS, parse_choice, parse_output
from graphflow.engine.sandbox import SandboxConfig
from graphflow.engine.state import Branch, Value, common_ancestor, leading
from graphflow.engine.tools import ToolBox, run_batch
from graphflow.engine.tools.vote import vote
from graphflow.kv import KVConfig, OperationStore, StateMode, StoreBytes
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import Step, Workflow

Build = Callable[[Sequence[Task]], list[Workflow]]
SELECTS = "ensemble_select"
HANDS_ON = ("vote", "first_nonempty")


@dataclass
class EngineConfig:
    """Settings of the engine.

    Attributes:
        concurrency: Tasks in flight.
        max_batch: Steps in one decode batch.
        kv_dtype: Dtype in which KV is kept between steps: float32, bfloat16 or float16.
        sample_temperature: Temperature of steps with several samples whose operation is greedy.
        max_tokens_scale: Factor on every operation's token limit; the library's limits suit the mini backbones.
        fidelity: Number of tasks, first ones first, whose steps are compared with exact state.
        seed: Seed of sampling.
        sandbox: Limits for programs.

    Raises:
        ValueError: A field out of range; the message names field, allowed range and value.
    """

    concurrency: int = 16
    max_batch: int = 32
    kv_dtype: str = "bfloat16"
    sample_temperature: float = 0.7
    max_tokens_scale: float = 1.0
    fidelity: int = 0
    seed: int = 0
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __post_init__(self) -> None:
        for name, lowest in (("concurrency", 1), ("max_batch", 1), ("fidelity", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"engine.{name} must be {lowest} or more, got {getattr(self, name)}")
        if self.kv_dtype not in DTYPES:
            raise ValueError(f"engine.kv_dtype must be one of {', '.join(DTYPES)}, got {self.kv_dtype!r}")
        for name in ("sample_temperature", "max_tokens_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"engine.{name} must be above 0, got {getattr(self, name)}")


@dataclass
class _Call:
    """A language-model step with what it goes on from."""

    job: Job
    step: Step
    operation: Operation
    values: list[Value]
    branch: Branch
    request: Request


class Executor:
    """Serves tasks through workflows, with operation state kept as configured.

    Args:
        backbone: The model.
        library: Operations.
        kv: How operation state is kept.
        config: Settings.
        toolbox: What tools use; made from ``config.sandbox`` where None.

    Raises:
        UnsupportedModelError: State is to be shared and the model's keys cannot be moved.
    """

    def __init__(
        self,
        backbone: Backbone,
        library: Library,
        kv: KVConfig,
        config: EngineConfig,
        toolbox: ToolBox | None = None,
    ):
        self.backbone, self.library, self.config = backbone, library, config
        self.toolbox = toolbox or ToolBox(config=config.sandbox)
        self.prompts = {
            op.name: tuple(backbone.encode(backbone.turns.write_operation(op.prompt)))
            for op in library.operations.values()
            if op.kind is Kind.LLM
        }
        self.stopped = 0.0
        self.store = OperationStore(kv, backbone.rope, backbone.shape(DTYPES[config.kv_dtype]))
        self.decoder = Decoder(backbone, self.store, self.clock)
        if kv.mode is not StateMode.STATEFUL:
            check_frame(backbone)
            for name, prompt in self.prompts.items():
                self.store.add_base(name, prompt, self.decoder.bare(prompt))
        self.peak_bytes = 0
        self.closing = tuple(backbone.encode(backbone.turns.closing))

    def clock(self) -> float:
        """Seconds, without the time that fidelity measurements took."""
        return time.perf_counter() - self.stopped

    def store_bytes(self) -> StoreBytes:
        """Bytes of the store now."""
        return self.store.nbytes()

    def run(self, tasks: Sequence[Task], build: Build) -> Iterator[Episode]:
        """Serves tasks.

        Args:
            tasks: The tasks, in order of arrival.
            build: Gives a workflow for each of some tasks; its time counts.

        Yields:
            Episodes in order of completion, one a task.
        """
        waiting, jobs, measured = deque(tasks), [], self.config.fidelity
        while waiting or jobs:
            count = min(len(waiting), self.config.concurrency - len(jobs))
            if count:
                arriving = [waiting.popleft() for _ in range(count)]
                jobs += self._admit(arriving, build, measured)
                measured = max(0, measured - count)
            self._run_tools(jobs)
            calls = [(job, step) for job in jobs if not job.done for step in job.ready()]
            if calls:
                self._run_calls(calls)
            self._count(jobs)
            self._run_tools(jobs)
            now, finished = self.clock(), [job for job in jobs if job.done]
            jobs = [job for job in jobs if not job.done]
            for episode in [job.close(now) for job in finished]:
                handed_over = time.perf_counter()
                yield episode
                self.stopped += time.perf_counter() - handed_over  # what is done with an episode is nobody's latency

    def _admit(self, tasks: list[Task], build: Build, measured: int) -> list[Job]:
        """Builds workflows for arriving tasks and prefills their texts in one batch."""
        arrived = self.clock()
        workflows = build(tasks)
        build_s = self.clock() - arrived
        started = self.clock()
        texts = [self.backbone.encode(self.backbone.turns.write_task(task.text)) for task in tasks]
        contexts = self.decoder.prefill(texts)
        jobs = []
        for index, (task, workflow, context) in enumerate(zip(tasks, workflows, contexts, strict=True)):
            job = Job(task, workflow, arrived, build_s, Branch(context), index < measured)
            record = StepRecord("task", "task", start_s=started - arrived, end_s=self.clock() - arrived)
            record.prefill_tokens = context.length
            job.episode.steps.append(record)
            jobs.append(job)
        return jobs

    def _run_tools(self, jobs: Sequence[Job]) -> None:
        """Runs tool and control steps until none is ready; programs of many tasks in one sandbox batch."""
        while True:
            ready: dict[str, list[tuple[Job, Step]]] = defaultdict(list)
            for job in jobs:
                for step in [] if job.done else job.ready():
                    if self.library[step.op].kind is not Kind.LLM:
                        ready[step.op].append((job, step))
            if not ready:
                return
            for op, pairs in ready.items():
                started = self.clock()
                read = [job.inputs(step) for job, step in pairs]
                given = [
                    (job.task, [value.output for value in values]) for (job, _), values in zip(pairs, read, strict=True)
                ]
                for (job, step), values, output in zip(pairs, read, run_batch(op, given, self.toolbox), strict=True):
                    self._finish_tool(job, step, values, output, started)

    def _finish_tool(self, job: Job, step: Step, values: list[Value], output: StepOutput, started: float) -> None:
        """A step that hands on one of its inputs goes on from that input's branch; a tool's result is dynamic text."""
        if step.op in HANDS_ON:
            chosen = next((value for value in values if value.output.text == output.text), values[0])
            result = Value(output, chosen.branch)
        elif self.library[step.op].kind is Kind.CONTROL:
            result = Value(output, values[0].branch)
        else:
            ids = self.backbone.encode(self.backbone.turns.write_tool(output.text))
            result = Value(output, values[0].branch.extend(ids))
        record = StepRecord(step.id, step.op, start_s=started - job.arrived, end_s=self.clock() - job.arrived)
        record.texts = (output.text,)
        job.finish(step, [result], record)

    def _run_calls(self, ready: Sequence[tuple[Job, Step]]) -> None:
        """Runs language-model steps of any operations in batches."""
        calls = [self._call(job, step) for job, step in ready]
        while calls:
            batch, rows = [], 0
            while calls and (not batch or rows + calls[0].step.samples <= self.config.max_batch):
                rows += calls[0].step.samples
                batch.append(calls.pop(0))
            started = self.clock()
            measured = any(call.job.measured for call in batch)
            replies = self.decoder.generate([call.request for call in batch], keep_logits=measured)
            ended = self.clock()
            for call, reply in zip(batch, replies, strict=True):
                self._finish_call(call, reply, started, ended)

    def _call(self, job: Job, step: Step) -> _Call:
        """What a step goes on from, and the request to the decoder."""
        operation, values = self.library[step.op], job.inputs(step)
        heads = leading(values)
        if len({id(value.branch) for value in heads}) == 1:
            branch = heads[0].branch
        else:
            given = (
                self.backbone.turns.write_given(LETTERS[index], value.output.text) for index, value in enumerate(heads)
            )
            branch = common_ancestor(heads).extend([i for text in given for i in self.backbone.encode(text)])
        temperature = operation.temperature
        if step.samples > 1 and not temperature:
            temperature = self.config.sample_temperature
        request = Request(
            context=branch.context,
            pending=branch.pending,
            op=operation.name,
            prompt=self.prompts[operation.name],
            plan=self.store.plan(operation.name, branch.context.path, operation.judge),
            max_tokens=max(1, round(operation.max_tokens * self.config.max_tokens_scale)),
            temperature=temperature,
            seeds=tuple(_seed(self.config.seed, job.task.id, step.id, sample) for sample in range(step.samples)),
        )
        return _Call(job, step, operation, heads, branch, request)

    def _finish_call(self, call: _Call, reply: Reply, started: float, ended: float) -> None:
        """Reads the outputs of a step and records it."""
        job, branch, request = call.job, call.branch, call.request
        if branch.context is request.context:
            branch.context, branch.pending = reply.trunk, ()
        values, unread = [], 0
        for ids, context in zip(reply.outputs, reply.contexts, strict=True):
            stopped = ids[-1] == self.backbone.stop
            text = self.backbone.decode(ids)
            output, failed = parse_output(call.operation, text)
            after = Branch(context, (*ids[-1:], *(self.closing[1:] if stopped else self.closing)), branch)
            value, missed = self._choose(call, text, Value(output, after))
            values.append(value)
            unread += max(failed, missed)
        record = StepRecord(
            step=call.step.id,
            op=call.operation.name,
            path=request.context.path,
            start_s=started - job.arrived,
            end_s=ended - job.arrived,
            prefill_tokens=reply.prefill_tokens,
            reused_tokens=reply.reused_tokens,
            output_tokens=sum(map(len, reply.outputs)),
            first_token_s=reply.first_token_s,
            fallback=request.plan.fallback,
            parse_fallbacks=unread,
            texts=tuple(self.backbone.decode(ids) for ids in reply.outputs),
        )
        if job.measured:
            self._measure(request, reply, record)
        job.finish(call.step, values, record)
        job.branches += [branch, *(Branch(context) for context in reply.contexts)]

    def _choose(self, call: _Call, text: str, value: Value) -> tuple[Value, int]:
        """A selection hands on the candidate it names, on that candidate's own branch; others their own output."""
        if call.operation.name != SELECTS:
            return value, 0
        candidates = call.values
        index = parse_choice(text, [candidate.output for candidate in candidates])
        if index is not None:
            return candidates[index], 0
        winner = vote(call.job.task, [candidate.output for candidate in candidates], self.toolbox)
        return next((c for c in candidates if c.output.text == winner.text), candidates[0]), 1

    def _measure(self, request: Request, reply: Reply, record: StepRecord) -> None:
        """Compares a step with exact state on its own tokens; the clock stands still meanwhile."""
        began = time.perf_counter()
        before = (*request.context.tokens, *request.pending, *request.prompt)
        rows = [
            compare(self.backbone, before, output, logits)
            for output, logits in zip(reply.outputs, reply.logits, strict=True)
        ]
        record.kl = sum(kl for kl, _ in rows) / len(rows)
        record.agrees = all(agrees for _, agrees in rows)
        self.stopped += time.perf_counter() - began

    def _count(self, jobs: Sequence[Job]) -> None:
        """Notes the peak of everything held: store, contexts of live tasks, the batch's cache."""
        own = sum(sum(job.own_bytes()) for job in jobs)
        self.peak_bytes = max(self.peak_bytes, self.store.nbytes().total + own + self.decoder.cache_bytes)
        self.decoder.cache_bytes = 0


def _seed(seed: int, task: str, step: str, sample: int) -> int:
    """A seed that depends on the task and the step alone, not on what else is in the batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{step}/{sample}".encode()).digest()[:6], "big")
