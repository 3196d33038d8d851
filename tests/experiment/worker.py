"""One cell with a server that needs no model: `python -m tests.experiment.worker RUNS_DIR TASKS SECONDS_A_TASK`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from graphflow.benchmarks.base import Example
from graphflow.engine.episode import Episode, Task
from graphflow.experiment.compose import compose
from graphflow.experiment.run import Job, Server, run_cell
from tests.experiment import fakes


def job(runs_dir: str, tasks: int, pause: float, served: list[str]) -> Job:
    config = compose([f"machine.runs_dir={runs_dir}", "tracking=none", "benchmark=mini-mbpp"])
    examples = [Example(Task(f"t{i}", "mini-mbpp", "mbpp", "?"), "b") for i in range(tasks)]

    def run(part: Sequence[Task]) -> Iterator[Episode]:
        for task in reversed(part):
            time.sleep(pause)
            served.append(task.id)
            yield replace(fakes.episode(task.id), latency_s=0.5)

    def open_server() -> Server:
        return Server(
            examples=examples,
            warmup=[],
            run=run,
            score=lambda asked, answers: [float(a == e.reference) for e, a in zip(asked, answers, strict=True)],
            shared_bytes=lambda: 100 + len(served),
            peak_bytes=lambda: 1000,
        )

    return Job(config, {"repository": "r", "benchmark_version": 4}, open_server, "pass@1")


def main() -> None:
    runs_dir, tasks, pause = sys.argv[1:]
    served: list[str] = []
    work = job(runs_dir, int(tasks), float(pause), served)
    print(work.run_dir.path, flush=True)
    run_cell(work)
    print("served", len(served))


if __name__ == "__main__":
    main()
