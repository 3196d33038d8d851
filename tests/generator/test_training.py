from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from graphflow.engine.episode import Task
from graphflow.generator.features import FeatureConfig
from graphflow.generator.generator import Generator, GeneratorConfig, GeneratorError
from graphflow.generator.lessons import Lessons, split
from graphflow.generator.model import ModelConfig
from graphflow.generator.objectives import ObjectiveConfig, ObjectiveKind
from graphflow.generator.outcomes import OutcomeTable
from graphflow.generator.training import rounds_of, train_generator
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import Workflow
from tests.generator.small import COT, FIX, LIBRARY, RUN, VOTE, row, small_graph, word_table, word_task


def config(**more) -> GeneratorConfig:
    values: dict = {"features": FeatureConfig(dim=256), "model": ModelConfig(hidden=32), "epochs": 100, "patience": 25}
    return GeneratorConfig(**{**values, **more})


@pytest.fixture(scope="module")
def trained() -> Generator:
    return train_generator(word_table(160), small_graph(), config())


def test_the_word_that_matters_is_found(trained: Generator) -> None:
    held_out = [word_task(index) for index in range(1000, 1150)]
    chosen = trained.compose([task for task, _ in held_out])
    right = sum(workflow == wanted for workflow, (_, wanted) in zip(chosen, held_out, strict=True))
    assert right / len(held_out) > 0.9
    assert trained.report["reward"] > trained.report["best_fixed_reward"] + 0.2
    assert trained.report["reward"] <= trained.report["oracle_reward"]
    assert trained.report["ignored"] == []


def test_composing_is_deterministic_and_batches_do_not_matter(trained: Generator) -> None:
    tasks = [word_task(index)[0] for index in range(2000, 2070)]
    together = trained.compose(tasks)
    assert trained.compose(tasks) == together
    assert [trained.compose([task])[0] for task in tasks[:5]] == together[:5]


def test_sampling_explores(trained: Generator) -> None:
    tasks = [word_task(3)[0]] * 40
    seen = {workflow.fingerprint for workflow in trained.sample(tasks, torch.Generator().manual_seed(0), 30.0)}
    assert len(seen) > 3
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        trained.sample(tasks, torch.Generator(), 0)


def test_save_and_load(trained: Generator, tmp_path: Path) -> None:
    trained.save(tmp_path)
    tasks = [word_task(index)[0] for index in range(20)]
    loaded = Generator.load(tmp_path, small_graph())
    assert loaded.compose(tasks) == trained.compose(tasks)
    assert loaded.config == trained.config and loaded.report == trained.report
    grown = small_graph().add(FIX)
    with pytest.raises(GeneratorError, match="only there: none; only here: fix"):
        Generator.load(tmp_path, grown)
    moved = Generator.load(tmp_path, grown, grown=True)
    assert len(moved.compose(tasks)) == 20


def test_same_seed_same_weights() -> None:
    table = word_table(20)
    first, second = (train_generator(table, small_graph(), config(epochs=2)) for _ in range(2))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    other = train_generator(table, small_graph(), config(epochs=2, seed=1))
    assert not torch.equal(first.model.edge_out.weight, other.model.edge_out.weight)


def test_a_grown_graph_starts_from_a_trained_one(trained: Generator) -> None:
    rows: list[dict] = []
    grown = small_graph().add(FIX)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    updated = train_generator(word_table(40), grown, config(epochs=1), progress=rows.append, start=trained)
    assert rows[0]["reward"] > updated.report["best_fixed_reward"]  # one epoch would not do from nothing
    assert all(torch.equal(value, before[name]) for name, value in trained.model.state_dict().items())


def test_mask_kind_keeps_to_the_kind() -> None:
    generator = Generator(config(mask_kind=True), merge([COT, RUN, VOTE, FIX], LIBRARY))
    task, _ = word_task(0)
    assert {step.op for step in generator.compose([task])[0].steps} <= {"cot", "program", "run", "vote"}


def test_workflows_outside_the_graph_are_left_out() -> None:
    table = word_table(10)
    table.add(row(word_task(0)[0], FIX, 1.0), FIX)
    assert train_generator(table, small_graph(), config(epochs=1)).report["ignored"] == ["fix"]


def test_tables_that_cannot_teach() -> None:
    with pytest.raises(ValueError, match="at least 5 tasks, got 2"):
        train_generator(word_table(2), small_graph(), config())
    table = OutcomeTable()
    for index in range(5):
        task, _ = word_task(index)
        table.add(row(task, FIX, 1.0), FIX)
    with pytest.raises(ValueError, match="none of the table's workflows lies in the wGraph: fix"):
        train_generator(table, small_graph(), config())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shrinkage": -1.0}, "generator.shrinkage must be at least 0, got -1.0"),
        ({"decode": "beam"}, "'beam' is not a valid DecodeKind"),
        ({"max_llm_calls": 0}, "generator.max_llm_calls must be between 1 and 64, got 0"),
        ({"epochs": 0}, "generator.epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "generator.learning_rate must be positive, got 0.0"),
        ({"validation": 1.0}, "generator.validation must be above 0 and below 1, got 1.0"),
    ],
)
def test_config_is_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**values)


class Executing:
    """Runs pairs on made-up tasks: the workflow that a task asks for succeeds, any other fails."""

    def __init__(self, table: OutcomeTable) -> None:
        self.table, self.pairs = table, []

    def __call__(self, pairs: Sequence[tuple[Task, Workflow]]) -> None:
        for task, made in pairs:
            _, right = word_task(int(task.id[1:]))
            self.table.add(row(task, made, float(made == right)), made)
        self.pairs += pairs


def two_of_three(size: int) -> OutcomeTable:
    """Outcomes of COT and RUN alone, where they are right; VOTE, which a third of the tasks asks for, was never run."""
    table = OutcomeTable()
    for task, right in map(word_task, range(size)):
        for made in (COT, RUN):
            table.add(row(task, made, float(made == right)), made)
    return table


def best(**more) -> ObjectiveConfig:
    return ObjectiveConfig(ObjectiveKind.BEST, **{"warm_start": 0.1, **more})


def test_best_finds_what_the_table_does_not_hold() -> None:
    """Tasks with the word "odd" need VOTE: only fresh executions can tell, and validation must believe them."""
    table = two_of_three(120)
    settings, execute = config(epochs=40, objective=best(warm_start=0.0, fresh=8, rounds=6)), Executing(table)
    found = train_generator(table, small_graph(), settings, execute=execute)
    held_out = [pair for pair in map(word_task, range(1000, 1150)) if pair[1] == VOTE]
    chosen = found.compose([task for task, _ in held_out])
    assert sum(made == VOTE for made in chosen) / len(held_out) > 0.9
    assert found.report["fresh"] == len(execute.pairs) == len(table) - 240 > 0
    unable = train_generator(two_of_three(120), small_graph(), config(epochs=10))
    assert VOTE not in unable.compose([task for task, _ in held_out])
    assert unable.report["fresh"] == 0


def test_fresh_executions_are_of_training_tasks_and_new() -> None:
    """Every pair is executed once, whatever is drawn how often; what the table holds under another seed is held."""
    table = two_of_three(40)
    for task, _ in map(word_task, range(40)):
        table.add(row(task, VOTE, 0.5, seed=7), VOTE)
    before, tasks, execute = table.pairs(), table.tasks(), Executing(table)
    settings = config(epochs=10, objective=best(fresh=4, rounds=9))
    train_generator(table, small_graph(), settings, execute=execute)
    learn, check = split(tasks, settings.validation, torch.Generator().manual_seed(settings.seed))
    asked = [(task.id, made.fingerprint) for task, made in execute.pairs]
    assert asked and len(set(asked)) == len(asked) and not set(asked) & before
    assert {task for task, _ in asked} <= {tasks[i].id for i in learn}
    assert not {task for task, _ in asked} & {tasks[i].id for i in check}


def test_the_report_is_of_the_last_table() -> None:
    """The kept epoch is older than the last round, which the marks of both must count."""
    table, rows = two_of_three(40), []
    settings = config(epochs=30, objective=best(warm_start=0.0, fresh=8, rounds=6))
    found = train_generator(table, small_graph(), settings, rows.append, execute=Executing(table))
    last = rounds_of(settings)[-1]
    workflows, _ = found.sampler.composable(table.workflows.values())
    parts = split(table.tasks(), settings.validation, torch.Generator().manual_seed(settings.seed))
    lessons = Lessons.of(table, workflows, parts, settings.reward, settings.shrinkage, found.encoder)
    told = lessons.examine(found.compose(lessons.held_out))
    assert {name: found.report[name] for name in told} == told
    assert found.report["mark"] >= max(row["mark"] for row in rows[last:]) - 1e-9


def test_every_round_is_run_before_training_stops_early() -> None:
    table, rows = two_of_three(20), []
    settings = config(epochs=20, patience=1, objective=best(rounds=3))
    train_generator(table, small_graph(), settings, rows.append, execute=Executing(table))
    assert rounds_of(settings) == [2, 8, 14]
    assert 15 < len(rows) <= 20


def test_rounds_by_hand() -> None:
    def rounds(epochs: int, warm_start: float, count: int) -> list[int]:
        objective = ObjectiveConfig(ObjectiveKind.BEST, warm_start=warm_start, rounds=count)
        return rounds_of(GeneratorConfig(epochs=epochs, objective=objective))

    assert rounds(100, 0.2, 3) == [20, 46, 73]  # every 80 / 3 epochs
    assert rounds(10, 0.0, 1) == [0]
    assert rounds(5, 0.5, 9) == [3, 4]  # at most once an epoch
    with pytest.raises(ValueError, match="needs an epoch after the warm start, got generator.epochs=2 with .*=0.9"):
        rounds(2, 0.9, 3)


def test_best_cannot_do_without_executing() -> None:
    table = two_of_three(10)
    with pytest.raises(ValueError, match="objective 'best' executes workflows while it trains: give train_generator"):
        train_generator(table, small_graph(), config(objective=best()))
    settings = config(epochs=2, objective=ObjectiveConfig(ObjectiveKind.BEST, warm_start=0.0, fresh=20))
    with pytest.raises(ValueError, match="the table has no outcome of workflow [0-9a-f]{12} on task 't"):
        train_generator(table, small_graph(), settings, execute=lambda pairs: None)


def test_executing_does_not_disturb_training() -> None:
    """The same outcomes from something that draws random numbers lead to the same weights."""

    def train(noisy: bool) -> Generator:
        table = two_of_three(20)
        execute = Executing(table)

        def run(pairs: Sequence[tuple[Task, Workflow]]) -> None:
            execute(pairs)
            if noisy:
                torch.rand(5)

        found = train_generator(table, small_graph(), config(epochs=3, objective=best(warm_start=0.0)), execute=run)
        assert execute.pairs
        return found

    quiet, noisy = (train(noisy).model.state_dict() for noisy in (False, True))
    assert all(torch.equal(value, noisy[name]) for name, value in quiet.items())
