from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch

from graphflow.generator.sampling import Sampler
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import WorkflowError, validate
from tests.generator.small import COT, FIX, LIBRARY, RUN, VOTE, random_workflows, small_graph


def split(sampler: Sampler, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    edges = len(sampler.wgraph.edges)
    return logits[:, :edges], logits[:, edges:]


def zeros(sampler: Sampler, rows: int = 1) -> torch.Tensor:
    return torch.zeros(rows, sampler.grammar.size)


def test_probability_by_hand() -> None:
    # Zero logits: one of 4 answers; vote then says yes or no to cot (1/2) and, if yes, to run (1/2).
    sampler = Sampler(small_graph())
    found = sampler.plans([COT, RUN, VOTE]).log_prob(zeros(sampler))[0].exp()
    assert torch.allclose(found, torch.tensor([1 / 4, 1 / 4, 1 / 16]))
    # Logit 1 for cot -> vote (edge 3) and 2 for the answer vote (node 4): e^2/(e^2+3) * sigmoid(1) * 1/2.
    logits = zeros(sampler)
    logits[0, 3], logits[0, 5 + 4] = 1.0, 2.0
    by_hand = math.exp(2) / (math.exp(2) + 3) / (1 + math.exp(-1)) / 2
    assert sampler.log_prob(*split(sampler, logits), VOTE).exp().item() == pytest.approx(by_hand, rel=1e-5)


def test_greedy_by_hand() -> None:
    sampler = Sampler(small_graph())
    logits = zeros(sampler, 3)
    logits[0, 5 + 1] = 1.0  # the answer is cot
    logits[1, 5 + 4], logits[1, 3], logits[1, 4] = 1.0, 1.0, 1.0  # vote over both
    logits[2, 5 + 4], logits[2, 3], logits[2, 4] = 1.0, -1.0, -1.0  # vote over neither: the last must be taken
    first, second, third = sampler.decode_greedy(*split(sampler, logits))
    assert (first, second) == (COT, VOTE)
    assert third.name == f"composed_{third.fingerprint}" and third.step("vote").inputs == ("run",)


def test_sampling_follows_the_probability() -> None:
    sampler, draws = Sampler(small_graph()), 8000
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, sampler.grammar.size, generator=generator)
    seen = sampler.sample(*split(sampler, logits.expand(draws, -1)), generator, temperature=1.5)
    counts = Counter(workflow.fingerprint for workflow in seen)
    kinds = list({workflow.fingerprint: workflow for workflow in seen}.values())
    told = sampler.plans(kinds).log_prob(logits / 1.5)[0].exp()
    assert told.sum().item() == pytest.approx(1.0, abs=1e-4)  # all that can come out came out
    for workflow, probability in zip(kinds, told.tolist(), strict=True):
        spread = 4 * math.sqrt(probability * (1 - probability) / draws)
        assert abs(counts[workflow.fingerprint] / draws - probability) < spread


def test_repository_workflows_can_be_reached() -> None:
    library = load_operations(CONF / "operations")
    workflows = list(load_workflows(CONF / "workflows", library).values())
    sampler = Sampler(merge(workflows, library))
    plans = sampler.plans(workflows)
    chosen = sampler.select(plans.masks * 20 - 10)
    assert [sampler.workflow(selection) for selection in chosen] == workflows
    assert torch.isfinite(plans.log_prob(torch.randn(3, sampler.grammar.size))).all()


def test_nothing_invalid_comes_out() -> None:
    """10,000 draws with random weights from 20 graphs of random workflows."""
    library, new = load_operations(CONF / "operations"), 0
    for seed in range(20):
        graph = merge(random_workflows(library, random.Random(seed), 12), library)
        limit = 3 + seed % 10
        sampler = Sampler(graph, max_llm_calls=limit)
        generator = torch.Generator().manual_seed(seed)
        logits = 3 * torch.randn(500, sampler.grammar.size, generator=generator)
        known = {workflow.fingerprint for workflow in graph.workflows}
        for workflow in sampler.sample(*split(sampler, logits), generator):
            validate(workflow, library)
            assert workflow.llm_calls(library) <= limit
            new += workflow.fingerprint not in known
    assert new > 1000  # recombinations come out too


def test_sampled_workflows_are_found_again() -> None:
    sampler = Sampler(small_graph())
    generator = torch.Generator().manual_seed(0)
    seen = sampler.sample(*split(sampler, zeros(sampler, 50)), generator)
    for workflow in seen:
        assert sampler.workflow(sampler.locate(workflow)).fingerprint == workflow.fingerprint


def test_foreign_workflow_is_refused() -> None:
    with pytest.raises(WorkflowError, match="workflow 'fix' does not lie in this wGraph: no edge 'run' -> 'fix'"):
        Sampler(small_graph()).plans([FIX])
    with pytest.raises(WorkflowError, match="cannot be composed"):
        Sampler(small_graph(), max_llm_calls=1).plans([VOTE])


def test_of_kind() -> None:
    graph = merge([COT, RUN, VOTE, FIX], LIBRARY)
    sampler = Sampler.of_kind(graph, "humaneval")
    logits = zeros(sampler)
    logits[0, len(graph.edges) + graph.index("cot")] = 9.0  # no edge into cot is left
    assert sampler.decode_greedy(*split(sampler, logits))[0].answer != "cot"
    with pytest.raises(
        ValueError, match="no workflow of the wGraph is made for kind 'mbpp'; there are gsm8k, humaneval"
    ):
        Sampler.of_kind(graph, "mbpp")


def test_temperature_must_be_positive() -> None:
    sampler = Sampler(small_graph())
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        sampler.sample(*split(sampler, zeros(sampler)), torch.Generator(), temperature=0)


def objective(use: torch.Tensor) -> torch.Tensor:
    """Something nonlinear in the use of edges and answers."""
    return (use * torch.arange(1, use.shape[1] + 1)).sum().sin() + use.square().sum()


def test_relaxed_gradient_against_finite_differences() -> None:
    sampler = Sampler(merge([COT, RUN, VOTE, FIX], LIBRARY))
    generator = torch.Generator().manual_seed(3)
    noise = sampler.noise(1, generator).double()
    logits = torch.randn(1, sampler.grammar.size, generator=generator, dtype=torch.float64, requires_grad=True)

    def relaxed(at: torch.Tensor) -> torch.Tensor:
        return objective(sampler.relax(at + noise, temperature=0.7))

    (found,) = torch.autograd.grad(relaxed(logits), logits)
    step = 1e-6
    wanted = torch.zeros_like(found)
    with torch.no_grad():
        for i in range(logits.shape[1]):
            move = torch.zeros_like(logits)
            move[0, i] = step
            wanted[0, i] = (relaxed(logits + move) - relaxed(logits - move)) / (2 * step)
    assert (found - wanted).abs().max().item() < 1e-6, (found - wanted).abs().max()
    assert wanted.abs().max() > 0.01


def test_straight_through_is_hard_forwards_and_soft_backwards() -> None:
    sampler = Sampler(small_graph())
    logits = torch.randn(4, sampler.grammar.size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    hard = sampler.straight_through(logits, 0.5)
    masks = torch.stack([sampler.mask(selection) for selection in sampler.select(logits)])
    assert torch.allclose(hard, masks, atol=1e-6)
    weights = torch.arange(float(sampler.grammar.size))
    (through,) = torch.autograd.grad((hard * weights).sum(), logits)
    (soft,) = torch.autograd.grad((sampler.relax(logits, 0.5) * weights).sum(), logits)
    assert torch.equal(through, soft)


def test_cold_relaxation_is_the_greedy_mask() -> None:
    sampler = Sampler(small_graph())
    logits = torch.randn(50, sampler.grammar.size, generator=torch.Generator().manual_seed(2))
    logits[:, 3] = logits[:, 3].abs() + 0.1  # vote takes cot, so that no look-ahead mask interferes
    masks = torch.stack([sampler.mask(selection) for selection in sampler.select(logits)])
    assert torch.allclose(sampler.relax(logits, 1e-4), masks, atol=1e-3)


def test_log_prob_has_a_gradient() -> None:
    sampler = Sampler(small_graph())
    logits = zeros(sampler).requires_grad_()
    sampler.log_prob(*split(sampler, logits), COT).sum().backward()
    assert logits.grad is not None
    # d log softmax: 1 - 1/4 for the answer taken, -1/4 for the three others, nothing for edges (all forced).
    assert torch.allclose(logits.grad[0], torch.tensor([0, 0, 0, 0, 0, 0, 0.75, -0.25, -0.25, -0.25]))


def test_likeliest_is_not_short_sighted() -> None:
    # The answer vote (0.4) is more probable than cot (0.3), but the best of its three workflows has only 0.4 / 3.
    sampler = Sampler(small_graph())
    logits = torch.tensor([[0, 0, 0, math.log(2), 0, -99, math.log(0.3), math.log(0.2), math.log(0.1), math.log(0.4)]])
    told = sampler.plans([COT, VOTE]).log_prob(logits)[0].exp()
    assert torch.allclose(told, torch.tensor([0.3, 0.4 * 2 / 3 / 2]))
    assert sampler.workflow(sampler.select(logits)[0]).answer == "vote"
    assert sampler.workflow(sampler.select_likeliest(logits)[0]) == COT


def test_likeliest_never_falls_behind_greedy() -> None:
    sampler = Sampler(merge([COT, RUN, VOTE, FIX], LIBRARY))
    logits = 2 * torch.randn(100, sampler.grammar.size, generator=torch.Generator().manual_seed(0))
    greedy, likeliest = sampler.select(logits), sampler.select_likeliest(logits)
    for row, (first, second) in enumerate(zip(greedy, likeliest, strict=True)):
        told = sampler.plans([sampler.workflow(first), sampler.workflow(second)]).log_prob(logits[row : row + 1])[0]
        assert told[1] >= told[0] - 1e-3
    assert greedy != likeliest
