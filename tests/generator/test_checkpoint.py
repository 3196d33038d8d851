"""A training that was stopped ends as one that was not, and nothing else is mistaken for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from graphflow.engine.episode import Task
from graphflow.generator import checkpoint
from graphflow.generator.checkpoint import CheckpointError
from graphflow.generator.features import FeatureConfig
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.model import ModelConfig
from graphflow.generator.objectives import ObjectiveConfig, ObjectiveKind
from graphflow.generator.outcomes import OutcomeTable
from graphflow.generator.training import train_generator
from graphflow.wgraph.workflow import Workflow
from tests.generator.small import COT, FIX, RUN, row, small_graph, word_table, word_task

EPOCHS = 8


class Stop(Exception):
    """The process was killed."""


class Stopping:
    """A progress that stops after an epoch, and keeps what it was told."""

    def __init__(self, after: int = -1) -> None:
        self.after, self.rows = after, []

    def __call__(self, told: dict) -> None:
        self.rows.append(told)
        if told["epoch"] == self.after:
            raise Stop


class Executing:
    """Fake outcomes, made of a hash of task and workflow; stops before it has executed so many pairs.

    The engine gives them in no order, and may draw random numbers.
    """

    def __init__(self, table: OutcomeTable, most: int = 10**6, backwards: bool = False) -> None:
        self.table, self.most, self.backwards, self.done = table, most, backwards, []

    def __call__(self, pairs: Sequence[tuple[Task, Workflow]]) -> None:
        torch.rand(3)
        for task, made in reversed(pairs) if self.backwards else pairs:
            if len(self.done) == self.most:
                raise Stop
            digest = hashlib.sha256(f"{task.id} {made.fingerprint}".encode()).digest()
            self.table.add(row(task, made, float(digest[0] % 2)), made)  # raises where it is there already
            self.done.append((task.id, made.fingerprint))


def config(kind: str, **more) -> GeneratorConfig:
    objective = ObjectiveConfig(ObjectiveKind(kind), warm_start=0.25, fit_steps=20, rounds=2, fresh=2)
    values: dict = {"features": FeatureConfig(dim=64), "model": ModelConfig(hidden=16), "objective": objective}
    return GeneratorConfig(**{**values, "epochs": EPOCHS, "patience": EPOCHS, **more})


def stored(path: Path) -> OutcomeTable:
    """A new table at a path; `OutcomeTable` of the same path reads what is in it."""
    table, made = OutcomeTable(path), word_table(24)
    for line in made.frame.to_dict("records"):
        table.add(line, made.workflows[line["fingerprint"]])
    return table


def assert_same(found: Generator, wanted: Generator) -> None:
    for name, value in wanted.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    assert found.report == wanted.report and found.executed == wanted.executed


@pytest.mark.parametrize("kind", [kind.value for kind in ObjectiveKind])
def test_a_stopped_training_ends_in_the_same_weights(kind: str, tmp_path: Path) -> None:
    """Rounds of ``best`` are before epochs 2 and 5, so one is before and one after the stop."""
    file, whole = tmp_path / "state" / "file", Stopping()
    table = stored(tmp_path / "whole.parquet")
    wanted = train_generator(table, small_graph(), config(kind), whole, execute=Executing(table))
    table = stored(tmp_path / "table.parquet")
    first, rest = Executing(table), Stopping()
    with pytest.raises(Stop):
        train_generator(table, small_graph(), config(kind), Stopping(3), execute=first, checkpoint=file)
    assert [path.name for path in file.parent.iterdir()] == ["file"]
    table = OutcomeTable(table.path)
    second = Executing(table)
    found = train_generator(table, small_graph(), config(kind), rest, execute=second, checkpoint=file)
    assert_same(found, wanted)
    assert rest.rows == whole.rows and len(whole.rows) == EPOCHS  # it is told the epochs before the stop as well
    assert not list(file.parent.iterdir())
    if kind == "best":
        assert first.done and second.done and not set(first.done) & set(second.done)
        assert found.report["fresh"] == len(first.done) + len(second.done) == len(table) - 72
    else:
        assert not first.done and not second.done and found.report["fresh"] == 0


@pytest.mark.parametrize("which", [0, 2, -1])
def test_a_round_that_was_stopped_goes_on_with_what_is_left(which: int, tmp_path: Path) -> None:
    """Stopped at the first or third pair of the first round, or at the last pair of the last."""
    table = stored(tmp_path / "whole.parquet")
    execute = Executing(table)
    wanted = train_generator(table, small_graph(), config("best"), execute=execute)
    table = stored(tmp_path / "table.parquet")
    first = Executing(table, most=range(len(execute.done))[which])
    with pytest.raises(Stop):
        train_generator(table, small_graph(), config("best"), execute=first, checkpoint=tmp_path / "file")
    table = OutcomeTable(table.path)
    second = Executing(table, backwards=True)
    found = train_generator(table, small_graph(), config("best"), execute=second, checkpoint=tmp_path / "file")
    assert_same(found, wanted)
    assert sorted(first.done + second.done) == sorted(execute.done)


def test_a_round_before_the_first_epoch(tmp_path: Path) -> None:
    """Without a warm start the first pairs are executed before there is an epoch to write a checkpoint after."""
    objective = ObjectiveConfig(ObjectiveKind.BEST, warm_start=0.0, rounds=1)
    settings = config("best", objective=objective, epochs=2)
    table = word_table(24)
    wanted = train_generator(table, small_graph(), settings, execute=Executing(table))
    table = word_table(24)
    with pytest.raises(Stop):
        train_generator(table, small_graph(), settings, execute=Executing(table, 2), checkpoint=tmp_path / "file")
    found = train_generator(table, small_graph(), settings, execute=Executing(table), checkpoint=tmp_path / "file")
    assert_same(found, wanted)


def test_an_early_stop_is_kept(tmp_path: Path) -> None:
    """Stopped after its last epoch, a training has no more of them."""
    table, settings, whole, rest = word_table(24), config("imitation", epochs=60, patience=2), Stopping(), Stopping()
    wanted = train_generator(table, small_graph(), settings, whole)
    assert len(whole.rows) < 60
    with pytest.raises(Stop):
        train_generator(table, small_graph(), settings, Stopping(len(whole.rows) - 1), checkpoint=tmp_path / "file")
    found = train_generator(table, small_graph(), settings, rest, checkpoint=tmp_path / "file")
    assert_same(found, wanted)
    assert rest.rows == whole.rows


def test_an_update_goes_on_too(tmp_path: Path) -> None:
    start = train_generator(word_table(24), small_graph(), config("expected", seed=3))
    wanted = train_generator(word_table(24), small_graph(), config("expected"), start=start)
    with pytest.raises(Stop):
        train_generator(
            word_table(24), small_graph(), config("expected"), Stopping(2), start, checkpoint=tmp_path / "file"
        )
    with pytest.raises(CheckpointError, match="first weights is [0-9a-f]{12} there and new here"):
        train_generator(word_table(24), small_graph(), config("expected"), checkpoint=tmp_path / "file")
    found = train_generator(
        word_table(24), small_graph(), config("expected"), start=start, checkpoint=tmp_path / "file"
    )
    assert_same(found, wanted)


def stop(table: OutcomeTable, file: Path) -> None:
    """Leave the checkpoint of a training that ran its first round."""
    with pytest.raises(Stop):
        train_generator(table, small_graph(), config("best"), Stopping(3), execute=Executing(table), checkpoint=file)


def test_what_others_add_meanwhile_is_not_looked_at(tmp_path: Path) -> None:
    table = word_table(24)
    wanted = train_generator(table, small_graph(), config("best"), execute=Executing(table))
    table = word_table(24)
    stop(table, tmp_path / "file")
    other, _ = word_task(99)
    table.add(row(other, COT, 1.0), COT)
    table.add(row(word_task(0)[0], FIX, 1.0), FIX)
    found = train_generator(
        table, small_graph(), config("best"), execute=Executing(table), checkpoint=tmp_path / "file"
    )
    assert_same(found, wanted)


def test_other_trainings_are_refused(tmp_path: Path) -> None:
    table, file = word_table(24), tmp_path / "file"
    stop(table, file)
    before = file.read_bytes()

    def refused(message: str, table: OutcomeTable = table, graph=None, **more) -> None:
        with pytest.raises(CheckpointError, match=message):
            train_generator(
                table, graph or small_graph(), config("best", **more), execute=Executing(table), checkpoint=file
            )
        assert file.read_bytes() == before

    refused("another training: generator.seed is 0 there and 1 here; delete it", seed=1)
    refused(
        "generator.model.hidden is 16 there and 32 here; generator.batch is 32 there and 8",
        batch=8,
        model=ModelConfig(hidden=32),
    )
    refused("wGraph is [0-9a-f]{12} there and [0-9a-f]{12} here; delete", graph=small_graph().add(FIX))
    refused("outcomes is 72 rows [0-9a-f]{12} there and 60 rows", table=word_table(20))
    changed = OutcomeTable()
    for number, line in enumerate(word_table(24).frame.to_dict("records")):
        metric = 1 - line["metric"] if number == 70 else line["metric"]
        changed.add({**line, "metric": metric}, table.workflows[line["fingerprint"]])
    refused("outcomes is 72 rows [0-9a-f]{12} there and 72 rows", table=changed)


def test_outcomes_that_were_lost_are_missed(tmp_path: Path) -> None:
    stop(word_table(24), tmp_path / "file")
    table = word_table(24)
    with pytest.raises(ValueError, match="the table has no outcome of workflow [0-9a-f]{12} on task 't"):
        train_generator(table, small_graph(), config("best"), execute=Executing(table), checkpoint=tmp_path / "file")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    state = {"weights": {"a": torch.arange(50.0)}, "rows": [{"epoch": 0, "loss": 0.5}], "best": {"mark": float("-inf")}}
    checkpoint.write(file, state)
    whole = file.read_bytes()
    found = checkpoint.read(file)
    assert torch.equal(found["weights"]["a"], torch.arange(50.0))
    assert found["rows"] == state["rows"] and found["best"] == state["best"]
    for size in range(0, len(whole), 61):
        file.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="is damaged|does not begin as a checkpoint"):
            checkpoint.read(file)
    for place in range(0, len(whole), 23):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            checkpoint.read(file)
    file.write_text("something else")
    with pytest.raises(CheckpointError, match=f"{file} does not begin as a checkpoint of a generator does"):
        train_generator(word_table(24), small_graph(), config("imitation"), checkpoint=file)
    assert file.read_text() == "something else"


def test_identity_survives_the_way_through_a_file(tmp_path: Path) -> None:
    """Rows come back from parquet as other types: whole numbers as floats, for one."""
    table = stored(tmp_path / "table.parquet")
    table.add({**row(word_task(30)[0], RUN, 1), "latency_s": 2}, RUN)
    before = checkpoint.identity(config("best"), small_graph(), table, None)
    table.save()
    assert checkpoint.identity(config("best"), small_graph(), OutcomeTable(table.path), None) == before
