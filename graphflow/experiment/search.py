"""Fitting of methods that search for one workflow a benchmark: found now, by an earlier command, or shipped.

A search tries workflows out on validation tasks (`graphflow.methods.trials`). What it finds is kept under the runs
folder by the hash of all that determines it, the code included. For the planners it comes with the package as well,
by all of that but the code, for which a version stands that is raised by hand: a search takes minutes, its result is a
page of YAML, and most changes of the code change nothing that it finds.
``trials.refit=true`` searches anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.benchmarks.base import Benchmark, Example
from graphflow.engine.episode import Episode, Task
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.compose import resolved
from graphflow.experiment.config import Config
from graphflow.experiment.fit import PairRunner, scored
from graphflow.experiment.record import RunDir, digest, file_digest, machine_name, provenance, write_json
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.methods import MethodError
from graphflow.methods.aflow import EDIT
from graphflow.methods.autoflow import FLOW
from graphflow.methods.found import Found
from graphflow.methods.trials import BudgetSpent, Spent, Trials
from graphflow.paths import ASSETS, CONF, PACKAGE
from graphflow.wgraph.workflow import Workflow

if TYPE_CHECKING:
    from graphflow.experiment.serve import House

SHIPPED = ASSETS / "searches"
JOURNAL = "trials.jsonl"
VERSION = 2
"""Raised where code changes so that searches find something else; operations and prompts are compared themselves."""


@dataclass(frozen=True)
class Search:
    """What a searching method is fitted on.

    Attributes:
        house: Operations, workflows, benchmarks and the backbone.
        config: The method, its benchmark and its budget.
    """

    house: House
    config: Config

    @cached_property
    def benchmark(self) -> Benchmark:
        """The benchmark that is searched for."""
        return self.house.benchmark(self.config.benchmark)

    @cached_property
    def examples(self) -> list[Example]:
        """The validation tasks that may be looked at."""
        return self.benchmark.examples("validation", self.config.trials.tasks)

    @cached_property
    def about(self) -> dict[str, Any]:
        """All that determines what is found; of the code only its version."""
        config, plain = self.config, resolved(self.config)
        which = ("name", "dtype", "random", "seed", "turns", *(("url", "model") if config.backbone.url else ()))
        return {
            "version": VERSION,
            "library": file_digest(CONF / "operations", CONF / "workflows"),
            "prompts": digest([EDIT.prompt, FLOW.prompt]),
            "method": {name: plain["method"][name] for name in ("name", "seed", "repeats")},
            "scripted": config.method.scripts(config.backbone.turns, config.backbone.planner),
            "max_llm_calls": config.generator.max_llm_calls,
            "trials": {name: value for name, value in plain["trials"].items() if name != "refit"},
            "backbone": {name: plain["backbone"][name] for name in which},
            "weights": self.house.machinery(config)["backbone"],
            "engine": {name: plain["engine"][name] for name in ("kv_dtype", "seed")},
            "benchmark": {
                "name": self.benchmark.name,
                "version": self.benchmark.version,
                "tasks": digest([repr(example) for example in self.examples]),
            },
        }

    @cached_property
    def shipped(self) -> Path | None:
        """Folder of what comes with the package for just this search; None if nothing does, or it is not wanted."""
        folder = SHIPPED / self.config.backbone.name / self.config.method.name
        if self.config.trials.refit or _kept(folder, self.benchmark.name).get("about") != self.about:
            return None
        return folder

    @cached_property
    def run_dir(self) -> RunDir:
        """Folder under the runs folder."""
        files = sorted((PACKAGE / "methods").rglob("*.py"))
        code = {"execution": self.house.execution, "methods": file_digest(*files)}
        return RunDir(self.config.machine.runs_dir, "search-" + digest({**self.about, **code}))

    @property
    def folder(self) -> Path:
        """Where the result is, or will be."""
        return self.shipped or self.run_dir.path

    @property
    def identity(self) -> str:
        """What tells results apart: part of the id of every run that serves what was found."""
        if self.shipped:
            return "shipped " + file_digest(self.shipped / f"{self.benchmark.name}.yaml")
        return self.run_dir.path.name

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return bool(_kept(self.folder, self.benchmark.name))

    def left(self, method: Found) -> int:
        """Executions that are left at most; searches may stop early."""
        if self.done:
            return 0
        journal = self.run_dir.path / JOURNAL
        tried = sum("fingerprint" in line for line in journal.open(encoding="utf-8")) if journal.exists() else 0
        return max(0, method.executions(len(self.examples)) - tried)

    def fit(self, method: Found, on_episode: Callable[[Episode], None]) -> Spent:
        """Give a method what its search found; search first where nothing is kept, going on where it was stopped.

        Args:
            method: Made from the same configuration.
            on_episode: Called after each execution of a workflow.

        Returns:
            What the search has cost, whenever it was made.

        Raises:
            MethodError: The budget is too small for the first workflow.
        """
        if not self.done:
            with self.run_dir.locked(wait=True):
                if not self.done:
                    self._search(method, on_episode)
        method.load(self.folder, self.benchmark.name)
        return Spent(**_kept(self.folder, self.benchmark.name)["spent"])

    def _search(self, method: Found, on_episode: Callable[[Episode], None]) -> None:
        tasks, journal = [example.task for example in self.examples], self.run_dir.path / JOURNAL
        serve = self._server(method, on_episode)
        room = None if self.config.backbone.url else self.house.backbone(self.config).has_room
        bound = partial(Workflow.llm_calls, library=self.house.library)
        trials = Trials(tasks, serve, self.config.trials, journal, bool(method.scripted), room, bound)
        try:
            method.search(trials)
        except BudgetSpent as error:
            raise MethodError(f"method {method.name!r} has not enough to try one workflow: {error}") from None
        method.save(self.run_dir.path)
        made = provenance()
        kept = {
            "about": self.about,
            "spent": asdict(trials.spent),
            "commit": made["commit"] + ("-dirty" if made["dirty"] else ""),
            "machine": self.config.machine.name or machine_name(),
        }
        write_json(_about_file(self.run_dir.path, self.benchmark.name), kept)

    def _server(
        self, method: Found, on_episode: Callable[[Episode], None]
    ) -> Callable[[Sequence[tuple[Task, Workflow]]], Iterator[tuple[Episode, float]]]:
        """Executes in stateful mode, as outcomes are collected, and scores; texts that are asked for have no score."""
        config = replace(self.config, engine=replace(self.config.engine, fidelity=0))
        sandbox, asking = Sandbox(config.engine.sandbox), method.asking
        self.benchmark.sandbox = sandbox
        run = PairRunner(self.house.executor(config, KVConfig(mode=StateMode.STATEFUL), sandbox, method))
        by_id = {example.task.id: example for example in self.examples}

        def example_of(episode: Episode) -> Example | None:
            return by_id.get(episode.task_id) or by_id.get(episode.task_id.rpartition("#")[0])

        def serve(pairs: Sequence[tuple[Task, Workflow]]) -> Iterator[tuple[Episode, float]]:
            episodes = run([(asking.ask(task), workflow) for task, workflow in pairs])
            return scored(episodes, self.benchmark, example_of, on_episode, asking.read)

        return serve


def _about_file(folder: Path, benchmark: str) -> Path:
    return folder / f"{benchmark}.about.json"


def _kept(folder: Path, benchmark: str) -> dict[str, Any]:
    """What stands beside a result; empty where there is none."""
    file = _about_file(folder, benchmark)
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
