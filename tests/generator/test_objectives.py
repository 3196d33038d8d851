from __future__ import annotations

import math

import pytest
import torch

from graphflow.generator.objectives import (
    Expected,
    Gumbel,
    Imitation,
    ObjectiveConfig,
    ObjectiveKind,
    OutcomeModel,
    Outcomes,
    build_objective,
    imitation_loss,
)
from graphflow.generator.sampling import Sampler
from tests.generator.small import COT, RUN, VOTE, small_graph

BATCH = Outcomes(torch.eye(4)[:1], torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[True, True, False]]))


def build(kind: str, **more: float):
    sampler = Sampler(small_graph())
    objective = build_objective(ObjectiveConfig(ObjectiveKind(kind), **more), sampler, sampler.plans([COT, RUN, VOTE]))
    return sampler, objective


def test_imitation_by_hand() -> None:
    log_prob = torch.tensor([[-1.0, -2.0, -9.0]])
    assert imitation_loss(log_prob, BATCH, 0.0).item() == 1.0  # the best executed one
    weight = 1 / (1 + math.exp(-1))  # softmax of (1, 0); the third was not executed
    assert imitation_loss(log_prob, BATCH, 1.0).item() == pytest.approx(weight * 1 + (1 - weight) * 2)


def test_expected_by_hand() -> None:
    # Zero logits: COT and RUN have probability 1/4 each, so each 1/2 of the executed ones, which have 1/2 together.
    sampler, objective = build("expected", warm_start=0.0, sharpness=0.3, anchor=0.2)
    loss = objective.loss(torch.zeros(1, sampler.grammar.size), BATCH, torch.Generator(), 0.0)
    assert loss.item() == pytest.approx(-(0.5 + 0.3 * math.log(2) + 0.2 * math.log(0.5)))


def test_warm_start_imitates() -> None:
    sampler, objective = build("expected", warm_start=0.5, sharpness=0.0)
    logits = torch.zeros(1, sampler.grammar.size)
    assert objective.loss(logits, BATCH, torch.Generator(), 0.4).item() == pytest.approx(math.log(4))
    assert objective.loss(logits, BATCH, torch.Generator(), 0.5).item() == pytest.approx(-(0.5 + 0.1 * math.log(0.5)))


@pytest.mark.parametrize("kind", ["imitation", "expected", "gumbel"])
def test_gradient_steps_raise_the_probability_of_the_better_workflow(kind: str) -> None:
    torch.manual_seed(0)
    sampler, objective = build(kind, warm_start=0.0, sharpness=0.05, fit_steps=100)
    generator = torch.Generator().manual_seed(0)
    batch = Outcomes(
        torch.eye(4)[:1].repeat(8, 1), torch.tensor([[1.0, 0.0, 0.0]]).repeat(8, 1), torch.ones(8, 3, dtype=torch.bool)
    )
    objective.prepare(batch, generator)
    logits = torch.zeros(1, sampler.grammar.size, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for step in range(60):
        optimiser.zero_grad()
        objective.loss(logits.expand(8, -1), batch, generator, step / 60).backward()
        optimiser.step()
    assert objective.plans.log_prob(logits)[0, 0].exp().item() > 0.7


def test_gumbel_must_be_prepared() -> None:
    sampler, objective = build("gumbel", warm_start=0.0)
    with pytest.raises(RuntimeError, match="prepare must be called"):
        objective.loss(torch.zeros(1, sampler.grammar.size), BATCH, torch.Generator(), 0.0)


def test_gumbel_gradient_through_the_outcome_model_against_finite_differences() -> None:
    torch.manual_seed(0)
    sampler = Sampler(small_graph())
    model = OutcomeModel(4, sampler.grammar.size).double()
    noise = sampler.noise(1, torch.Generator().manual_seed(0)).double()
    features = torch.eye(4, dtype=torch.float64)[:1]

    def relaxed(at: torch.Tensor) -> torch.Tensor:
        return model(features, sampler.relax(at + noise, 0.8)).sum()

    logits = torch.zeros(1, sampler.grammar.size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(relaxed, logits, eps=1e-6, atol=1e-6)


def test_build() -> None:
    assert [type(build(kind)[1]) for kind in ("imitation", "expected", "gumbel")] == [Imitation, Expected, Gumbel]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sharpness": -1.0}, "objective.sharpness must be at least 0, got -1.0"),
        ({"warm_start": 1.0}, r"objective.warm_start must be in \[0, 1\), got 1.0"),
        ({"end_temperature": 2.0}, r"at most start_temperature \(1.0\), got 2.0"),
        ({"fit_steps": 0}, "objective.fit_steps must be at least 1, got 0"),
    ],
)
def test_config_is_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**values)
