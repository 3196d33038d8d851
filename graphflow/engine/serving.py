"""A run on a backbone: steps join the running batch and leave it, between any two tokens.

Nothing waits for anything else of its kind: between any two tokens tasks may arrive or end, steps may join the batch,
and tools run as soon as they are ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphflow.engine.batch import Flight
from graphflow.engine.call import Call
from graphflow.engine.episode import Episode, Task
from graphflow.engine.failure import attempt
from graphflow.engine.gate import Arrived, Build, never_admitted
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.loop import Loop
from graphflow.engine.memory import Root
from graphflow.engine.request import Request
from graphflow.engine.schedule import Schedule, Waiting, take
from graphflow.wgraph.workflow import Step, Workflow

if TYPE_CHECKING:
    from graphflow.engine.executor import Executor


class Serving(Loop):
    """The tasks of one run.

    Args:
        executor: Model, store and settings.
        tasks: In order of arrival.
        build: Gives a workflow for each of some tasks.
        grow: Adds steps to a workflow whose answer is there; None for workflows that are whole from the beginning.
    """

    def __init__(self, executor: Executor, tasks: Sequence[Task], build: Build, grow: Grow | None = None) -> None:
        super().__init__(executor, tasks, build, grow)
        self.executor = executor
        self.batch, self.memory = executor.batch, executor.memory
        self._calls: dict[Flight, Call] = {}
        self._alone: set[Job] = set()  # their steps join by themselves: the group that they were in has failed
        self._landed: list[Flight] = []  # out of the batch, not yet read
        self._limit = self.config.memory_bytes
        self._reserved: dict[Job, tuple[int, int]] = {}  # see `Budget.task`
        # A bounded tree of tokens evicts only while no request is open: there, all that is ready runs to its end.
        store = executor.store.config
        self._in_rounds = store.by_tokens and store.store_bytes > 0

    def _begin_run(self) -> None:
        """Lets prefills of tasks go on with the batch."""
        self.executor.decoder.between = self._go_on

    def _end_run(self) -> None:
        """Leaves nothing in the batch."""
        self.executor.decoder.between = lambda: None
        for flight in self.batch.flights:
            self.batch.cancel(flight)
        self.memory.trim()

    # Admission

    def _take_in(self, admitted: Sequence[tuple[Arrived, Workflow]]) -> None:
        """Prefills the texts of tasks in one batch."""
        started, roots = self.clock(), list[Root]()
        texts = [arrived.task.text for arrived, _ in admitted]
        if attempt(lambda: roots.extend(self.memory.begin(texts))):
            self._begin_one_by_one(admitted, started)
        else:
            self._begin(admitted, roots, started)

    def _begin_one_by_one(self, admitted: Sequence[tuple[Arrived, Workflow]], started: float) -> None:
        """Begins each of some tasks by itself, so that the one at fault fails alone."""
        for arrived, workflow in admitted:
            roots, text = list[Root](), arrived.task.text
            failure = attempt(lambda roots=roots, text=text: roots.extend(self.memory.begin([text])))
            if failure:
                waited = self.clock() - arrived.at
                self._ended.append(never_admitted(arrived.task, waited, f"step 'task': {failure}"))
            else:
                self._begin([(arrived, workflow)], roots, started)

    def _begin(self, admitted: Sequence[tuple[Arrived, Workflow]], roots: Sequence[Root], started: float) -> None:
        """Makes jobs of tasks whose texts have been prefilled."""
        super()._begin(admitted, roots, started)
        self.executor.note_peak(self._jobs)

    def _reserve(self, job: Job) -> None:
        """Notes what a task can come to take."""
        self._reserved[job] = self._needs(job.task, job.workflow)

    def _needs(self, task: Task, workflow: Workflow) -> tuple[int, int]:
        """What a task can come to take, see `Budget.task`; nothing where there is no limit."""
        if not self._limit:
            return 0, 0
        backbone = self.executor.backbone
        return self.executor.budget.task(len(backbone.encode(backbone.turns.write_task(task.text))), workflow)

    def _fitting(self, arriving: list[tuple[Arrived, Workflow]]) -> list[tuple[Arrived, Workflow]]:
        """The first of these tasks that fit beside those in flight; one at least if there are none."""
        if not self._limit:
            return arriving
        needs = [self._reserved[job] for job in self._jobs]
        held = (sum(job.held_bytes()) for job in self._jobs)
        kept = self.memory.nbytes().total + sum(max(own, need) for own, (need, _) in zip(held, needs, strict=True))
        batch, admitted = max((batch for _, batch in needs), default=0), []
        for arrived, workflow in arriving:
            own = self._needs(arrived.task, workflow)
            kept, batch = kept + own[0], max(batch, own[1])
            if kept + batch > self._limit and (self._jobs or admitted):
                break
            admitted.append((arrived, workflow))
        return admitted

    # Steps

    def _call(self, job: Job, step: Step) -> Call:
        """What a language-model step goes on from."""
        return self.executor.calls.call(job, step)

    def _open(self, tasks: int = 0) -> bool:
        """True if it is worth while to let in what waits: the steps in the queue, and so many tasks."""
        if self._in_rounds:
            return not self.batch.flights
        ready = tasks + sum(waiting.rows for waiting in self._queue)
        return ready >= self.config.gather * self.batch.rows

    def _submit(self) -> None:
        """Lets steps join the batch, in the scheduler's order, as far as there are places and bytes."""
        idle = not self.batch.flights
        if not self._queue or self.batch.joining or not self._open():
            return
        if self.config.scheduler == Schedule.RESIDENT_FIRST.value:
            for waiting in self._queue:
                waiting.resident = self.executor.prefetch.resident(waiting.op, waiting.what.branch.context.path)
        ordered = self._scheduler.order(self._queue)
        chosen = take(ordered, self.config.max_batch - self.batch.rows)
        alone = [waiting for waiting in chosen if waiting.what.job in self._alone]
        chosen = alone[:1] or chosen
        if idle:
            chosen = chosen or ordered[:1]
        joining = self._requests(chosen)
        if idle and chosen and not joining:  # too large for what the tasks in flight have left: any that fits, alone
            joining = next(filter(None, (self._requests([waiting]) for waiting in ordered)), [])
            if not joining and self._queue:
                job = ordered[0].what.job
                self._fail(job, f"memory: {ordered[0].op!r} does not fit into engine.memory_bytes={self._limit:,}")
        if joining:
            self._join(joining)

    def _requests(self, chosen: Sequence[Waiting]) -> list[tuple[Waiting, Request]]:
        """Requests of the first of these steps that fit together; a step that cannot be asked for fails its task."""
        made: list[tuple[Waiting, Request]] = []
        for waiting in chosen:
            call: Call = waiting.what
            if call.job.done:
                continue
            found: list[Request] = []
            failure = attempt(lambda call=call, found=found: found.append(self.executor.calls.request(call)))
            if failure:
                self._fail(call.job, f"step {call.step.id!r}: {failure}")
            elif not self._fits([*(request for _, request in made), *found]):
                break
            else:
                made.append((waiting, found[0]))
        return made

    def _fits(self, requests: Sequence[Request]) -> bool:
        """True if requests can join now, with all that they and those in the batch can grow to."""
        if not self._limit:
            return True
        flights, budget = self.batch.flights, self.executor.budget
        held = self.memory.nbytes().total + sum(sum(job.held_bytes()) for job in self._jobs)
        growth = sum(map(budget.keeps, (*(flight.request for flight in flights), *requests)))
        return held + growth + budget.caches(flights, requests, self.batch.nbytes) <= self._limit

    def _join(self, joining: Sequence[tuple[Waiting, Request]]) -> None:
        """Puts requests into the batch."""
        calls = [waiting.what for waiting, _ in joining]
        requests = [request for _, request in joining]
        flights = self.batch.join(requests, [call.job.measured for call in calls])
        self._leave_queue([waiting for waiting, _ in joining])
        for call, request, flight in zip(calls, requests, flights, strict=True):
            self._calls[flight] = call
            self.executor.prefetch.note(request.op, request.context.path, request.plan)
            self.executor.prefetch.expect(call.job, call.step, request.context.path)

    def _go_on(self) -> None:
        """Runs the batch for one token."""
        self._landed += self.batch.step()

    def _step(self) -> None:
        """Runs the batch for one token; reads the outputs of the steps that end."""
        if not self.batch.flights and not self._landed:
            return
        grouped = len(self.batch.flights) > 1
        self._go_on()
        ended, self._landed, now = self._landed, [], self.clock()
        for flight in ended:
            call = self._calls.pop(flight)
            failure = flight.failure
            if failure and grouped and call.job not in self._alone:
                self._alone.add(call.job)  # the whole group has failed: each of it is tried by itself
                self._enqueue(call, self._ways[call.job.workflow.fingerprint][call.step.id])
                continue
            if call.job.error:
                continue
            failure = failure or attempt(lambda call=call, f=flight: self.executor.calls.finish(call, f, now))
            if failure:
                self._fail(call.job, f"step {call.step.id!r}: {failure}")
            self._look(call.job)
        if ended:
            self.executor.note_peak(self._jobs)
            if not self.batch.flights:
                self.memory.trim()
        self.executor.prefetch.advance()

    # Ends

    def _let_go(self, job: Job) -> None:
        """Takes what a task has in the batch out of it."""
        for flight in self.batch.flights:
            if self._calls[flight].job is job:
                self.batch.cancel(flight)
                del self._calls[flight]

    def _episode(self, job: Job, now: float) -> Episode:
        """Closes a task."""
        episode = super()._episode(job, now)
        self._alone.discard(job)
        del self._reserved[job]
        return episode
