"""The command line: `graphflow [command] [key=value ...]`.

Everything that can be wrong with the words is found and said in one sentence on stderr before anything is computed
(exit status 2). Sweeps (`-m`) are Hydra's, with its launchers.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

USAGE = """usage: graphflow [command] [group=name ...] [key=value ...]

  graphflow backbone=qwen-mini benchmark=mini-gsm8k kv=differential method=graphflow     run one cell
  graphflow -m kv=stateful,stateless benchmark=mini-gsm8k,mini-math                      run a sweep
  graphflow reproduce profile=smoke|default|paper|bench    run every cell of a profile, write results/
  graphflow generator                                      execute training tasks, train the generator
  graphflow fit method=NAME benchmark=NAME                 fit a method: aflow and autoflow search for a workflow
                                                           (trials.tasks, trials.llm_calls; trials.refit=true anew)
  graphflow explain task=NUMBER|ID [path=FILE.png]         the workflow picked for one task and why (or text="..."):
                                                           what else was considered, choices, training tasks like it
  graphflow wgraph [path=FOLDER]                           print the merged graph, draw it (SVG, PNG)
  graphflow report [profile=default]                       draw figures and report again from the tables
  graphflow suite report [backbone=NAME,...] [tasks=200] [problems=60]
                                                           measure the embedded suite and mini backbones on it
  graphflow experiment NAME [backbones=[NAME,...]] [tasks=N] [key=value ...]
                                                           one experiment on operation state: kv_modes, kv_codecs,
                                                           similarity, steady_state, pruning, long_horizon, layouts,
                                                           or on serving: concurrency, scheduling, on choosing
                                                           workflows: generator, on methods: main_table, leaders
  graphflow capacity [data_dir=FOLDER] [tokenizer=own] [run=RUN_DIR] [key=value ...]
                                                           KV of any backbone on paper (conf/capacity.yaml)
  graphflow capacity check [workflow=cot_review_revise] [key=value ...]
                                                           the same against what the engine keeps on a real backbone
  graphflow config [key=value ...]                         print the resolved configuration, run nothing

A finished run is not run again; a stopped one goes on at its next task."""

OK, FAILED, WRONG, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        return _help()
    command = COMMANDS.get(words[0])
    try:
        if command is not None:
            return command(words[1:])
        if words[0] in ("-m", "--multirun") or "-m" in words or "--multirun" in words:
            return sweep([word for word in words if word not in ("-m", "--multirun")])
        return run(words)
    except KeyboardInterrupt:
        print("graphflow: stopped; the same command goes on where this one was", file=sys.stderr)
        return STOPPED
    except _user_errors() as error:
        print(f"graphflow: {' '.join(str(error).split())}", file=sys.stderr)
        return WRONG if isinstance(error, ValueError | KeyError) else FAILED


def run(words: Sequence[str]) -> int:
    """Run one cell and print its row."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.single import run_single

    _refuse_commands(words)
    run_single(compose(words), _console())
    return OK


def sweep(words: Sequence[str]) -> int:
    """Run a sweep with Hydra: every value of every sweep is checked before the first job starts."""
    from graphflow.experiment.compose import check, compose, expand
    from graphflow.experiment.sweep import run_sweep

    _refuse_commands(words)
    checked = check(words)
    for overrides in expand(words):
        compose(overrides)
    run_sweep(checked)
    return OK


def reproduce(words: Sequence[str]) -> int:
    """Run every cell of a profile."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.reproduce import reproduce as run_profile

    overrides, profile = _take(words, "profile")
    config = compose([*_profile(profile), *overrides])
    run_profile(config, overrides, _spell("reproduce", words), _console())
    return OK


def generator(words: Sequence[str]) -> int:
    """Fill the outcome table and train the generator."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.single import train

    train(compose(words), _console())
    return OK


def fit(words: Sequence[str]) -> int:
    """Fit a method; runs find it done."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.single import fit as fit_method

    _refuse_commands(words)
    fit_method(compose(words), _console())
    return OK


def explain(words: Sequence[str]) -> int:
    """Say why the generator picks a workflow for a task."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.explain import report_choice

    given = {}
    for name in ("task", "text", "path"):
        words, given[name] = _take(words, name)
    report_choice(compose(words), **given, console=_console())
    return OK


def wgraph(words: Sequence[str]) -> int:
    """Print and draw the merged graph."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.single import show_wgraph

    overrides, path = _take(words, "path")
    config = compose(overrides)
    show_wgraph(Path(path) if path else Path(config.machine.results_dir) / "figures", _console())
    return OK


def report(words: Sequence[str]) -> int:
    """Draw figures and report again, from the tables alone."""
    from graphflow.experiment.compose import compose
    from graphflow.experiment.reproduce import results_folder, show, write_pictures

    overrides, profile = _take(words, "profile")
    folder = results_folder(compose([*_profile(profile), *overrides]))
    write_pictures(folder, f"graphflow reproduce profile={profile or 'default'}")
    show(folder, _console())
    return OK


def suite(words: Sequence[str]) -> int:
    """Measure the embedded suite and mini backbones on it."""
    from graphflow.errors import unknown_name
    from graphflow.experiment.compose import ConfigError
    from graphflow.experiment.suite.report import SuiteReport
    from graphflow.experiment.suite.report import report as report_on_suite

    if not words or words[0] != "report":
        raise ConfigError(unknown_name("suite command", words[0] if words else "", ["report"]))
    rest, backbones = _take(words[1:], "backbone")
    numbers: dict[str, int] = {}
    for name in ("tasks", "problems"):
        rest, value = _take(rest, name)
        if value and not value.isdecimal():
            raise ConfigError(f"{name} must be a whole number of 1 or more, got {value!r}")
        numbers |= {name: int(value)} if value else {}
    names = (backbones or "qwen-mini").split(",")
    report_on_suite(SuiteReport(names, **numbers, overrides=rest), _console())
    return OK


def experiment(words: Sequence[str]) -> int:
    """Run one experiment on operation state."""
    from graphflow.errors import unknown_name
    from graphflow.experiment.compose import ConfigError
    from graphflow.experiment.experiments import EXPERIMENTS
    from graphflow.experiment.experiments import experiment as run_experiment

    if not words or "=" in words[0]:
        raise ConfigError(unknown_name("experiment", words[0] if words else "", EXPERIMENTS))
    run_experiment(words[0], words[1:], _spell("experiment", words), _console())
    return OK


def capacity(words: Sequence[str]) -> int:
    """Plan the KV of backbones that need not be here, or check the planner against the engine."""
    from graphflow.experiment.capacity.check import report_check
    from graphflow.experiment.capacity.config import load
    from graphflow.experiment.capacity.report import report as report_on_capacity

    if words and words[0] == "check":
        rest, workflow = _take(words[1:], "workflow")
        report_check(workflow or "cot_review_revise", rest, _console())
    else:
        report_on_capacity(load(words), _spell("capacity", words), _console())
    return OK


def config(words: Sequence[str]) -> int:
    """Print the resolved configuration."""
    import yaml

    from graphflow.experiment.compose import compose, resolved

    print(yaml.safe_dump(resolved(compose(words)), sort_keys=False), end="")
    return OK


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": run,
    "reproduce": reproduce,
    "generator": generator,
    "fit": fit,
    "explain": explain,
    "wgraph": wgraph,
    "report": report,
    "suite": suite,
    "experiment": experiment,
    "capacity": capacity,
    "config": config,
}


def _console() -> Any:
    """A terminal as wide as it is; a file or a pipe is 140 characters wide."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def _help() -> int:
    from graphflow.experiment.compose import usage

    print(USAGE, usage(), sep="\n\n")
    return OK


def _user_errors() -> tuple[type[Exception], ...]:
    """What a user or a machine can get wrong; anything else is a fault of ours and keeps its traceback."""
    from graphflow.backbone.load import BackboneError
    from graphflow.benchmarks import BenchmarkError
    from graphflow.engine.sandbox import SandboxError
    from graphflow.errors import UnknownNameError
    from graphflow.experiment.compose import ConfigError
    from graphflow.experiment.record import RunLockedError
    from graphflow.methods import MethodError

    given_wrong = (ConfigError, UnknownNameError, BackboneError, BenchmarkError, MethodError)
    return (*given_wrong, SandboxError, RunLockedError)


def _refuse_commands(words: Sequence[str]) -> None:
    from graphflow.errors import unknown_name
    from graphflow.experiment.compose import ConfigError

    for word in words:
        if "=" not in word and not word.startswith(("-", "~")):
            raise ConfigError(unknown_name("command", word, COMMANDS))
        if word.startswith("-"):
            raise ConfigError(f"unknown option {word!r}; allowed: -m (sweep), -h (help)")


def _take(words: Sequence[str], key: str) -> tuple[list[str], str]:
    """The words without ``key=value``, and that value (empty if it was not there)."""
    from graphflow.experiment.compose import ConfigError

    rest = [word for word in words if not word.startswith(f"{key}=")]
    values = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    if len(values) > 1 or "" in values:
        raise ConfigError(f"{key} must be given once and with a value, got {' '.join(words)!r}")
    return rest, values[0] if values else ""


def _profile(name: str) -> list[str]:
    from graphflow.errors import unknown_name
    from graphflow.experiment.compose import ConfigError, group_options
    from graphflow.experiment.experiments import EXPERIMENTS

    profiles = [profile for profile in group_options("experiment") if profile not in EXPERIMENTS]
    if name and name not in profiles:
        raise ConfigError(f"profile: {unknown_name('profile', name, profiles)}")
    return [f"experiment={name}"] if name else []


def _spell(command: str, words: Sequence[str]) -> str:
    return shlex.join(["graphflow", command, *words])


if __name__ == "__main__":
    sys.exit(main())
