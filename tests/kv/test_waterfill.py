"""Water-filling as a codec: the same entries in all, where they save most."""

import pytest
import torch

from graphflow.kv.codecs import MeanShiftCodec, SparseCodec
from graphflow.kv.waterfill import Waterfill
from tests.kv.inputs import residual, weights

SHAPE = (3, 2, 2, 5, 4)


def uneven(seed: int = 0) -> torch.Tensor:
    """Layers whose entries are 1, 4 and 16 times as large."""
    return residual(SHAPE, seed) * torch.tensor([1.0, 4.0, 16.0]).reshape(3, 1, 1, 1, 1)


@pytest.mark.parametrize(("build", "shifted"), [(SparseCodec, False), (MeanShiftCodec, True)])
def test_less_error_for_as_many_entries(build, shifted):
    x, weight = uneven(), weights(SHAPE) + 0.01
    even, filled = build(0.25), Waterfill(build, 0.25, shifted)
    errors, kept = [], []
    for codec in (even, filled):
        encoded = codec.encode(x, weight)
        errors.append(((codec.decode(encoded) - x).square() * weight).sum(dim=(0, 2, 3, 4)))
        kept.append(encoded.tensors["values"].numel())
    whole = (x.square() * weight).sum(dim=(0, 2, 3, 4))
    assert kept[0] == kept[1] == 3 * 2 * 10
    assert (errors[1] / whole).sum() < 0.8 * (errors[0] / whole).sum()


def test_keys_and_values_each_count_one_half():
    """Keys a thousand times as large do not take the values' entries."""
    x = residual(SHAPE)
    x[:, 0] *= 1000
    counts = Waterfill(SparseCodec, 0.25).encode(x).tensors["counts"].reshape(3, 2).sum(dim=0)
    assert counts.sum() == 60 and abs(int(counts[0] - counts[1])) < 12


def test_everything_at_density_one_and_nothing_of_zeros_is_lost():
    x = residual(SHAPE)
    codec = Waterfill(lambda density: SparseCodec(density, 32), 1.0)
    assert torch.equal(codec.decode(codec.encode(x)), x)
    assert torch.equal(codec.decode(codec.encode(torch.zeros(SHAPE))), torch.zeros(SHAPE))


@pytest.mark.parametrize(("build", "shifted"), [(SparseCodec, False), (MeanShiftCodec, True)])
def test_an_error_bound_keeps_no_more_than_it_takes(build, shifted):
    """Each side's energy counts one half; one entry less and the bound would not hold."""
    x, weight = uneven(), weights(SHAPE) + 0.01
    share = (x - x.mean(dim=3, keepdim=True)) if shifted else x
    whole = (share.square() * weight).sum(dim=(0, 2, 3, 4))

    def left(codec):
        encoded = codec.encode(x, weight)
        lost = ((codec.decode(encoded) - x).square() * weight).sum(dim=(0, 2, 3, 4)) / whole
        return float(lost.mean()), encoded.tensors["values"].numel()

    def bounded(max_error, density=1.0):
        return Waterfill(lambda share: build(share, 32), density, shifted, max_error)

    for bound in (0.3, 0.05):
        error, kept = left(bounded(bound))
        assert 0.5 * bound < error <= bound and 0 < kept < x.numel()
        assert left(bounded(bound * 0.9))[1] > kept
    few = left(bounded(0.05, density=0.1))
    assert few == left(Waterfill(lambda share: build(share, 32), 0.1, shifted)), "density is the most that is kept"
