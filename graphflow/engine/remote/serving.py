"""A run on a server: every sample of a language-model step is one request, at most ``engine.concurrency`` at a time.

The server, not the task, may be at fault where a request fails or a task runs out of time. Episodes that end so are
held back until the server has answered a greeting that was sent afterwards: then the failures are the tasks' own, and
they are handed over. If it does not answer, the run ends with that error, after all other episodes that were there have
been handed over; a task that failed so has no episode, and the next run serves it (our choice).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphflow.backbone.server import Answer
from graphflow.engine.call import Call, limits, open_call, read_outputs
from graphflow.engine.episode import Episode, StepRecord, Task
from graphflow.engine.failure import attempt
from graphflow.engine.gate import LATE, Arrived, Build
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.loop import NAP, Loop
from graphflow.engine.memory import Root
from graphflow.engine.remote.dialogue import begin, join, messages, spoken
from graphflow.engine.remote.line import Line
from graphflow.engine.schedule import take
from graphflow.wgraph.workflow import Step, Workflow

if TYPE_CHECKING:
    from graphflow.engine.remote.executor import RemoteExecutor

Came = tuple[Answer, float]
"""An answer, and the clock when it came."""


@dataclass(eq=False)
class Sent:
    """A step that the server has.

    Attributes:
        call: The step.
        started: Clock when it was sent.
        requests: One a sample.
    """

    call: Call
    started: float
    requests: list[Future[Came]]

    @property
    def ended(self) -> bool:
        """True once every sample is there, or one has failed."""
        done = [request for request in self.requests if request.done()]
        return len(done) == len(self.requests) or any(request.exception() for request in done)

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        for request in self.requests:
            request.cancel()


class RemoteServing(Loop):
    """The tasks of one run.

    Args:
        executor: Server and settings.
        tasks: In order of arrival.
        build: Gives a workflow for each of some tasks.
        grow: Adds steps to a workflow whose answer is there; None for workflows that are whole from the beginning.
    """

    def __init__(self, executor: RemoteExecutor, tasks: Sequence[Task], build: Build, grow: Grow | None = None) -> None:
        super().__init__(executor, tasks, build, grow)
        self.executor, self._server = executor, executor.server
        self._line: Line | None = None
        self._places = asyncio.Semaphore(self.config.concurrency)
        self._sent: list[Sent] = []
        self._failed: set[str] = set()  # tasks that a request of theirs has failed
        self._held: list[Episode] = []  # until a greeting is answered that is still to be sent
        self._greeted_for: list[Episode] = []  # until the greeting is answered that was sent
        self._greeting: Future[None] | None = None

    @property
    def line(self) -> Line:
        """Where requests go, opened when the first one does."""
        self._line = self._line or Line(self._server)
        return self._line

    @property
    def _busy(self) -> bool:
        return bool(super()._busy or self._held or self._greeted_for)

    def _begin_run(self) -> None:
        """Greets the server, once for all runs.

        Raises:
            BackboneError: It does not answer as it should.
        """
        if not self.executor.greeted:
            self.line.send(self._server.greet()).result()
            self.executor.greeted = True

    def _end_run(self) -> None:
        """Gives up what is under way."""
        if self._line:
            self._line.close()

    def _take_in(self, admitted: Sequence[tuple[Arrived, Workflow]]) -> None:
        """Begins dialogues; nothing is sent yet."""
        roots = [Root(begin(arrived.task.text), 0) for arrived, _ in admitted]
        self._begin(admitted, roots, self.clock())

    # Steps

    def _call(self, job: Job, step: Step) -> Call:
        """What a language-model step goes on from."""
        return open_call(job, step, self.engine.library, join)

    def _submit(self) -> None:
        """Sends steps in the scheduler's order, as far as there are places; one of more samples than places alone."""
        if not self._queue:
            return
        ordered = self._scheduler.order(self._queue)
        chosen = take(ordered, self.config.concurrency - sum(len(sent.requests) for sent in self._sent))
        if not self._sent:
            chosen = chosen or ordered[:1]
        self._leave_queue(chosen)
        for waiting in chosen:
            call: Call = waiting.what
            failure = attempt(lambda call=call: self._send(call))
            if failure:
                self._fail(call.job, f"step {call.step.id!r}: {failure}")

    def _send(self, call: Call) -> None:
        """Sends one request a sample."""
        if call.job.done:
            return
        said, how = messages(spoken(call.branch).asked(call.operation)), limits(call, self.config)

        async def request(seed: int) -> Came:
            async with self._places:  # a step may have more samples than there are places
                return await self._server.ask(said, how.max_tokens, how.temperature, seed), self.clock()

        self._sent.append(Sent(call, self.clock(), [self.line.send(request(seed)) for seed in how.seeds]))

    def _step(self) -> None:
        """Waits for answers, not for long: tasks may arrive, run out of time or be cancelled meanwhile."""
        under_way: list[Future[Any]] = [self._greeting] if self._greeting else []
        under_way += [request for sent in self._sent for request in sent.requests if not request.done()]
        if under_way and not any(sent.ended for sent in self._sent):
            wait(under_way, min(NAP, self._gate.next_s or NAP), FIRST_COMPLETED)
        ended = [sent for sent in self._sent if sent.ended]
        self._sent = [sent for sent in self._sent if sent not in ended]
        for sent in ended:
            job = sent.call.job
            if job.error:
                continue
            failure = attempt(lambda sent=sent: self._finish(sent))
            if failure:
                sent.give_up()
                self._failed.add(job.task.id)
                self._fail(job, f"step {sent.call.step.id!r}: {failure}")
            self._look(job)

    def _finish(self, sent: Sent) -> None:
        """Reads the outputs of a step and records it."""
        call, answers = sent.call, [request.result() for request in sent.requests]
        texts = tuple(answer.text for answer, _ in answers)
        after = [spoken(call.branch).answered(call.operation, text) for text in texts]
        values, unread = read_outputs(call, texts, after, self.engine.toolbox)
        cached = sum(answer.cached_tokens for answer, _ in answers)
        record = StepRecord(
            step=call.step.id,
            op=call.operation.name,
            path=call.branch.context.path,
            start_s=sent.started - call.job.arrived,
            end_s=max(came for _, came in answers) - call.job.arrived,
            prefill_tokens=sum(answer.prompt_tokens for answer, _ in answers) - cached,
            reused_tokens=cached,
            output_tokens=sum(answer.output_tokens for answer, _ in answers),
            parse_fallbacks=unread,
            texts=texts,
        )
        call.job.finish(call.step, values, record)

    def _let_go(self, job: Job) -> None:
        """Gives up the requests of a task."""
        for sent in self._sent:
            if sent.call.job is job:
                sent.give_up()
        self._sent = [sent for sent in self._sent if sent.call.job is not job]

    # Ends

    def _collect(self) -> None:
        """Makes episodes, and holds back those that the server may be to blame for."""
        super()._collect()
        held = [own for own in self._ended if own.task_id in self._failed or own.error.startswith(LATE)]
        self._held += held
        self._ended = [own for own in self._ended if own not in held]

    def _close(self) -> Iterator[Episode]:
        """Gives the episodes that are beyond doubt.

        Raises:
            BackboneError: The server does not answer any more.
        """
        yield from super()._close()
        if self._greeting and self._greeting.done():
            self._greeting.result()
            self._ended, self._greeted_for, self._greeting = self._greeted_for, [], None
            yield from self._hand_over()
        if self._held and not self._greeting:
            self._greeted_for, self._held = self._held, []
            self._greeting = self.line.send(self._server.greet())
