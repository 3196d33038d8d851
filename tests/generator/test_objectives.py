from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch

from graphflow.generator.grammar import DONE, START, State
from graphflow.generator.objectives import (
    Expected,
    Gumbel,
    Imitation,
    ObjectiveConfig,
    ObjectiveKind,
    OutcomeModel,
    Outcomes,
    Reinforce,
    build_objective,
    imitation_loss,
)
from graphflow.generator.sampling import Plans, Sampler, Selection
from graphflow.wgraph.workflow import Workflow
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


@pytest.mark.parametrize("kind", ["expected", "best"])
def test_warm_start_imitates(kind: str) -> None:
    sampler, objective = build(kind, warm_start=0.5, sharpness=0.0)
    logits = torch.zeros(1, sampler.grammar.size)
    assert objective.loss(logits, BATCH, torch.Generator(), 0.4).item() == pytest.approx(math.log(4))
    assert objective.loss(logits, BATCH, torch.Generator(), 0.5).item() == pytest.approx(-(0.5 + 0.1 * math.log(0.5)))


@pytest.mark.parametrize("kind", [kind.value for kind in ObjectiveKind])
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


@pytest.mark.parametrize("kind", ["gumbel", "reinforce"])
def test_an_outcome_model_must_be_prepared(kind: str) -> None:
    sampler, objective = build(kind, warm_start=0.0)
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


def test_straight_through_gradient_against_finite_differences() -> None:
    """What reaches the logits is the slope of the outcome model at the decoded masks, times that of the relaxed ones.

    Both slopes by central differences, in double precision, with the noise and the temperature of the step.
    """
    torch.manual_seed(0)
    sampler, objective = build("gumbel")
    objective.model = OutcomeModel(4, sampler.grammar.size).double()
    features = torch.randn(3, 4, dtype=torch.float64)
    batch = Outcomes(features, torch.zeros(3, 3), torch.ones(3, 3, dtype=torch.bool))
    logits = torch.randn(3, sampler.grammar.size, dtype=torch.float64, requires_grad=True)
    objective.value(logits, logits, batch, torch.Generator().manual_seed(5), 0.5).sum().backward()
    noise = sampler.noise(3, torch.Generator().manual_seed(5)).double()
    temperature = math.sqrt(objective.config.start_temperature * objective.config.end_temperature)  # half-way

    def slope(of: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor, step: float = 1e-6) -> torch.Tensor:
        moves = step * torch.eye(at.numel(), dtype=at.dtype).view(-1, *at.shape)
        return torch.stack([(of(at + move) - of(at - move)) / (2 * step) for move in moves]).view_as(at)

    with torch.no_grad():
        hard = torch.stack([sampler.mask(selection) for selection in sampler.select(logits + noise)]).double()
        weights = slope(lambda masks: objective.model(features, masks).sum(), hard)
        wanted = slope(lambda at: (weights * sampler.relax(at + noise, temperature)).sum(), logits)
    assert logits.grad is not None
    assert (logits.grad - wanted).abs().max().item() < 1e-7, (logits.grad - wanted).abs().max()
    assert wanted.abs().max() > 0.001


def every_workflow(sampler: Sampler) -> list[Workflow]:
    """All that the grammar allows, by walking its choices."""
    found: set[Selection] = set()

    def walk(state: State, edges: tuple[int, ...], answer: int) -> None:
        if state == DONE:
            found.add(Selection(tuple(sorted(edges)), answer))
            return
        for option in sampler.grammar.options(state):
            count = len(sampler.wgraph.edges)
            if state is START:
                walk(option.state, edges, option.logit - count)
            else:
                walk(option.state, (*edges, option.logit) if option.logit < count else edges, answer)

    walk(START, (), 0)
    return [sampler.workflow(selection) for selection in sorted(found)]


def reinforced() -> tuple[Reinforce, Plans, torch.Tensor, torch.Tensor]:
    """An objective, all six workflows, logits for one task, and the gradient of the expected reward over the six."""
    torch.manual_seed(0)
    sampler, objective = build("reinforce", warm_start=0.0, samples=1, fit_steps=1)
    assert isinstance(objective, Reinforce)
    objective.prepare(BATCH, torch.Generator().manual_seed(0))
    everything = sampler.plans(every_workflow(sampler))
    assert len(everything.selections) == 6
    logits = (0.7 * torch.randn(1, sampler.grammar.size)).requires_grad_()
    rewards = objective.reward(everything.selections, BATCH)
    (exact,) = torch.autograd.grad((everything.log_prob(logits)[0].exp() * rewards).sum(), logits)
    return objective, everything, logits, exact[0]


def estimate(objective: Reinforce, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The gradient of one step, with a baseline that is far off."""
    objective.baseline, objective._steps = 0.3, 10**6
    (gradient,) = torch.autograd.grad(objective.value(logits, logits, BATCH, generator, 0.0).sum(), logits)
    return gradient[0]


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_the_score_function_estimate_is_unbiased_by_enumeration(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimates of all six workflows, each as often as it is drawn, are together the gradient, exactly."""
    objective, everything, logits, exact = reinforced()
    mean = torch.zeros_like(exact)
    for selection, share in zip(everything.selections, everything.log_prob(logits)[0].exp().tolist(), strict=True):
        monkeypatch.setattr(objective.sampler, "select", lambda rows, drawn=selection: [drawn] * len(rows))
        monkeypatch.setattr(objective, "_above", lambda rewards: shift)  # whatever the baseline is
        mean += share * estimate(objective, logits, torch.Generator().manual_seed(0))
    assert (mean - exact).abs().max().item() < 1e-6, (mean - exact).abs().max()
    assert exact.abs().max() > 0.01


def test_the_score_function_estimate_of_draws_is_unbiased() -> None:
    """6,000 draws, 60 a step: the mean gradient is within five standard errors of the exact one in every entry."""
    objective, _, logits, exact = reinforced()
    objective.config.samples, generator = 60, torch.Generator().manual_seed(1)
    draws = torch.stack([estimate(objective, logits, generator) for _ in range(100)])
    mean, error = draws.mean(0), draws.std(0) / len(draws) ** 0.5
    assert exact.abs().max() > 20 * error.max()
    assert ((mean - exact).abs() <= 5 * error + 1e-7).all()


def test_the_baseline_is_the_average_of_earlier_steps() -> None:
    _, objective = build("reinforce", baseline_decay=0.5)
    assert objective._above(torch.tensor([1.0, 0.0])) == 0.0  # nothing came before
    assert objective._above(torch.tensor([0.8])) == pytest.approx(0.5)
    assert objective._above(torch.tensor([0.0])) == pytest.approx((0.5 * 0.5 * 0.5 + 0.5 * 0.8) / 0.75)


def test_draws_have_executed_rewards_where_there_are_any() -> None:
    sampler, objective = build("reinforce")
    objective.prepare(BATCH, torch.Generator().manual_seed(0))
    cot, run, vote = objective.plans.selections
    rewards = objective.reward([cot, run, vote], BATCH)
    assert rewards[:2].tolist() == [1.0, 0.0]
    torch.testing.assert_close(rewards[2:], objective.predict(BATCH.features, sampler.mask(vote)[None]))  # not executed


def test_build() -> None:
    kinds = {"imitation": Imitation, "expected": Expected, "gumbel": Gumbel, "reinforce": Reinforce, "best": Expected}
    assert {kind.value: type(build(kind.value)[1]) for kind in ObjectiveKind} == kinds


@pytest.mark.parametrize("kind", [kind.value for kind in ObjectiveKind])
def test_an_objective_goes_on_from_its_state(kind: str) -> None:
    torch.manual_seed(0)
    sampler, first = build(kind, warm_start=0.0, fit_steps=3)
    first.prepare(BATCH, torch.Generator().manual_seed(0))
    logits = torch.randn(1, sampler.grammar.size)
    first.loss(logits, BATCH, torch.Generator().manual_seed(1), 0.5)
    _, second = build(kind, warm_start=0.0, fit_steps=3)
    second.restore(copy.deepcopy(first.state()))
    losses = [one.loss(logits, BATCH, torch.Generator().manual_seed(2), 0.5).item() for one in (first, second)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sharpness": -1.0}, "objective.sharpness must be at least 0, got -1.0"),
        ({"warm_start": 1.0}, r"objective.warm_start must be in \[0, 1\), got 1.0"),
        ({"end_temperature": 2.0}, r"at most start_temperature \(1.0\), got 2.0"),
        ({"fit_steps": 0}, "objective.fit_steps must be at least 1, got 0"),
        ({"rounds": 0}, "objective.rounds must be at least 1, got 0"),
        ({"fresh": 0}, "objective.fresh must be at least 1, got 0"),
        ({"samples": 0}, "objective.samples must be at least 1, got 0"),
        ({"baseline_decay": 1.0}, r"objective.baseline_decay must be in \[0, 1\), got 1.0"),
    ],
)
def test_config_is_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectiveConfig(**values)
