"""`generator`: what objectives, text features, layers, decoding and rewards are worth, each with several seeds.

Every setting is trained on one outcome table and picks workflows for the same test and held-out tasks, beside what it
has to beat: the best fixed workflow of every benchmark, the workflow of the nearest training task, random ones, the
best one for the kind of problem that a task was generated from, and the oracle, which knows every outcome.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from graphflow.experiment.choosing.exam import MEAN, Exam, Pick, measured, oracle
from graphflow.experiment.choosing.figures import REWARD, draw_generator
from graphflow.experiment.choosing.linear import Linear
from graphflow.experiment.choosing.structure import Structure
from graphflow.experiment.choosing.transfer import grown, left_out
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.experiment.kv.study import Study, backbone_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.generator.features import BUNDLED, FeatureKind
from graphflow.generator.generator import Generator
from graphflow.generator.outcomes import OutcomeTable
from graphflow.methods.best_fixed import BestFixed
from graphflow.methods.random import Random
from graphflow.methods.retrieve_top1 import RetrieveTop1

REFERENCE = "reference"
FIXED, SINGLE, NEAREST, RANDOM, ORACLE = "best fixed", "best single workflow", "retrieve_top1", "random", "oracle"
KNOWN, WORDS = "best by family and level", "linear on the text"
SPLITS = ("test", "heldout")
SHOWN = ("factor", "setting", "metric", "metric_sd", "gain", "gain_lo", "gain_hi", "gap_closed", "llm_calls", "tokens")


@dataclass(frozen=True)
class Setting:
    """One way to make a generator.

    Attributes:
        factor: What is varied: the grid's artefact.
        name: The values that make it, without the keys.
        config: Everything else too; its seed is replaced.
    """

    factor: str
    name: str
    config: Config

    def seeded(self, seed: int) -> Config:
        """With a seed of its own."""
        return replace(self.config, generator=replace(self.config.generator, seed=seed))


def generator(study: Study) -> pd.DataFrame:
    """Run what is left; write ``generator.csv`` and the figures."""
    study = study.within("generator")
    if len(study.config.experiment.backbones) != 1:
        raise ConfigError(f"experiment.backbones must name one backbone, got {list(study.config.experiment.backbones)}")
    settings = [
        Setting(cell.artefact, " ".join(_short(word, cell.artefact == REWARD) for word in cell.swept), config)
        for cell, config in study.settings()
    ]
    for setting in [setting for setting in settings if _lacks_encoder(setting)]:
        study.console.print(f"{setting.factor} {setting.name}: left out, the extra minilm is not installed")
        settings.remove(setting)
    if not settings:
        raise ConfigError("experiment.grids must have a setting or more")
    exam, table, every = _prepare(study, settings[0].config)
    best, fixed = oracle(every), BestFixed(study.house.library, study.house.workflows)
    fixed.fit(table)
    bar = {split: exam.take(split, fixed.build_many) for split in SPLITS}
    rows = _references(study, exam, table, every, bar)
    units = [Unit(f"{setting.factor} {setting.name}", study.size("seeds")) for setting in settings]
    with work_progress(units, study.console) as progress:
        for setting, unit in zip(settings, units, strict=True):
            made = []
            for seed in range(study.size("seeds")):
                with progress.working_on(unit):
                    made.append(study.house.generator(setting.seeded(seed), table))
                    progress.advance()
            known = set(table.workflows)
            report = {"validation": _average(made, "reward"), "epoch": _average(made, "epoch")}
            for split in SPLITS:
                frames = [exam.take(split, one.compose) for one in made]
                oracle_of = best if split == "test" else None
                rows += [
                    {"factor": setting.factor, "setting": setting.name, "split": split, **report, **row}
                    for row in measured(frames, bar[split], oracle_of, known)
                ]
    seeds = [settings[0].seeded(seed) for seed in range(study.size("seeds"))]
    units = [Unit("benchmarks left out", 1), Unit("a new operation", 1)]
    with work_progress(units, study.console) as progress:
        with progress.working_on(units[0]):
            rows += left_out(study.house, exam, table, seeds, bar["test"])
            progress.advance()
        with progress.working_on(units[1]):
            rows += grown(study.house, exam, table, seeds, study.size("update"))
            progress.advance()
    origin = {"backbone": backbone_of(settings[0].config), "train_tasks": len(table.tasks()), "executions": len(table)}
    frame = study.write("generator", [{**origin, **row} for row in rows])
    study.say(*draw_generator(frame, study.figures))
    shown = frame[(frame["split"] == "test") & (frame["benchmark"] == MEAN)]
    study.show(shown, SHOWN, "Choosing a workflow for each test task, mean over benchmarks and seeds")
    return frame


def _lacks_encoder(setting: Setting) -> bool:
    """True if its text features come from a package that is not there."""
    features = setting.config.generator.features
    bundled = features.kind is FeatureKind.MINILM and features.model == "bundled"
    return bundled and importlib.util.find_spec(BUNDLED) is None


def _prepare(study: Study, config: Config) -> tuple[Exam, OutcomeTable, Any]:
    """The exam, training outcomes, and outcomes of every workflow on every test task; executes what is missing."""
    house, names = study.house, tuple(study.config.experiment.benchmarks)
    exam = Exam(house, config, names, study.config.experiment.tasks)
    left = house.executions_left(config)
    units = {name: Unit(f"{name} training outcomes", left[name], name) for name in left}
    tests = {name: Unit(f"{name} test outcomes", exam.all_left(name), name) for name in names}
    every = []
    with work_progress([*units.values(), *tests.values()], study.console) as progress:
        for name, unit in units.items():
            with progress.working_on(unit):
                house.outcomes(config, lambda _: progress.advance(), only=name)
        for name, unit in tests.items():
            with progress.working_on(unit):
                every.append(exam.all(name, lambda _: progress.advance()))
    return exam, house.outcomes(config), pd.concat(every, ignore_index=True)


def _references(study: Study, exam: Exam, table: OutcomeTable, every: Any, bar: dict[str, Any]) -> list[dict[str, Any]]:
    """What a generator is measured against, with the oracle and the best single workflow on the test split alone."""
    library, workflows, seeds = study.house.library, study.house.workflows, range(study.size("seeds"))
    encoder = study.house.encoder(exam.config)
    nearest = RetrieveTop1(library, workflows, encoder, exam.config.generator.reward)
    nearest.fit(table)
    fixed = BestFixed(library, workflows)
    fixed.fit(table)
    training = (example.task for _, own in study.house.training(exam.config).values() for example in own)
    picks: dict[str, list[Pick]] = {
        NEAREST: [nearest.build_many],
        WORDS: [Linear(table, encoder, fixed).build_many],
        KNOWN: [Structure(table, {task.id: task for task in training}, fixed).build_many],
        RANDOM: [Random(library, workflows, seed).build_many for seed in seeds],
    }
    best, known = oracle(every), set(table.workflows)
    rows = []
    for split in SPLITS:
        frames = {FIXED: [bar[split]], **{name: [exam.take(split, p) for p in own] for name, own in picks.items()}}
        if split == "test":
            scores = every.assign(oracle=every["task_id"].map(best))
            frames[ORACLE] = [scores[scores["metric"] == scores["oracle"]].drop_duplicates("task_id")]
            frames[SINGLE] = [single(every)]
        for name, own in frames.items():
            found = measured(own, bar[split], best if split == "test" else None, known)
            rows += [{"factor": REFERENCE, "setting": name, "split": split, **row} for row in found]
    return rows


def single(every: Any) -> Any:
    """Outcomes of the one workflow with the best mean over all tasks; on kinds that it was not made for it scores 0."""
    sums = every.groupby("workflow")["metric"].sum()
    own = every[every["workflow"] == sums.idxmax()]
    others = every[~every["task_id"].isin(own["task_id"])].drop_duplicates("task_id")
    return pd.concat([own, others.assign(metric=0.0)], ignore_index=True)


def _short(word: str, keyed: bool) -> str:
    """A swept override without its path, or without its key."""
    key, _, value = word.partition("=")
    return f"{key.rpartition('.')[2]}={value}" if keyed else value


def _average(made: list[Generator], name: str) -> float:
    return sum(one.report[name] for one in made) / len(made)
