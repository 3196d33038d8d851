"""Running moments against torch and by hand."""

import pytest
import torch

from graphflow.kv.residual import Moments


def test_against_torch():
    generator = torch.Generator().manual_seed(0)
    # A mean far from zero is what a naive sum of squares loses.
    samples = 100 + torch.randn(20, 2, 2, 3, 4, 6, generator=generator)
    moments = Moments(torch.zeros(2, 2, 3, 4, 6))
    for sample in samples:
        moments.update(sample)
    assert moments.count == 20
    torch.testing.assert_close(moments.mean, samples.mean(0))
    torch.testing.assert_close(moments.variance, samples.double().var(0, correction=0).float(), rtol=1e-4, atol=1e-5)


def test_unexplained_energy_by_hand():
    # Keys 1 and 5 about base 0: mean 3, variance 4, energy about the base (1 + 25) / 2 = 13 = 4 + 9.
    # Values 2 and 2 about base 0: the mean carries everything.
    moments = Moments(torch.zeros(1, 2, 1, 1, 1))
    moments.update(torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1))
    moments.update(torch.tensor([5.0, 2.0]).reshape(1, 2, 1, 1, 1))
    torch.testing.assert_close(moments.unexplained_energy(), torch.tensor([[4 / 13, 0.0]]))
    assert moments.residual.flatten().tolist() == [3.0, 2.0]
    assert moments.nbytes == 2 * 2 * 4


def test_no_residual_leaves_nothing_unexplained():
    moments = Moments(torch.ones(1, 2, 1, 1, 1))
    moments.update(torch.ones(1, 2, 1, 1, 1))
    assert moments.unexplained_energy().tolist() == [[0.0, 0.0]]


def test_guards():
    moments = Moments(torch.zeros(1, 2, 1, 2, 2))
    with pytest.raises(ValueError, match="at least one observation, got 0"):
        _ = moments.variance
    with pytest.raises(ValueError, match="at least one observation, got 0"):
        _ = moments.residual
    with pytest.raises(ValueError, match=r"observation must have shape \(1, 2, 1, 2, 2\), got \(1, 2, 1, 3, 2\)"):
        moments.update(torch.zeros(1, 2, 1, 3, 2))
