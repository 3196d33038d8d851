"""Budgets shared by layers, sides and paths: against trying everything, and through the codecs themselves."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflow.kv.allocation import Curve, fill, fill_until, measure, reach, sparse_densities, spend
from graphflow.kv.codecs import LowRankCodec, MeanShiftCodec, RowsCodec, SparseCodec, singular_energies
from tests.kv.inputs import energy, residual, weights


def all_choices(curves):
    """(points, bytes, error) of every combination."""
    for points in itertools.product(*(range(len(curve.nbytes)) for curve in curves)):
        pairs = list(zip(curves, points, strict=True))
        yield points, sum(c.nbytes[p] for c, p in pairs), sum(c.errors[p] for c, p in pairs)


def convex(seed: int, parts: int, points: int, costs: tuple[int, ...]) -> list[Curve]:
    """Curves whose steps save less and less; part i's steps cost costs[i % len(costs)] bytes."""
    generator, curves = torch.Generator().manual_seed(seed), []
    for part in range(parts):
        gains = torch.rand(points - 1, generator=generator, dtype=torch.float64).sort(descending=True).values
        errors = [1.0 + float(gains[i:].sum()) for i in range(points)]
        cost = costs[part % len(costs)]
        curves.append(Curve(tuple(7 + cost * i for i in range(points)), tuple(errors)))
    return curves


def test_by_hand():
    # A saves 6, then 1 for 10 bytes each; B saves 4, then 3. Steepest first: A 6, B 4, B 3, A 1.
    curves = [Curve((0, 10, 20), (8.0, 2.0, 1.0)), Curve((0, 10, 20), (9.0, 5.0, 2.0))]
    assert spend(curves, 0).points == (0, 0)
    assert spend(curves, 10).points == (1, 0)
    assert spend(curves, 29).points == (1, 1)
    assert spend(curves, 30) == spend(curves, 39)
    assert (spend(curves, 30).points, spend(curves, 30).nbytes, spend(curves, 30).error) == ((1, 2), 30, 4.0)
    assert spend(curves, 10**6).points == (2, 2)
    assert reach(curves, 17.0).points == (0, 0)
    assert reach(curves, 7.0).points == (1, 1)
    assert reach(curves, 6.9).points == (1, 2)


def test_hull_leaves_out_what_no_slope_would_choose():
    # 10 bytes save 1, 20 save 6: the middle point lies above the line. 30 bytes are worse than 20.
    assert Curve((0, 10, 20, 30), (8.0, 7.0, 2.0, 3.0)).hull() == (0, 2)
    assert Curve((0, 10, 20), (8.0, 5.0, 2.0)).hull() == (0, 2)
    assert Curve((5,), (1.0,)).hull() == (0,)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 4), points=st.integers(1, 4), budget=st.integers(0, 60))
def test_equal_steps_are_exact_for_every_budget(seed, parts, points, budget):
    curves = convex(seed, parts, points, (5,))
    nbytes = 7 * parts + budget
    found = spend(curves, nbytes)
    assert found.nbytes <= nbytes
    assert found.error == pytest.approx(min(error for _, size, error in all_choices(curves) if size <= nbytes))
    bound = found.error + 1e-9
    cheapest = min(size for _, size, error in all_choices(curves) if error <= bound)
    assert reach(curves, bound).nbytes == cheapest


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), parts=st.integers(1, 4), points=st.integers(1, 4), budget=st.integers(0, 60))
def test_unequal_steps_are_within_one_step_of_the_optimum(seed, parts, points, budget):
    curves = convex(seed, parts, points, (3, 8, 5))
    nbytes = 7 * parts + budget
    found = spend(curves, nbytes)
    assert found.nbytes <= nbytes
    # Eight bytes, the dearest step, less to spend: no choice of those is better.
    smaller = [error for _, size, error in all_choices(curves) if size <= nbytes - 8]
    assert found.error <= min(smaller, default=torch.inf) + 1e-12
    reached = reach(curves, found.error + 1e-9)
    assert reached.error <= found.error + 1e-9
    assert reached.nbytes <= 8 + min(size for _, size, error in all_choices(curves) if error <= found.error + 1e-9)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3), units=st.integers(0, 8), seed=st.integers(0, 10**6))
def test_filling_is_the_best_of_all_counts(sizes, units, seed):
    generator = torch.Generator().manual_seed(seed)
    gains = [torch.randint(0, 6, (size,), generator=generator).float() for size in sizes]

    def left(counts):
        rows = zip(gains, counts, strict=True)
        return sum(float(gain.sort().values[: len(gain) - count].sum()) for gain, count in rows)

    counts = fill(gains, units)
    assert sum(counts) == min(units, sum(sizes))
    every = list(itertools.product(*(range(size + 1) for size in sizes)))
    best = min(left(one) for one in every if sum(one) <= units)
    assert left(counts) == best
    enough = fill_until(gains, best)
    assert left(enough) <= best
    assert sum(enough) == min(sum(one) for one in every if left(one) <= best)


def test_ties_go_to_the_earlier_part_and_nothing_left_needs_everything():
    assert fill([torch.ones(2), torch.ones(2)], 3) == [2, 1]
    assert fill_until([torch.ones(2), torch.tensor([0.0, 2.0])], 0.0) == [2, 1]
    assert fill_until([torch.ones(2)], 5.0) == [0]


@pytest.mark.parametrize("bits", [8, 16])
def test_sparse_densities_keep_the_budget_and_beat_even_ones(bits):
    # Two paths of other lengths; layer 0 has no residual, as it sees no context.
    paths = [residual((3, 2, 2, length, 4), seed) for seed, length in ((0, 9), (1, 5))]
    for x in paths:
        x *= torch.tensor([0.0, 1.0, 3.0]).reshape(3, 1, 1, 1, 1)
    shares = [weights(tuple(x.shape), 5) for x in paths]
    even = [SparseCodec(0.3, bits) for _ in paths]
    nbytes = sum(codec.encode(x).nbytes for codec, x in zip(even, paths, strict=True)) + 100
    tables = sparse_densities(paths, shares, bits, nbytes=nbytes)
    own = [SparseCodec(table, bits) for table in tables]

    def cost(codecs):
        rows = list(zip(codecs, paths, shares, strict=True))
        encoded = [codec.encode(x, w) for codec, x, w in rows]
        error = sum(energy(c.decode(e) - x, w) for (c, x, w), e in zip(rows, encoded, strict=True))
        return sum(e.nbytes for e in encoded), error

    assert cost(own)[0] <= nbytes
    assert cost(own)[1] < cost(even)[1]
    assert all(float(table[0].sum()) == 0 for table in tables)
    # The same error, asked for, costs the same densities (up to rounding of kept values, which the bound leaves out).
    kept = [SparseCodec(table, 32) for table in tables]
    tables_again = sparse_densities(paths, shares, bits, error=cost(kept)[1] * (1 + 1e-6))  # sums of float32
    assert all(torch.equal(a, b) for a, b in zip(tables, tables_again, strict=True))
    assert MeanShiftCodec(tables[0], bits).encode(paths[0], shares[0]).nbytes > 0


def test_measured_curves_lead_to_codecs_within_the_budget():
    x = residual((3, 2, 2, 12, 4)) * torch.tensor([0.1, 1.0, 4.0]).reshape(3, 1, 1, 1, 1)
    x += residual((3, 2, 2, 1, 4), 1)
    weight = weights(tuple(x.shape), 5)
    densities, ranks = [i / 12 for i in range(1, 13)], list(range(1, 9))
    rows = measure(lambda d: RowsCodec(d), densities, x, weight)
    thin = measure(lambda r: LowRankCodec(rank=int(r)), ranks, x, weight)
    budget = 1500
    found = spend(rows, budget)
    table = torch.tensor([densities[point] for point in found.points]).reshape(3, 2)
    encoded = RowsCodec(table).encode(x, weight)
    assert encoded.nbytes <= budget
    error = energy(RowsCodec(table).decode(encoded) - x, weight)
    assert error == pytest.approx(found.error)
    even = [RowsCodec(d) for d in densities]
    assert error <= min(energy(c.decode(e) - x, weight) for c in even if (e := c.encode(x, weight)).nbytes <= budget)
    found = spend(thin, budget)
    chosen = LowRankCodec(rank=torch.tensor([ranks[point] for point in found.points]).reshape(3, 2))
    encoded = chosen.encode(x, weight)
    assert encoded.nbytes <= budget
    assert energy(chosen.decode(encoded) - x, weight) == pytest.approx(found.error, rel=1e-3)


def test_ranks_by_singular_energies_are_the_best_of_all():
    x = residual((1, 2, 1, 3, 4)) * torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1)
    counts = fill(list(singular_energies(x).reshape(2, -1)), 3)
    errors = {}
    for keys in range(4):
        codec = LowRankCodec(rank=[[keys, 3 - keys]], value_bits=32)
        errors[keys] = float((codec.decode(codec.encode(x)) - x).norm())
    assert counts[0] == min(errors, key=lambda keys: errors[keys])


def test_guards():
    curve = Curve((4, 8), (2.0, 1.0))
    with pytest.raises(ValueError, match="nbytes must be 8 or more, which the cheapest points cost, got 7"):
        spend([curve, curve], 7)
    with pytest.raises(ValueError, match="error must be 2 or more, which the most exact points have, got 1.5"):
        reach([curve, curve], 1.5)
    with pytest.raises(ValueError, match="a curve needs points"):
        Curve((), ())
    with pytest.raises(ValueError, match="bytes of a curve must increase"):
        Curve((4, 4), (2.0, 1.0))
    with pytest.raises(ValueError, match="errors of a curve must be finite"):
        Curve((4,), (float("nan"),))
    with pytest.raises(ValueError, match="units must be 0 or more"):
        fill([torch.ones(1)], -1)
    with pytest.raises(ValueError, match="error must be 0 or more"):
        fill_until([torch.ones(1)], -1.0)
    x = residual((1, 2, 1, 2, 4))
    with pytest.raises(ValueError, match="give nbytes or error, one of the two"):
        sparse_densities([x], [None])
    # 2 groups: a byte of bitmap, 4 of counts.
    with pytest.raises(ValueError, match="nbytes must be 10 or more, which bitmaps, counts and scales take, got 9"):
        sparse_densities([x], [None], nbytes=9)
