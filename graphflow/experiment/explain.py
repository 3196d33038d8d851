"""`graphflow explain`: the workflow that the generator picks for one task, and why, in tables and as a picture."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from graphflow.benchmarks.base import Example
from graphflow.engine.episode import Task
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.experiment.progress import work_progress
from graphflow.experiment.serve import House
from graphflow.experiment.single import learn, learning_units
from graphflow.generator.explanation import Explanation, explain, nearest, rewards
from graphflow.generator.generator import Generator
from graphflow.generator.outcomes import OutcomeTable
from graphflow.wgraph.draw import draw
from graphflow.wgraph.step import Step

SHOWN = 6  # candidates in the table
NEIGHBOURS = 12  # training tasks that are looked at


def report_choice(config: Config, task: str, text: str, path: str, console: Console) -> Explanation:
    """Explain one choice; what the generator learns from is executed first where it is not there yet.

    Args:
        config: Backbone, benchmark, generator.
        task: Id of a task of the benchmark's split, or its number there from 0.
        text: A task in one's own words instead, of the benchmark's kind.
        path: Picture to draw, ``.png`` or ``.svg``; empty for ``explain.png`` in the results' figures.
        console: Where it is printed.

    Raises:
        ConfigError: Neither or both of ``task`` and ``text``, no such task, or a path of another suffix.
    """
    house, file = House(), Path(path or Path(config.machine.results_dir) / "figures" / "explain.png")
    if file.suffix not in (".png", ".svg"):
        raise ConfigError(f"path must end in .png or .svg, got {path!r}")
    if bool(task) == bool(text):
        raise ConfigError("explain needs task=NUMBER, task=ID or text='...', one of them")
    examples = house.examples(config)
    asked = find(examples, task) if task else Task("text", config.benchmark.name, examples[0].task.kind, text)
    units = learning_units(house, config)
    if units:
        with work_progress(units, console) as progress:
            learn(house, config, units, progress)
    table = house.outcomes(config)
    generator = house.generator(config, table)
    found = explain(generator, asked)
    show(found, generator, table, console)
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(generator.wgraph, file, found.use)
    console.print(f"drawn, an edge the darker the more probable it is: {file}", highlight=False)
    return found


def find(examples: list[Example], wanted: str) -> Task:
    """The task with this id, or this number from 0.

    Raises:
        ConfigError: There is none.
    """
    tasks = {example.task.id: example.task for example in examples}
    if wanted in tasks:
        return tasks[wanted]
    if wanted.isdecimal() and int(wanted) < len(examples):
        return examples[int(wanted)].task
    raise ConfigError(
        f"task must be a number from 0 to {len(examples) - 1} or an id such as {examples[0].task.id!r}, got {wanted!r}"
    )


def show(found: Explanation, generator: Generator, table: OutcomeTable, console: Console) -> None:
    """Print what was picked, what else there was, where they part, and what training saw on tasks like this one."""
    library = generator.wgraph.library
    console.print(f"task {found.task.id}: {found.task.text}\n", highlight=False, markup=False)
    console.print(f"picked: {found.workflow.name}", highlight=False)
    for step in found.workflow.steps:
        console.print(f"  {_step(step, found.workflow.answer)}", highlight=False, markup=False)
    like = nearest(generator, table, found.task, NEIGHBOURS)
    near, everywhere = rewards(generator, table, like), rewards(generator, table, table.tasks())
    mark = found.workflow.fingerprint
    rows = [
        candidate
        for place, candidate in enumerate(found.candidates)
        if place < SHOWN or candidate.workflow.fingerprint == mark
    ]
    candidates = Table(
        title=f"considered: {len(found.candidates)} workflows, {found.covered:.0%} of all probability",
        title_justify="left",
    )
    for name in ("workflow", "probability", "calls", f"reward on {len(like)} like it", "on all tasks"):
        candidates.add_column(name, justify="left" if name == "workflow" else "right")
    for candidate in rows:
        name = ("picked: " if candidate.workflow.fingerprint == mark else "") + candidate.workflow.name
        candidates.add_row(
            name,
            f"{candidate.probability:.1%}",
            str(candidate.workflow.llm_calls(library)),
            _reward(near, candidate.workflow.fingerprint),
            _reward(everywhere, candidate.workflow.fingerprint),
        )
    console.print(candidates)
    choices = Table(title="its choices, from the answer backwards", title_justify="left")
    for name in ("taken", "share", "best of the others", "share "):
        choices.add_column(name, justify="right" if "share" in name else "left")
    for choice in found.choices:
        choices.add_row(choice.taken, f"{choice.share:.1%}", choice.instead, f"{choice.loss:.1%}")
    console.print(choices)
    console.print("training tasks most like it:", highlight=False)
    for task in like[:3]:
        console.print(f"  {task.id}: {task.text[:180]}", highlight=False, markup=False)


def _step(step: Step, answer: str) -> str:
    """A step in one line."""
    samples = f", {step.samples} samples" if step.samples > 1 else ""
    guard = f" if {step.when}" if step.when else ""
    gives = ", the answer" if step.id == answer else ""
    return f"{step.id} = {step.op}({', '.join(step.inputs)}{samples}){guard}{gives}"


def _reward(found: dict[str, tuple[float, int]], fingerprint: str) -> str:
    """A mean reward and how many tasks it is over; a dash where the workflow was not run on any."""
    value, count = found.get(fingerprint, (0.0, 0))
    return f"{value:.2f} ({count})" if count else "-"
