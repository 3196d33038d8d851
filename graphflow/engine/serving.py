"""One run: tasks arrive, are admitted, their steps join the batch and leave it, and every task ends in one episode.

Nothing waits for anything else of its kind: between any two tokens tasks may arrive or end, steps may join the batch,
and tools run as soon as they are ready.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from graphflow.engine.batch import Flight
from graphflow.engine.calls import Call
from graphflow.engine.episode import Episode, StepRecord, Task
from graphflow.engine.failure import attempt
from graphflow.engine.gate import CANCELLED, Arrived, Build, Gate, late, never_admitted
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.memory import Root
from graphflow.engine.request import Request
from graphflow.engine.schedule import Schedule, Waiting, scheduler, take, ways
from graphflow.engine.toolwork import Ready
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Workflow

if TYPE_CHECKING:
    from graphflow.engine.executor import Executor

NAP = 0.05  # seconds at most that an idle run sleeps before it looks for cancellations


class Serving:
    """The tasks of one run.

    Args:
        executor: Model, store and settings.
        tasks: In order of arrival.
        build: Gives a workflow for each of some tasks.
        grow: Adds steps to a workflow whose answer is there; None for workflows that are whole from the beginning.
    """

    def __init__(self, executor: Executor, tasks: Sequence[Task], build: Build, grow: Grow | None = None) -> None:
        self.executor, self.config = executor, executor.config
        self.batch, self.memory, self.clock = executor.batch, executor.memory, executor.clock
        self._gate, self._grow = Gate(tasks, build, self.config, self.clock), grow
        self._jobs: list[Job] = []
        self._queue: list[Waiting] = []
        self._tools: list[Ready] = []
        self._calls: dict[Flight, Call] = {}
        self._alone: set[Job] = set()  # their steps join by themselves: the group that they were in has failed
        self._landed: list[Flight] = []  # out of the batch, not yet read
        self._ended: list[Episode] = []
        self._cancelled: set[str] = set()
        self._scheduler, self._numbers = scheduler(Schedule(self.config.scheduler)), count()
        self._ways: dict[str, dict[str, int]] = {}
        self._left_to_measure, self._limit = self.config.fidelity, self.config.memory_bytes
        self._reserved: dict[Job, tuple[int, int]] = {}  # see `Budget.task`
        # A bounded tree of tokens evicts only while no request is open: there, all that is ready runs to its end.
        store = executor.store.config
        self._in_rounds = store.by_tokens and store.store_bytes > 0

    def cancel(self, task_id: str) -> bool:
        """Ends a task before its answer; False if there is none of that name left."""
        known = task_id in self._gate or any(job.task.id == task_id for job in self._jobs)
        if known:
            self._cancelled.add(task_id)
        return known

    def episodes(self) -> Iterator[Episode]:
        """Serves all tasks; gives their episodes as they end."""
        decoder = self.executor.decoder
        decoder.between = self._go_on
        try:
            while self._gate or self._jobs:
                self._expire()  # first: who is cancelled while an episode is handed over makes no more steps
                self._admit()
                self._run_tools()
                self._submit()
                self._step()
                self._run_tools()
                yield from self._close()
                self._nap()
        finally:
            decoder.between = lambda: None
            for flight in self.batch.flights:
                self.batch.cancel(flight)
            self.memory.trim()

    # Admission

    def _admit(self) -> None:
        """Lets tasks in that have a place and fit, and prefills their texts in one batch."""
        places = self.config.concurrency - len(self._jobs)
        self._gate.arrive(places)
        here = min(places, len(self._gate.here))
        if here <= 0 or not self._open(here):
            return
        admitted = self._fitting(self._gate.first(here))
        for _ in admitted:
            self._gate.here.popleft()
        if not admitted:
            return
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
        for (arrived, workflow), root in zip(admitted, roots, strict=True):
            job = Job(arrived.task, workflow, arrived.at, arrived.build_s, root.branch, self._left_to_measure > 0)
            self._left_to_measure -= 1
            job.episode.waited_s = 0.0 if self._gate.closed else started - arrived.build_s - arrived.at
            record = StepRecord("task", "task", start_s=started - job.arrived, end_s=self.clock() - job.arrived)
            record.prefill_tokens, record.reused_tokens = root.prefilled, root.reused
            job.episode.steps.append(record)
            job.add(root.added)
            self._jobs.append(job)
            self._reserved[job] = self._needs(arrived.task, workflow)
            self._look(job)
        self.executor.note_peak(self._jobs)

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

    def _look(self, job: Job) -> None:
        """Queues what a task can do now."""
        if job.done:
            self._add_steps(job)
        if job.done:
            return
        ready = job.ready()
        if job.done:  # its answer was skipped
            return self._look(job)
        library, way = self.executor.library, self._ways.setdefault(job.workflow.fingerprint, {})
        for step in ready:
            job.begun.add(step.id)
            if library[step.op].kind is not Kind.LLM:
                self._tools.append((job, step))
                continue
            if step.id not in way:
                way.update(ways(job.workflow, library))
            failure = attempt(lambda step=step: self._enqueue(self.executor.calls.call(job, step), way[step.id]))
            if failure:
                self._fail(job, f"step {step.id!r}: {failure}")

    def _add_steps(self, job: Job) -> None:
        """Asks what follows an answer; its time is part of the task's, what it raises its failure."""
        if self._grow is None or job.whole or job.error:
            return
        began, found = self.clock(), list[Workflow]()
        grow, outputs = self._grow, job.outputs()
        failure = attempt(lambda: found.extend(filter(None, [grow(job.task, job.workflow, outputs)])))
        job.episode.build_s += self.clock() - began
        job.whole = not found
        failure = failure or (attempt(lambda: job.grow(found[0])) if found else "")
        if failure:
            self._fail(job, f"step {job.workflow.answer!r}: {failure}")
        else:
            self._reserved[job] = self._needs(job.task, job.workflow)

    def _enqueue(self, call: Call, way: int) -> None:
        self._queue.append(Waiting(next(self._numbers), call.step.op, call.step.samples, way, what=call))

    def _run_tools(self) -> None:
        """Runs tools until none is ready."""
        while self._tools:
            ready, self._tools = [(job, step) for job, step in self._tools if not job.done], []
            self.executor.tools.run(ready)
            for job in dict.fromkeys(job for job, _ in ready):
                self._look(job)

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
        return held + growth + budget.caches(flights, requests) <= self._limit

    def _join(self, joining: Sequence[tuple[Waiting, Request]]) -> None:
        """Puts requests into the batch."""
        calls = [waiting.what for waiting, _ in joining]
        requests = [request for _, request in joining]
        flights = self.batch.join(requests, [call.job.measured for call in calls])
        gone = {waiting.number for waiting, _ in joining}
        self._queue = [waiting for waiting in self._queue if waiting.number not in gone]
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

    def _fail(self, job: Job, error: str) -> None:
        """Ends a task before its answer."""
        job.fail(error)
        self._drop(job)

    def _drop(self, job: Job) -> None:
        """Lets go of what a task has in the batch and in the queue."""
        for flight in self.batch.flights:
            if self._calls[flight].job is job:
                self.batch.cancel(flight)
                del self._calls[flight]
        self._queue = [waiting for waiting in self._queue if waiting.what.job is not job]

    def _expire(self) -> None:
        """Ends tasks that are cancelled or out of time, admitted or not."""
        now, limit = self.clock(), self.config.timeout_s
        for job in self._jobs:
            if job.done:
                continue
            if job.task.id in self._cancelled:
                self._fail(job, CANCELLED)
            elif 0 < limit < now - job.arrived:
                self._fail(job, late(limit))
        if limit or self._cancelled:
            self._ended += self._gate.expire(self._cancelled, limit)
            self._cancelled.clear()

    def _close(self) -> Iterator[Episode]:
        """Gives the episodes of tasks that have ended; what is done with them is nobody's latency."""
        now = self.clock()
        ended = [job for job in self._jobs if job.done]
        if ended:
            self._jobs = [job for job in self._jobs if not job.done]
            self._ended += [self._episode(job, now) for job in ended]
        while self._ended:
            episode, handed_over = self._ended.pop(0), time.perf_counter()
            yield episode
            self.executor.stop_clock(time.perf_counter() - handed_over)

    def _episode(self, job: Job, now: float) -> Episode:
        """Closes a task; steps that it no longer needs leave with it."""
        self._drop(job)
        self._alone.discard(job)
        del self._reserved[job]
        return job.close(now)

    def _nap(self) -> None:
        """Waits for the next arrival where there is nothing else to do."""
        if not self._jobs and not self._gate.here:
            time.sleep(min(NAP, self._gate.next_s))
