"""The configuration: every YAML composes, and what is wrong ends in one sentence."""

from __future__ import annotations

import pytest

from graphflow.cli import WRONG, main
from graphflow.experiment.compose import ConfigError, check, compose, expand, group_options, resolved
from graphflow.experiment.config import GROUPS
from graphflow.experiment.plan import cells
from graphflow.kv.modes import Scope, StateMode
from graphflow.paths import CONF

NAMES = [(group, name) for group in GROUPS for name in group_options(group)]


@pytest.mark.parametrize(("group", "name"), NAMES, ids=[f"{group}-{name}" for group, name in NAMES])
def test_every_yaml_composes(group: str, name: str) -> None:
    if (group, name) == ("machine", "gpu"):
        with pytest.raises(ConfigError, match=r"machine.device must be cpu on this machine|^$"):
            compose(["machine=gpu", "machine.device=cuda:0"])
            raise ConfigError("")  # a machine with a GPU composes it
        return
    compose([f"{group}={name}"])


def test_every_folder_with_groups_is_known() -> None:
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "operations", "workflows"}


@pytest.mark.slow
@pytest.mark.parametrize("name", group_options("experiment"))
def test_every_cell_of_every_experiment_composes(name: str) -> None:
    config = compose([f"experiment={name}"])
    # backbone, benchmark and method are names, which the next test looks up: one of each is enough to compose the rest
    seen = {}
    for cell in cells(config.experiment):
        seen.setdefault(cell.overrides[3:], cell)
    for cell in seen.values():
        assert compose(cell.overrides).benchmark.limit == config.experiment.tasks


def test_names_in_experiments_exist() -> None:
    for name in group_options("experiment"):
        experiment = compose([f"experiment={name}"]).experiment
        assert set(experiment.backbones) <= set(group_options("backbone"))
        assert set(experiment.benchmarks) <= set(group_options("benchmark"))
        for grid in experiment.grids:
            assert set(grid.methods) <= set(group_options("method"))
            assert set(grid.kv) <= set(group_options("kv"))


def test_names_say_what_they_hold() -> None:
    for name in group_options("backbone"):
        if not name.startswith("random"):
            assert compose([f"backbone={name}"]).backbone.name == name
    for group in ("benchmark", "method"):
        for name in group_options(group):
            assert getattr(compose([f"{group}={name}"]), group).name == name


def test_overrides_reach_the_dataclasses() -> None:
    config = compose(["kv=no_pruning", "kv.scope=request", "kv.density=0.5", "backbone=gemma2-9b", "split=validation"])
    assert (config.kv.mode, config.kv.scope, config.kv.density) == (StateMode.NO_PRUNING, Scope.REQUEST, 0.5)
    assert (config.backbone.dtype, config.backbone.device_map) == ("bfloat16", "auto")
    assert resolved(config)["split"] == "validation"
    assert resolved(config)["kv"]["mode"] == "no_pruning"


WRONG_WORDS = {
    "bakbone=qwen-mini": ["'bakbone'", "did you mean 'backbone'"],
    "backbone=qwen-mni": ["backbone", "'qwen-mni'", "did you mean 'qwen-mini'", "llama3.1-8b"],
    "kv.scop=path": ["'kv.scop'", "did you mean 'kv.scope'", "kv.density"],
    "+kv.scop=path": ["'kv.scop'", "did you mean 'kv.scope'"],
    "+kv.scope=path": ["+kv.scope", "kv.scope=value"],
    "~kv": ["~kv", "not allowed"],
    "kv.scope=pth": ["kv.scope", "'pth'", "did you mean 'path'", "request"],
    "kv.density=2": ["kv.density", "(0, 1]", "2.0"],
    "kv.density=much": ["kv.density", "'much'"],
    "kv.scope.x=1": ["kv.scope", "'x'"],
    "engine.concurrency=0": ["engine.concurrency", "1 or more", "0"],
    "engine.sandbox.cpu=3": ["did you mean 'engine.sandbox.cpu_s'"],
    "benchmark.limit=-1": ["benchmark.limit", "0 or more", "-1"],
    "generator.objective.sharpness=-1": ["generator.objective.sharpness", "at least 0", "-1"],
    "machine.threads=9999": ["machine.threads", "between 0 and", "9999"],
    "machine.device=gpu": ["machine.device", "'gpu'"],
    "fit.train_tasks=0": ["fit.train_tasks", "1 or more", "0"],
    "fit.split=test": ["fit.split", "train or validation", "test"],
    "warmup=-2": ["warmup", "0 or more", "-2"],
    "split=tset": ["split", "did you mean 'test'", "validation"],
    "tracking.mode=ofline": ["tracking.mode", "did you mean 'offline'"],
    "experiment.tasks=0": ["experiment.tasks", "1 or more"],
}


@pytest.mark.parametrize("word", WRONG_WORDS)
def test_what_is_wrong_ends_in_one_sentence(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == WRONG
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    for part in WRONG_WORDS[word]:
        assert part in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["reprodce", "profile=smoke"], ["'reprodce'", "did you mean 'reproduce'"]),
        (["reproduce", "profile=smok"], ["'smok'", "did you mean 'smoke'"]),
        (["--cfg"], ["'--cfg'", "-m"]),
        (["-m", "kv=stateful,statless"], ["'statless'", "did you mean 'stateless'"]),
        (["-m", "kv.density=0.5,3"], ["kv.density", "(0, 1]", "3"]),
        (["kv.density=0.5,0.7"], ["kv.density"]),
    ],
)
def test_commands_and_sweeps(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == WRONG
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err


def test_enum_values_become_member_names_in_sweeps_too() -> None:
    assert check(["kv.scope=path,request", "kv=stateful,stateless"]) == [
        "kv.scope=PATH,REQUEST",
        "kv=stateful,stateless",
    ]


def test_a_sweep_is_checked_one_choice_at_a_time() -> None:
    # first choices together, then each other choice with the first of the rest: 1 + 1 + 2 compositions, not 2 x 3
    assert list(expand(["a=1,2", "b=x,y,z"])) == [["a=1", "b=x"], ["a=2", "b=x"], ["a=1", "b=y"], ["a=1", "b=z"]]


def test_help_names_commands_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for word in ("reproduce", "wgraph", "generator", "report", "qwen2.5-7b", "differential", "mini-hotpotqa"):
        assert word in out
