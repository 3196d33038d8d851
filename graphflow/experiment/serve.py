"""Puts the floors together: from a config to a server of tasks, with what the methods learned."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from graphflow.backbone.load import Backbone, load_backbone
from graphflow.benchmarks import build_benchmark
from graphflow.benchmarks.base import Benchmark, BenchmarkConfig, Example
from graphflow.engine.engine import Engine
from graphflow.engine.episode import Task
from graphflow.engine.executor import Executor
from graphflow.engine.sandbox import Sandbox, bubblewrap_problem
from graphflow.engine.tools import ToolBox
from graphflow.experiment.compose import resolved
from graphflow.experiment.config import Config
from graphflow.experiment.fit import Fresh, PairRunner, Repertoire, fill, learn, open_table, pairs_left, spent
from graphflow.experiment.plan import SEARCHING, UNTAUGHT
from graphflow.experiment.reachable import transitions
from graphflow.experiment.record import RunDir, digest, file_digest, weights_digest, write_json
from graphflow.experiment.remote import check_remote, remote_executor
from graphflow.experiment.run import Job, Server
from graphflow.experiment.search import Search
from graphflow.generator.features import Encoder, FeatureKind, build_encoder
from graphflow.generator.generator import Generator
from graphflow.generator.outcomes import OutcomeTable
from graphflow.generator.training import train_generator
from graphflow.kv import Allowed
from graphflow.kv.modes import KVConfig, StateMode
from graphflow.methods import Method, MethodError, build_method
from graphflow.methods.asking import Asking
from graphflow.methods.found import Found
from graphflow.methods.graphflow import GraphFlow
from graphflow.methods.proposing import MoreOperations
from graphflow.methods.random import Random
from graphflow.paths import ASSETS, CONF, PACKAGE
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import WGraph, merge
from graphflow.wgraph.workflow import Workflow

Ignore = Callable[[Any], None]
ENCODING = ("retrieve_top1", "agentkb")  # methods that compare texts


def ignore(_: Any) -> None:
    """Do nothing with it."""


class House:
    """What cells of one process share: operations, workflows, benchmarks, and the backbone that was loaded last."""

    def __init__(self) -> None:
        self.library = load_operations(CONF / "operations")
        self.workflows = load_workflows(CONF / "workflows", self.library)
        self._backbone: tuple[str, Backbone] | None = None
        self._benchmarks: dict[str, Benchmark] = {}
        self._encoders: dict[tuple[str, str], Encoder] = {}

    @cached_property
    def wgraph(self) -> WGraph:
        """All workflows merged."""
        return merge(self.workflows, self.library)

    @cached_property
    def allowed(self) -> Allowed:
        """Transitions that workflows of the wGraph, recombined ones too, can take: nothing else is stored."""
        return transitions(self.wgraph, self.library)

    @cached_property
    def repository(self) -> str:
        """Digest of operations, workflows and the code that runs them: a change in any makes another run."""
        code = [
            PACKAGE / floor for floor in ("wgraph", "kv", "backbone", "engine", "generator", "benchmarks", "methods")
        ]
        return file_digest(CONF / "operations", CONF / "workflows", *(f for c in code for f in sorted(c.rglob("*.py"))))

    @cached_property
    def execution(self) -> str:
        """Digest of what an execution hangs on: as `repository`, without how workflows are chosen."""
        code = [PACKAGE / floor for floor in ("wgraph", "kv", "backbone", "engine", "benchmarks")]
        files = (f for c in code for f in sorted(c.rglob("*.py")))
        return file_digest(CONF / "operations", CONF / "workflows", *files, PACKAGE / "methods" / "asking.py")

    @cached_property
    def isolated(self) -> bool:
        """Whether programs can be isolated on this machine."""
        return not bubblewrap_problem(shutil.which("bwrap") or "")

    def backbone(self, config: Config) -> Backbone:
        """The backbone, loaded once for cells in a row that share it."""
        key = digest(resolved(config)["backbone"])
        if self._backbone is None or self._backbone[0] != key:
            self._backbone = None  # let go of the old one first: two may not fit
            disable_progress_bar()
            self._backbone = (key, load_backbone(config.backbone))
        return self._backbone[1]

    def benchmark(self, config: BenchmarkConfig) -> Benchmark:
        """The benchmark, loaded once for all cells that share it, whatever their limits."""
        whole = replace(config, limit=0)
        key = digest(asdict(whole))
        if key not in self._benchmarks:
            self._benchmarks[key] = build_benchmark(whole)
        return self._benchmarks[key]

    def examples(self, config: Config) -> list[Example]:
        """The examples of a cell."""
        return self.benchmark(config.benchmark).examples(config.split.value, config.benchmark.limit or None)

    def job(self, config: Config, on_fit: Ignore = ignore) -> Job:
        """The cell of a config, ready to run; nothing heavy is loaded until it runs.

        Args:
            config: The cell.
            on_fit: Called after each training episode that had to be executed first.
        """
        check_remote(config)
        benchmark = self.benchmark(config.benchmark)
        facts = {**self.facts(config), "benchmark_version": benchmark.version}
        return Job(config, facts, lambda: self.open(config, benchmark, on_fit), benchmark.metric_name)

    def tasks_left(self, job: Job) -> int:
        """How many tasks of a cell have no episode yet."""
        if job.run_dir.done:
            return 0
        return len(self.examples(job.config)) - len(job.run_dir.lines())

    def facts(self, config: Config) -> dict[str, Any]:
        """What names in the config stand for, the data and what a search found included."""
        data = self.data(config)
        found = {"search": Search(self, config).identity} if config.method.name in SEARCHING else {}
        return {**self.machinery(config), **({"data": data} if data else {}), **found}

    def machinery(self, config: Config) -> dict[str, Any]:
        """As `facts`, of code, weights and machine."""
        folder = Path(config.backbone.path) if config.backbone.path else ASSETS / config.backbone.name
        weights = weights_digest(folder) if folder.is_dir() else config.backbone.revision or "hub"
        weights = "server" if config.backbone.url else weights
        return {"repository": self.repository, "backbone": weights, "sandbox_isolated": self.isolated}

    def data(self, config: Config) -> dict[str, str]:
        """Digest of the examples that a cell reads from outside, by benchmark and split: other rows, another run.

        The embedded suite is not among them: its examples are made by code, which `repository` stands for.
        """
        benchmark, split = self.benchmark(config.benchmark), config.split.value
        found = {}
        if benchmark.external:
            found[f"{benchmark.name} {split}"] = self.examples(config)
            if config.warmup:
                found["warmup"] = benchmark.examples(config.fit.split.value, config.warmup)
        served = {name: of_texts(rows) for name, rows in found.items()}
        return served if config.method.name in UNTAUGHT else {**served, **self.learned(config)}

    def learned(self, config: Config) -> dict[str, str]:
        """As `data`, of the training examples."""
        return {
            f"{name} training": of_texts(examples)
            for name, (_, examples) in self.training(config, external=True).items()
        }

    def executed(self, config: Config) -> dict[str, Any]:
        """As `machinery`, of executions that no method chose: another generator does not undo them."""
        return {**self.machinery(config), "repository": self.execution}

    def open(self, config: Config, benchmark: Benchmark, on_fit: Ignore) -> Server:
        """The server of a cell."""
        use_threads(config)
        method = self.method(config, on_fit)
        asking = method.asking
        sandbox = Sandbox(config.engine.sandbox)
        benchmark.sandbox = sandbox
        executor = self.executor(config, config.kv, sandbox, method)
        warmup = benchmark.examples(config.fit.split.value, config.warmup) if config.warmup else []
        return Server(
            examples=self.examples(config),
            warmup=[example.task for example in warmup],
            run=lambda tasks: executor.run([asking.ask(task) for task in tasks], method.build_many, method.grow),
            score=lambda examples, answers: benchmark.score_many(
                examples, [asking.read(example.task, a) for example, a in zip(examples, answers, strict=True)]
            ),
            shared_bytes=lambda: executor.store_bytes().base + executor.store_bytes().residual,
            peak_bytes=lambda: executor.peak_bytes,
            statistics=benchmark.statistics,
            spent=method.spent,
            scripted=method.scripted,
        )

    def executor(self, config: Config, kv: KVConfig, sandbox: Sandbox, method: Method | None = None) -> Engine:
        """What serves a method's workflows, or those of the wGraph: with an empty operation store, or on a server."""
        make = partial(remote_executor, self.library) if config.backbone.url else self.local
        return make(config, kv, sandbox, method)

    def local(self, config: Config, kv: KVConfig, sandbox: Sandbox, method: Method | None = None) -> Executor:
        """As `executor`, for those who look at the store: on a model that is loaded here, else it raises BackboneError.

        Operation state of a method with operations of its own is kept wherever it calls them: no graph says where.
        """
        asking, backbone = method.asking if method else Asking(), self.backbone(config)
        library = asking.library(self.library)
        toolbox = ToolBox(sandbox=sandbox, tools=method.tools if method else {})
        allowed = None if isinstance(asking, MoreOperations) else self.allowed
        return Executor(asking.backbone(backbone), library, kv, config.engine, toolbox, allowed)

    def unfitted(self, config: Config) -> Method:
        """The method, as it is made."""
        return build_method(
            config.method,
            self.library,
            self.workflows,
            generator_config=config.generator,
            turns=config.backbone.turns,
            encoder=self.encoder(config) if config.method.name in ENCODING else None,
            planner=config.backbone.planner,
        )

    def method(self, config: Config, on_fit: Ignore = ignore) -> Method:
        """The method, fitted."""
        use_threads(config)
        method = self.unfitted(config)
        if isinstance(method, Found):
            method.spent = Search(self, config).fit(method, on_fit)
        if method.name not in UNTAUGHT:
            table = self.outcomes(config, on_fit)
            if isinstance(method, GraphFlow):
                method.generator = self.generator(config, table)
            learn(method, table, self.fit_dir(config).path)
            method.spent = spent(table, config.benchmark.name)
        return method

    def search_left(self, config: Config) -> int:
        """How many executions a searching method needs at most until it is fitted."""
        method = self.unfitted(config)
        return Search(self, config).left(method) if isinstance(method, Found) else 0

    def fit_dir(self, config: Config) -> RunDir:
        """Folder of the outcome table."""
        plain = resolved(config)
        what = {"backbone": config.backbone.identity(), "fit": plain["fit"]}
        what["engine"] = {name: plain["engine"][name] for name in ("kv_dtype", "seed", "sandbox")}
        what["benchmark"] = [asdict(taught(config.benchmark, name)) for name in config.fit.benchmarks]
        if data := self.learned(config):
            what["data"] = data
        return RunDir(config.machine.runs_dir, "fit-" + digest({**what, **self.executed(config)}))

    def training(self, config: Config, external: bool = False) -> dict[str, tuple[Benchmark, list[Example]]]:
        """Benchmark and training examples by benchmark name; with ``external`` those that come from outside alone."""
        chosen = {}
        for name in config.fit.benchmarks:
            benchmark = self.benchmark(taught(config.benchmark, name))
            if external and not benchmark.external:
                continue
            chosen[name] = (benchmark, benchmark.examples(config.fit.split.value, config.fit.train_tasks))
        return chosen

    def repertoire(self, config: Config) -> Repertoire:
        """The workflows that are executed on a training task: those of its kind, and random recombinations."""
        explorers = [Random(self.library, self.workflows, seed) for seed in range(config.fit.explore)]

        def of(task: Task) -> list[Workflow]:
            own = [workflow for workflow in self.workflows.values() if task.kind in workflow.kinds]
            return [*own, *(replace(explorer.build(task), kinds=(task.kind,)) for explorer in explorers)]

        return of

    def executions_left(self, config: Config) -> dict[str, int]:
        """How many training executions each benchmark still needs.

        Raises:
            MethodError: They may take more calls of the model than any method is given for a benchmark.
        """
        for name, (_, examples) in self.training(config).items():
            calls = sum(w.llm_calls(self.library) for e in examples for w in self.repertoire(config)(e.task))
            if calls > config.trials.llm_calls:
                raise MethodError(
                    f"fit.train_tasks={config.fit.train_tasks} may take {calls:,} calls on {name}; "
                    f"trials.llm_calls, which holds for every method, is {config.trials.llm_calls:,}"
                )
        table, repertoire = open_table(self.fit_dir(config).path), self.repertoire(config)
        return {
            name: len(pairs_left(table, examples, repertoire, config.engine.seed))
            for name, (_, examples) in self.training(config).items()
        }

    def outcomes(self, config: Config, on_episode: Ignore = ignore, only: str = "") -> OutcomeTable:
        """The outcome table, filled with what it does not hold yet; waits for another process that is filling it.

        Args:
            config: What to learn from.
            on_episode: Called after each execution.
            only: Fill this benchmark only; empty fills all.
        """
        run_dir, repertoire, seed = self.fit_dir(config), self.repertoire(config), config.engine.seed
        with run_dir.locked(wait=True):
            table = open_table(run_dir.path)
            for name, (benchmark, examples) in self.training(config).items():
                if only not in ("", name) or not pairs_left(table, examples, repertoire, seed):
                    continue
                use_threads(config)
                benchmark.sandbox = Sandbox(config.engine.sandbox)
                executor = self.executor(config, KVConfig(mode=StateMode.STATEFUL), benchmark.sandbox)
                fill(table, benchmark, examples, repertoire, PairRunner(executor), seed, on_episode)
            return table

    def generator(
        self, config: Config, table: OutcomeTable, on_epoch: Ignore = ignore, lesson: Lesson | None = None
    ) -> Generator:
        """The generator for a table, trained or read from where it was kept.

        Args:
            config: How it is trained; what it learns from names the folder where it is kept.
            table: What it learns from.
            on_epoch: Called after each epoch.
            lesson: What is particular about this training; None for all of the table on the whole wGraph.
        """
        lesson = lesson or Lesson()
        wgraph, what = lesson.wgraph or self.wgraph, {"config": resolved(config)["generator"], "code": self.repository}
        folder = self.fit_dir(config).path / ("generator-" + digest({**what, **lesson.about}))
        with RunDir(folder.parent, folder.name).locked(wait=True):
            if not (folder / "done.json").exists():
                fresh = self._fresh(config, table, folder) if config.generator.objective.kind.executes else None
                generator = train_generator(
                    fresh.table if fresh else table,
                    wgraph,
                    config.generator,
                    progress=on_epoch,
                    start=lesson.start,
                    execute=fresh,
                    checkpoint=folder / "checkpoint.pt",
                    encoder=self.encoder(config),
                )
                generator.save(folder)
                write_json(folder / "done.json", generator.report)
        return Generator.load(folder, wgraph, encoder=self.encoder(config))

    def encoder(self, config: Config) -> Encoder:
        """What encodes texts for the generator; with ``features.kind=backbone`` the backbone in use."""
        features = config.generator.features
        key = digest(resolved(config)["backbone"]) if features.kind is FeatureKind.BACKBONE else ""
        if (held := (repr(features), key)) not in self._encoders:
            self._encoders[held] = build_encoder(features, self.backbone(config) if key else None)
        return self._encoders[held]

    def _fresh(self, config: Config, table: OutcomeTable, folder: Path) -> Fresh:
        """Executes a generator's own workflows into a copy of the table, from which no other generator learns."""
        own = OutcomeTable(folder / "outcomes.parquet")
        if not len(own):
            own = OutcomeTable(table.save(folder / "outcomes.parquet"))
        use_threads(config)
        sandbox = Sandbox(config.engine.sandbox)

        def benchmark(name: str) -> Benchmark:
            found = self.benchmark(taught(config.benchmark, name))
            found.sandbox = sandbox
            return found

        runner = PairRunner(self.executor(config, KVConfig(mode=StateMode.STATEFUL), sandbox))
        return Fresh(own, benchmark, runner, config.fit.split.value, config.engine.seed)


@dataclass(frozen=True)
class Lesson:
    """What is particular about a training.

    Attributes:
        about: In words: tells trainings apart that have the same settings.
        wgraph: The graph to compose from; None for the repository's.
        start: A generator whose weights it starts from.
    """

    about: Mapping[str, str] = field(default_factory=dict)
    wgraph: WGraph | None = None
    start: Generator | None = None


def taught(config: BenchmarkConfig, name: str) -> BenchmarkConfig:
    """The benchmark of that name to learn from: a mini one is the same whichever benchmark is served."""
    if name.startswith("mini-") and not config.name.startswith("mini-"):
        return BenchmarkConfig(name=name)
    return replace(config, name=name, limit=0)


def of_texts(examples: Sequence[Example]) -> str:
    """Digest of all that examples say: ids, texts, references, tests."""
    return digest([repr(example) for example in examples])


def use_threads(config: Config) -> None:
    """Set torch's CPU threads, where the config names a number."""
    if config.machine.threads:
        torch.set_num_threads(config.machine.threads)
