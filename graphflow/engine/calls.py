"""Language-model steps: what they go on from, what the decoder is asked for, and what its answer is read as."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from graphflow.backbone.load import Backbone
from graphflow.engine.batch import Flight
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepRecord
from graphflow.engine.fidelity import Exact, compare, exact_logits
from graphflow.engine.job import Job
from graphflow.engine.memory import Limits, Memory
from graphflow.engine.parse import LETTERS, parse_choice, parse_output
from graphflow.engine.request import Reply, Request
from graphflow.engine.state import Branch, Value, common_ancestor, leading
from graphflow.engine.tools import ToolBox
from graphflow.engine.tools.vote import vote
from graphflow.engine.weighing import Weigher
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Operation
from graphflow.wgraph.workflow import Step

SELECTS = "ensemble_select"


@dataclass(eq=False)
class Call:
    """A language-model step with what it goes on from."""

    job: Job
    step: Step
    operation: Operation
    values: list[Value]
    branch: Branch


class Calls:
    """Turns steps into requests, and replies into results.

    Attributes:
        exact: Gives the exact logits that steps are compared with.

    Args:
        backbone: The model.
        library: Operations.
        memory: Keeps the state of tasks.
        config: Settings.
        toolbox: What a vote uses, where a selection cannot be read.
        stop_clock: Is told how many seconds a fidelity measurement has taken.
    """

    def __init__(
        self,
        backbone: Backbone,
        library: Library,
        memory: Memory,
        config: EngineConfig,
        toolbox: ToolBox,
        stop_clock: Callable[[float], None],
    ):
        self.backbone, self.library, self.memory = backbone, library, memory
        self.config, self.toolbox, self.stop_clock = config, toolbox, stop_clock
        self.exact: Exact = exact_logits
        self.weigher = Weigher(backbone, memory.store)

    def call(self, job: Job, step: Step) -> Call:
        """What a step goes on from."""
        heads = leading(job.inputs(step))
        if len({id(value.branch) for value in heads}) == 1:
            branch = heads[0].branch
        else:
            given = (
                self.backbone.turns.write_given(LETTERS[index], value.output.text) for index, value in enumerate(heads)
            )
            branch = common_ancestor(heads).extend([i for text in given for i in self.backbone.encode(text)])
        return Call(job, step, self.library[step.op], heads, branch)

    def request(self, call: Call) -> Request:
        """What the decoder is asked for."""
        operation, step = call.operation, call.step
        temperature = operation.temperature
        if step.samples > 1 and not temperature:
            temperature = self.config.sample_temperature
        limits = Limits(
            max_tokens=self.config.max_tokens(operation.max_tokens),
            temperature=temperature,
            seeds=tuple(_seed(self.config.seed, call.job.task.id, step.id, sample) for sample in range(step.samples)),
        )
        return self.memory.request(call.branch, operation, limits)

    def finish(self, call: Call, flight: Flight, ended: float) -> None:
        """Reads the outputs of a step and records it."""
        job, branch, request, reply = call.job, call.branch, flight.request, flight.reply
        self.weigher.see(request, reply)
        after = self.memory.branches(branch, request, reply)
        job.add(self.memory.added())
        values, unread, texts = [], 0, tuple(self.backbone.decode(ids) for ids in reply.outputs)
        for text, own in zip(texts, after, strict=True):
            output, failed = parse_output(call.operation, text)
            value, missed = self._choose(call, text, Value(output, own))
            values.append(value)
            unread += max(failed, missed)
        record = StepRecord(
            step=call.step.id,
            op=call.operation.name,
            path=request.context.path,
            start_s=flight.started - job.arrived,
            end_s=ended - job.arrived,
            prefill_tokens=reply.prefill_tokens,
            reused_tokens=reply.reused_tokens,
            operation_tokens=reply.operation_tokens,
            operation_reused=reply.operation_reused,
            output_tokens=sum(map(len, reply.outputs)),
            first_token_s=reply.first_token_s,
            fallback=request.plan.fallback,
            parse_fallbacks=unread,
            texts=texts,
        )
        if flight.keep_logits and job.measured:
            self._measure(request, reply, record)
        job.finish(call.step, values, record)
        job.branches += [branch, *after]

    def _choose(self, call: Call, text: str, value: Value) -> tuple[Value, int]:
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
        """Compares a step with exact state on its own tokens."""
        began = time.perf_counter()
        before = (*request.context.tokens, *request.pending, *request.prompt)
        rows = [
            compare(self.backbone, before, output, logits, self.exact)
            for output, logits in zip(reply.outputs, reply.logits, strict=True)
        ]
        record.kl = sum(kl for kl, _ in rows) / len(rows)
        record.agrees = all(agrees for _, agrees in rows)
        self.stop_clock(time.perf_counter() - began)


def _seed(seed: int, task: str, step: str, sample: int) -> int:
    """A seed that depends on the task and the step alone, not on what else is in the batch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{step}/{sample}".encode()).digest()[:6], "big")
