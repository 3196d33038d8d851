"""One run: tasks arrive, are admitted, their steps run as soon as they are ready, and every task ends in one episode.

Who runs the language-model steps is for a subclass to say: a batch on a backbone (`graphflow.engine.serving`) or a
server (`graphflow.engine.remote`). Everything else about a run is here, and the same for both.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING

from graphflow.engine.call import Call
from graphflow.engine.episode import Episode, StepRecord, Task
from graphflow.engine.failure import attempt
from graphflow.engine.gate import CANCELLED, Arrived, Build, Gate, late
from graphflow.engine.growth import Grow
from graphflow.engine.job import Job
from graphflow.engine.memory import Root
from graphflow.engine.schedule import Schedule, Waiting, scheduler, ways
from graphflow.engine.toolwork import Ready
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Step, Workflow

if TYPE_CHECKING:
    from graphflow.engine.engine import Engine

NAP = 0.05  # seconds at most that an idle run sleeps before it looks for cancellations


class Loop(ABC):
    """The tasks of one run.

    Args:
        engine: Library, tools, clock and settings.
        tasks: In order of arrival.
        build: Gives a workflow for each of some tasks.
        grow: Adds steps to a workflow whose answer is there; None for workflows that are whole from the beginning.
    """

    def __init__(self, engine: Engine, tasks: Sequence[Task], build: Build, grow: Grow | None = None) -> None:
        self.engine, self.config, self.clock = engine, engine.config, engine.clock
        self._gate, self._grow = Gate(tasks, build, self.config, self.clock), grow
        self._jobs: list[Job] = []
        self._queue: list[Waiting] = []
        self._tools: list[Ready] = []
        self._ended: list[Episode] = []
        self._cancelled: set[str] = set()
        self._scheduler, self._numbers = scheduler(Schedule(self.config.scheduler)), count()
        self._ways: dict[str, dict[str, int]] = {}
        self._left_to_measure = self.config.fidelity

    def cancel(self, task_id: str) -> bool:
        """Ends a task before its answer; False if there is none of that name left."""
        known = task_id in self._gate or any(job.task.id == task_id for job in self._jobs)
        if known:
            self._cancelled.add(task_id)
        return known

    def episodes(self) -> Iterator[Episode]:
        """Serves all tasks; gives their episodes as they end."""
        try:
            self._begin_run()
            while self._busy:
                self._expire()  # first: who is cancelled while an episode is handed over makes no more steps
                self._admit()
                self._run_tools()
                self._submit()
                self._step()
                self._run_tools()
                yield from self._close()
                self._nap()
        finally:
            self._end_run()

    @property
    def _busy(self) -> bool:
        """True while an episode is still to come."""
        return bool(self._gate or self._jobs)

    # What runs language-model steps

    @abstractmethod
    def _begin_run(self) -> None:
        """Gets ready for steps."""

    @abstractmethod
    def _end_run(self) -> None:
        """Lets go of everything, also of what is under way."""

    @abstractmethod
    def _take_in(self, admitted: Sequence[tuple[Arrived, Workflow]]) -> None:
        """Begins tasks that are admitted."""

    @abstractmethod
    def _call(self, job: Job, step: Step) -> Call:
        """What a language-model step goes on from."""

    @abstractmethod
    def _submit(self) -> None:
        """Lets steps of the queue run, as far as there are places."""

    @abstractmethod
    def _step(self) -> None:
        """Goes on with the steps that run; reads the outputs of those that end."""

    @abstractmethod
    def _let_go(self, job: Job) -> None:
        """Stops the steps of a task that run."""

    def _reserve(self, job: Job) -> None:  # noqa: B027 (overriding it is optional)
        """Notes what a task can come to take, when it begins and when it grows."""

    # Admission

    def _admit(self) -> None:
        """Lets tasks in that have a place and fit."""
        places = self.config.concurrency - len(self._jobs)
        self._gate.arrive(places)
        here = min(places, len(self._gate.here))
        if here <= 0 or not self._open(here):
            return
        admitted = self._fitting(self._gate.first(here))
        for _ in admitted:
            self._gate.here.popleft()
        if admitted:
            self._take_in(admitted)

    def _open(self, tasks: int = 0) -> bool:
        """True if it is worth while to let in what waits: the steps in the queue, and so many tasks."""
        return True

    def _fitting(self, arriving: list[tuple[Arrived, Workflow]]) -> list[tuple[Arrived, Workflow]]:
        """The first of these tasks that fit beside those in flight; one at least if there are none."""
        return arriving

    def _begin(self, admitted: Sequence[tuple[Arrived, Workflow]], roots: Sequence[Root], started: float) -> None:
        """Makes jobs of tasks whose texts are where contexts begin."""
        for (arrived, workflow), root in zip(admitted, roots, strict=True):
            job = Job(arrived.task, workflow, arrived.at, arrived.build_s, root.branch, self._left_to_measure > 0)
            self._left_to_measure -= 1
            job.episode.waited_s = 0.0 if self._gate.closed else started - arrived.build_s - arrived.at
            record = StepRecord("task", "task", start_s=started - job.arrived, end_s=self.clock() - job.arrived)
            record.prefill_tokens, record.reused_tokens = root.prefilled, root.reused
            job.episode.steps.append(record)
            job.add(root.added)
            self._jobs.append(job)
            self._reserve(job)
            self._look(job)

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
        library, way = self.engine.library, self._ways.setdefault(job.workflow.fingerprint, {})
        for step in ready:
            job.begun.add(step.id)
            if library[step.op].kind is not Kind.LLM:
                self._tools.append((job, step))
                continue
            if step.id not in way:
                way.update(ways(job.workflow, library))
            failure = attempt(lambda step=step: self._enqueue(self._call(job, step), way[step.id]))
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
            self._reserve(job)

    def _enqueue(self, call: Call, way: int) -> None:
        self._queue.append(Waiting(next(self._numbers), call.step.op, call.step.samples, way, what=call))

    def _leave_queue(self, joined: Sequence[Waiting]) -> None:
        gone = {waiting.number for waiting in joined}
        self._queue = [waiting for waiting in self._queue if waiting.number not in gone]

    def _run_tools(self) -> None:
        """Runs tools until none is ready."""
        while self._tools:
            ready, self._tools = [(job, step) for job, step in self._tools if not job.done], []
            self.engine.tools.run(ready)
            for job in dict.fromkeys(job for job, _ in ready):
                self._look(job)

    # Ends

    def _fail(self, job: Job, error: str) -> None:
        """Ends a task before its answer."""
        job.fail(error)
        self._drop(job)

    def _drop(self, job: Job) -> None:
        """Lets go of what a task has under way and in the queue."""
        self._let_go(job)
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
        """Gives the episodes of tasks that have ended."""
        self._collect()
        yield from self._hand_over()

    def _collect(self) -> None:
        """Makes episodes of tasks that have ended."""
        now = self.clock()
        ended = [job for job in self._jobs if job.done]
        if ended:
            self._jobs = [job for job in self._jobs if not job.done]
            self._ended += [self._episode(job, now) for job in ended]

    def _hand_over(self) -> Iterator[Episode]:
        """Gives episodes; what is done with them is nobody's latency."""
        while self._ended:
            episode, handed_over = self._ended.pop(0), time.perf_counter()
            yield episode
            self.engine.stop_clock(time.perf_counter() - handed_over)

    def _episode(self, job: Job, now: float) -> Episode:
        """Closes a task; steps that it no longer needs leave with it."""
        self._drop(job)
        return job.close(now)

    def _nap(self) -> None:
        """Waits for the next arrival where there is nothing else to do."""
        if not self._jobs and not self._gate.here:
            time.sleep(min(NAP, self._gate.next_s))
