"""What a generator makes of what it has not seen: a benchmark that was left out, an operation that came later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from graphflow.experiment.choosing.exam import Exam, measured
from graphflow.experiment.config import Config
from graphflow.experiment.serve import House, Lesson
from graphflow.generator.outcomes import OutcomeTable
from graphflow.methods.best_fixed import BestFixed
from graphflow.methods.retrieve_top1 import RetrieveTop1
from graphflow.wgraph.wgraph import merge

FAMILY, GROWTH = "left out", "new operation"
LATE = "program"
"""The operation that comes after training: the best workflows of two benchmarks call it."""


def left_out(house: House, exam: Exam, table: OutcomeTable, configs: Sequence[Config], bar: Any) -> Iterator[dict]:
    """For every benchmark: a generator, and the nearest training task, that have seen the others alone.

    Args:
        house: Trains and keeps generators.
        exam: The tasks.
        table: All training outcomes.
        configs: One a seed.
        bar: Outcomes of the best fixed workflows on test tasks.
    """
    kinds = {name: name.removeprefix("mini-") for name in exam.names}
    for name in exam.names:
        rest = table.select(task.id for task in table.tasks() if task.benchmark != name)
        own, beside = replace(exam, names=(name,)), bar[bar["benchmark"] == name]
        made = [house.generator(config, rest, lesson=Lesson({"without": name})) for config in configs]
        nearest = RetrieveTop1(house.library, house.workflows, house.encoder(exam.config), exam.config.generator.reward)
        nearest.fit(rest)
        known = set(rest.workflows)
        picks = {kinds[name]: [one.compose for one in made], f"{kinds[name]}, nearest": [nearest.build_many]}
        for setting, builds in picks.items():
            row = next(measured([own.take("test", build) for build in builds], beside, None, known))
            yield {"factor": FAMILY, "setting": setting, "split": "test", **row}


def grown(house: House, exam: Exam, table: OutcomeTable, configs: Sequence[Config], epochs: int) -> Iterator[dict]:
    """Trained without an operation; put on the graph that has it; after a short update; and trained on all of it.

    Gains are over the best fixed workflows without the operation.

    Args:
        house: Trains and keeps generators.
        exam: The tasks.
        table: All training outcomes.
        configs: One a seed.
        epochs: Of the update.
    """
    early = [flow for flow in house.workflows.values() if all(step.op != LATE for step in flow.steps)]
    before = OutcomeTable()
    before.take(table, [pair for pair in sorted(table.pairs()) if _without(table, pair[1])])
    small, about = merge(early, house.library), {"without": LATE}
    old = [house.generator(config, before, lesson=Lesson(about, small)) for config in configs]
    moved = [one.on(house.wgraph) for one in old]
    short = [replace(c, generator=replace(c.generator, epochs=epochs, patience=epochs)) for c in configs]
    updated = [
        house.generator(config, table, lesson=Lesson({"update of": LATE}, start=one))
        for config, one in zip(short, moved, strict=True)
    ]
    whole = [house.generator(config, table) for config in configs]
    fixed = BestFixed(house.library, {flow.name: flow for flow in early})
    fixed.fit(before)
    bar, known = exam.take("test", fixed.build_many), set(table.workflows)
    stages = {"before": old, "merged": moved, f"{epochs} epochs more": updated, "trained anew": whole}
    for setting, made in stages.items():
        for row in measured([exam.take("test", one.compose) for one in made], bar, None, known):
            yield {"factor": GROWTH, "setting": setting, "split": "test", **row}


def _without(table: OutcomeTable, fingerprint: str) -> bool:
    return all(step.op != LATE for step in table.workflows[fingerprint].steps)
