"""Language-model steps on a backbone: what the decoder is asked for, and what its answer is read as."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from graphflow.backbone.load import Backbone
from graphflow.engine.batch import Flight
from graphflow.engine.call import Call, limits, open_call, read_outputs
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepRecord
from graphflow.engine.fidelity import Exact, compare, exact_logits
from graphflow.engine.job import Job
from graphflow.engine.memory import Memory
from graphflow.engine.request import Reply, Request
from graphflow.engine.state import Branch
from graphflow.engine.tools import ToolBox
from graphflow.engine.weighing import Weigher
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Step


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
        return open_call(job, step, self.library, self._join)

    def request(self, call: Call) -> Request:
        """What the decoder is asked for."""
        return self.memory.request(call.branch, call.operation, limits(call, self.config))

    def finish(self, call: Call, flight: Flight, ended: float) -> None:
        """Reads the outputs of a step and records it."""
        job, branch, request, reply = call.job, call.branch, flight.request, flight.reply
        self.weigher.see(request, reply)
        after = self.memory.branches(branch, request, reply)
        job.add(self.memory.added())
        texts = tuple(self.backbone.decode(ids) for ids in reply.outputs)
        values, unread = read_outputs(call, texts, after, self.toolbox)
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

    def _join(self, branch: Branch, given: Sequence[tuple[str, str]]) -> Branch:
        """See `graphflow.engine.call.Join`: the outputs as labelled text."""
        texts = (self.backbone.turns.write_given(letter, text) for letter, text in given)
        return branch.extend([i for text in texts for i in self.backbone.encode(text)])

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
