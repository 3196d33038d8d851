from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from graphflow.generator.features import FeatureConfig
from graphflow.generator.generator import Generator, GeneratorConfig, GeneratorError
from graphflow.generator.model import ModelConfig
from graphflow.generator.objectives import Outcomes
from graphflow.generator.outcomes import OutcomeTable
from graphflow.generator.training import best_on, realised, shrink, split, train_generator
from graphflow.paths import ROOT
from graphflow.wgraph.wgraph import merge
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


def test_split_by_benchmark() -> None:
    tasks = word_table(25).tasks()
    learn, check = split(tasks, 0.2, torch.Generator().manual_seed(0))
    assert (len(learn), len(check)) == (20, 5)
    assert sorted([*learn.tolist(), *check.tolist()]) == list(range(25))


def test_realised_reward_by_hand() -> None:
    # Task 0: COT was executed and earned 1. Task 1: VOTE was not; COT and RUN earned 0.2 and 0.6, mean 0.4.
    reward = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.6, 0.0]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    found = realised([COT, VOTE], Outcomes(torch.zeros(2, 4), reward, known), [COT, RUN, VOTE])
    assert found == (pytest.approx(0.7), 0.5)


def test_best_on_by_hand() -> None:
    reward = torch.tensor([[0.0, 1.0, 1.0], [0.5, 0.0, 0.0], [1.0, 0.0, 0.0]])
    known = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    # a: means 0.25, 0.5 over two tasks; the third was run on one only. b: the first.
    assert best_on(Outcomes(torch.zeros(3, 4), reward, known), ["a", "a", "b"]) == {"a": 1, "b": 0}


def test_shrinking_by_hand() -> None:
    # Benchmark a: means 0.5 and 1 (the second was run once); strength 3: (1 + 3 * 0.5) / 4 and so on. b has no lessons.
    reward = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5, 0.0]])
    known = torch.tensor([[True, True], [True, False], [True, True]])
    outcomes = Outcomes(torch.zeros(3, 4), reward, known)
    lessons = outcomes.at(torch.tensor([0, 1]))
    found = shrink(outcomes, ["a", "a", "b"], lessons, ["a", "a"], 3.0)
    assert torch.allclose(found.reward, torch.tensor([[0.625, 1.0], [0.375, 0.0], [0.5, 0.0]]))
    assert torch.equal(shrink(outcomes, ["a", "a", "b"], lessons, ["a", "a"], 0.0).reward, reward)


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


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scripts_parse_their_defaults() -> None:
    train = load_script("train_generator")
    assert train.config(train.parse(["--table", "t", "--out", "o"])) == GeneratorConfig()
    collect = load_script("collect_outcomes")
    assert collect.parse(["--table", "t"]).split == "train"
    with pytest.raises(SystemExit, match="no outcome table at nowhere.parquet"):
        train.main(["--table", "nowhere.parquet", "--out", "o"])


def test_build_wgraph_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_script("build_wgraph").main(["--out", str(tmp_path / "wgraph.json")])
    assert "wGraph of" in capsys.readouterr().out
    written = json.loads((tmp_path / "wgraph.json").read_text())
    assert {"id": "task", "op": "task"}.items() <= written["nodes"][0].items()
