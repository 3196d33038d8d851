from __future__ import annotations

import pytest
import torch

from graphflow.generator.features import FeatureConfig, build_encoder
from graphflow.generator.lessons import Lessons, best_on, realised, shrink, split, tabulate
from graphflow.generator.objectives import Outcomes
from graphflow.generator.outcomes import OutcomeTable, RewardConfig
from tests.generator.small import COT, RUN, VOTE, row, word_table, word_task

ENCODER = build_encoder(FeatureConfig(dim=64))


def test_split_by_benchmark() -> None:
    tasks = word_table(25).tasks()
    learn, check = split(tasks, 0.2, torch.Generator().manual_seed(0))
    assert (len(learn), len(check)) == (20, 5)
    assert sorted([*learn.tolist(), *check.tolist()]) == list(range(25))


def test_tabulate_by_hand() -> None:
    # Seeds are averaged, VOTE is not asked for, the first task has no RUN; 100 tokens cost 0.01 each time.
    table, (first, _), (second, _) = OutcomeTable(), word_task(0), word_task(1)
    for task, made, metric, seed in ((second, RUN, 0.5, 0), (first, COT, 1.0, 0), (first, COT, 0.0, 1)):
        table.add(row(task, made, metric, seed), made)
    table.add(row(first, VOTE, 1.0), VOTE)
    found = tabulate(table, [first, second], [COT, RUN], RewardConfig(tokens=0.1), ENCODER)
    assert torch.allclose(found.reward, torch.tensor([[0.49, 0.0], [0.0, 0.49]]))
    assert found.known.tolist() == [[True, False], [False, True]]
    assert torch.equal(found.features[1], ENCODER.encode([second.text])[0])
    with pytest.raises(ValueError, match="no usable workflow was executed on 1 tasks, among them 't1'"):
        tabulate(table, [first, second], [VOTE], RewardConfig(), ENCODER)


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
    """Weight 3. Benchmark a: 1 and 0 in the first column, 1 (once) in the second, none in the third: mean 2/3."""
    reward = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    known = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    outcomes = Outcomes(torch.zeros(3, 4), reward, known)
    lessons = outcomes.at(torch.tensor([0, 1]))
    found = shrink(outcomes, ["a", "a", "b"], lessons, ["a", "a"], 3.0)
    # Columns: (1 + 3 * 2/3) / (2 + 3) = 0.6 and (1 + 3 * 2/3) / (1 + 3) = 0.75. Cells: (1 + 3 * 0.6) / 4 and so on; the
    # second column is to be expected to earn 0.75 where it was not executed. b has no lessons.
    assert torch.allclose(found.reward, torch.tensor([[0.7, 0.8125, 0.0], [0.45, 0.75, 0.0], [0.5, 0.0, 0.0]]))
    assert found.known.tolist() == [[True, True, False], [True, True, False], [True, True, False]]


def test_without_shrinkage_an_outcome_is_believed() -> None:
    reward, known = torch.tensor([[1.0, 0.5], [0.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    outcomes = Outcomes(torch.zeros(2, 4), reward, known)
    found = shrink(outcomes, ["a", "a"], outcomes.at(torch.tensor([0])), ["a"], 0.0)
    assert found.reward.tolist() == [[1.0, 0.5], [0.0, 0.5]]


def test_a_workflow_executed_once_is_hardly_believed() -> None:
    """39 executions of half a point, and one lucky one of another workflow: it is expected near to the others."""
    reward, known = torch.full((39, 2), 0.5), torch.ones(39, 2, dtype=torch.bool)
    known[1:, 1], reward[0, 1], reward[1:, 1] = False, 1.0, 0.0
    outcomes = Outcomes(torch.zeros(39, 4), reward, known)
    found = shrink(outcomes, ["a"] * 39, outcomes, ["a"] * 39, 3.0).reward
    mean = (39 * 0.5 + 1) / 40
    expected = (1 + 3 * mean) / 4
    assert found[0, 1].item() == pytest.approx((1 + 3 * expected) / 4)
    assert found[1, 1].item() == pytest.approx(expected) and expected < 0.65


def test_lessons_keep_the_validation_tasks_apart() -> None:
    """Only what was executed on a training task is learned; a mark may lean on what training tasks said."""
    table, tasks = OutcomeTable(), [word_task(index)[0] for index in range(4)]
    for index, task in enumerate(tasks):
        table.add(row(task, COT, 1.0, tokens=0), COT)
        if index == 0:
            table.add(row(task, RUN, 0.0, tokens=0), RUN)
        if index == 3:
            table.add(row(task, VOTE, 0.0, tokens=0), VOTE)
    parts = (torch.tensor([0, 1]), torch.tensor([2, 3]))
    found = Lessons.of(table, [COT, RUN, VOTE], parts, RewardConfig(), 1.0, ENCODER)
    assert [task.id for task in found.held_out] == ["t2", "t3"]
    # Training: 1, 1 and 0, mean 2/3. Columns: (2 + 2/3) / 3 = 8/9, (0 + 2/3) / 2 = 1/3 and, never executed, 2/3.
    assert torch.allclose(found.taught.reward, torch.tensor([[17 / 18, 1 / 6, 0], [17 / 18, 0, 0]]))
    assert found.taught.known.tolist() == [[True, True, False], [True, False, False]]
    assert torch.allclose(found.marked.reward, torch.tensor([[17 / 18, 1 / 3, 0], [17 / 18, 1 / 3, 1 / 3]]))
    # RUN on t2 and VOTE on t3: RUN was not executed there, so it counts as COT, 1; VOTE earned 0.
    told = found.examine([RUN, VOTE])
    assert told == {"mark": pytest.approx(1 / 3), "reward": pytest.approx(0.5), "coverage": 0.5}
    assert found.bounds() == {"best_fixed_reward": 1.0, "oracle_reward": 1.0}
