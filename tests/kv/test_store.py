"""The store in four modes and both scopes, on random tensors."""

import gc
import random

import pytest
import torch

from graphflow.kv.accounting import KVShape, StoreBytes
from graphflow.kv.context import Context
from graphflow.kv.modes import KVConfig, Scope, StateMode
from graphflow.kv.rope import Rope
from graphflow.kv.segment import EncodedSegment, Segment, SegmentKind
from graphflow.kv.store import OperationStore, UnknownOperationError

ROPE = Rope(torch.tensor([1.0, 0.1]))
SHAPE = KVShape(layers=2, kv_heads=3, head_dim=4, dtype=torch.float32)
TOKENS = (5, 6, 7, 8, 9, 10)
PATH = ("plan",)
RESIDUAL_MODES = [StateMode.DIFFERENTIAL, StateMode.NO_PRUNING]
KEEP_ALL = {"density": 1.0, "value_bits": 32}


def random_kv(seed: int, length: int = len(TOKENS)) -> torch.Tensor:
    return torch.randn(SHAPE.of(length), generator=torch.Generator().manual_seed(seed))


def make(mode: StateMode, shape: KVShape = SHAPE, **settings) -> OperationStore:
    store = OperationStore(KVConfig(mode=mode, **{"exact_head": 1, "exact_rows": 0.0, **settings}), ROPE, shape)
    store.add_base("solve", TOKENS, random_kv(0))
    return store


def run_at(shared: Segment, head: int) -> torch.Tensor:
    """The shared piece where it belongs: keys at positions head.. of the prompt's frame."""
    filler = Segment((0,) * head, torch.zeros(SHAPE.of(head)), SegmentKind.OPERATION)
    return Context().append(filler).append(shared).materialize(ROPE, torch.float32)[:, :, :, head:]


def test_stateful_is_always_exact_and_stores_nothing():
    store = make(StateMode.STATEFUL)
    plan = store.plan("solve", PATH)
    assert (plan.shared, plan.fallback) == (None, False)
    store.observe("solve", PATH, random_kv(1))
    assert store.nbytes() == StoreBytes(base=0, residual=0, statistics=8, workspace=0)
    kept = store.keep("solve", PATH, TOKENS, random_kv(1))
    assert isinstance(kept, Segment)
    assert torch.equal(kept.kv, random_kv(1))
    assert kept.nbytes == 6 * SHAPE.bytes_per_token


@pytest.mark.parametrize(("head", "tail"), [(0, 1), (1, 1), (2, 3)])
def test_stateless_serves_the_base_in_place(head, tail):
    store = make(StateMode.STATELESS, exact_head=head, exact_tail=tail)
    plan = store.plan("solve", PATH)
    assert plan.shared is not None
    assert [run[:2] for run in plan.runs(len(TOKENS)) if run[2] is None] == (
        [(0, head), (6 - tail, 6)] if head else [(6 - tail, 6)]
    )
    assert not plan.fallback and plan.stored == 6 - head - tail
    assert plan.shared.tokens == TOKENS[head : len(TOKENS) - tail]
    torch.testing.assert_close(run_at(plan.shared, head), random_kv(0)[:, :, :, head : len(TOKENS) - tail])
    assert store.plan("solve", ("other",)).shared is plan.shared
    assert plan.shared.nbytes == 0
    assert store.nbytes().base == (6 - head - tail) * SHAPE.bytes_per_token
    assert store.nbytes().workspace == 0


@pytest.mark.parametrize("mode", RESIDUAL_MODES)
def test_keep_all_equals_exact(mode):
    store = make(mode, min_observations=1, exact_head=2, **KEEP_ALL)
    exact = random_kv(1)
    assert store.plan("solve", PATH).fallback
    store.observe("solve", PATH, exact)
    plan = store.plan("solve", PATH)
    assert plan.shared is not None
    torch.testing.assert_close(run_at(plan.shared, 2), exact[:, :, :, 2:5], rtol=0, atol=2e-6)
    assert store.plan("solve", PATH).shared is plan.shared
    # Another path still falls back.
    assert store.plan("solve", ("other",)).fallback


@pytest.mark.parametrize("mode", RESIDUAL_MODES)
def test_path_mean_after_min_observations(mode):
    store = make(mode, min_observations=3, exact_head=0, **KEEP_ALL)
    samples = [random_kv(seed) for seed in (1, 2, 3)]
    for sample in samples:
        plan = store.plan("solve", PATH)
        assert (plan.shared, plan.fallback) == (None, True)
        store.observe("solve", PATH, sample)
    plan = store.plan("solve", PATH)
    assert plan.shared is not None
    mean = torch.stack(samples).mean(0)[:, :, :, :5]
    torch.testing.assert_close(plan.shared.kv, mean, rtol=0, atol=2e-6)
    # Unexplained: the plain energies of the three samples.
    base = random_kv(0)[:, :, :, :5]
    left = sum(float((sample[:, :, :, :5] - mean).square().sum()) for sample in samples)
    whole = sum(float((sample[:, :, :, :5] - base).square().sum()) for sample in samples)
    assert store.unexplained() == {("solve", PATH): pytest.approx(left / whole, rel=1e-4)}


def test_sparse_residual_moves_towards_the_mean():
    store = make(StateMode.NO_PRUNING, min_observations=1, exact_head=0, density=0.25)
    exact, base = random_kv(1)[:, :, :, :5], random_kv(0)[:, :, :, :5]
    store.observe("solve", PATH, random_kv(1))
    shared = store.plan("solve", PATH).shared
    assert shared is not None
    changed = (shared.kv != base).flatten(2).sum(-1)
    # A quarter of 3 * 5 * 4 entries is 15, in every layer for keys and for values.
    assert changed.tolist() == [[15, 15], [15, 15]]
    kept = shared.kv != base
    torch.testing.assert_close(shared.kv[kept], exact[kept], rtol=0, atol=5e-3)


def test_bytes_by_category():
    # 192 bytes a token in float32; the core of 6 tokens is 4 of them (one at each end runs): 192 entries.
    store = make(StateMode.DIFFERENTIAL, min_observations=2, density=0.25)
    assert SHAPE.bytes_per_token == 192
    assert store.nbytes() == StoreBytes(base=768, residual=0, statistics=0, workspace=0)
    store.observe("solve", PATH, random_kv(1))
    # Mean and squares are 4 bytes each for 192 entries, one path's traffic is 8 bytes.
    assert store.nbytes() == StoreBytes(base=768, residual=0, statistics=192 * 8 + 8, workspace=0)
    store.observe("solve", PATH, random_kv(2))
    # 4 groups of 48 entries: 12 values of 2 bytes and 6 bytes of bitmap. The moments are gone.
    assert store.nbytes() == StoreBytes(base=768, residual=4 * 30, statistics=8, workspace=0)
    plan = store.plan("solve", PATH)
    assert store.nbytes() == StoreBytes(base=768, residual=120, statistics=8, workspace=768)
    assert store.nbytes().total == 1664
    assert plan.shared is not None


def test_kept_dtype_is_the_shape_s():
    shape = KVShape(2, 3, 4, torch.bfloat16)
    store = make(StateMode.DIFFERENTIAL, shape, min_observations=1)
    assert store.nbytes().base == 4 * 96
    store.observe("solve", PATH, random_kv(1))
    shared = store.plan("solve", PATH).shared
    assert shared is not None
    assert shared.kv.dtype == torch.bfloat16
    assert store.keep("solve", PATH, TOKENS, random_kv(1)).tensor().dtype == torch.bfloat16


def test_pruned_path_falls_back_again():
    store = make(StateMode.DIFFERENTIAL, min_observations=1, coverage=0.8, hysteresis=0.5, decay=1.0, prune_every=1000)
    store.observe("solve", ("rare",), random_kv(1))
    store.observe("solve", PATH, random_kv(2))
    assert store.materialised == {("solve", ("rare",)), ("solve", PATH)}
    held = store.plan("solve", ("rare",)).shared
    # 1 against 2: with PATH touched once the level to stay is .5 * 1 (both needed to cover .8), so nothing goes.
    store.touch("solve", PATH)
    store.prune()
    assert len(store.materialised) == 2
    # 1 against 9: PATH alone covers .8, the level to stay is 4.5.
    for _ in range(7):
        store.touch("solve", PATH)
    store.prune()
    assert store.materialised == {("solve", PATH)}
    assert store.plan("solve", ("rare",)).fallback
    assert ("solve", ("rare",)) not in store.unexplained()
    # The context that still holds the old state keeps it, and it is counted until then.
    assert held is not None
    assert store.nbytes().workspace == 768
    del held
    gc.collect()
    assert store.nbytes().workspace == 0
    # A rare path that comes back is observed but not materialised: PATH covers the traffic.
    store.observe("solve", ("rare",), random_kv(1))
    assert store.plan("solve", ("rare",)).fallback


def test_prunes_by_itself():
    store = make(StateMode.DIFFERENTIAL, min_observations=1, coverage=0.8, decay=1.0, prune_every=10)
    store.observe("solve", ("rare",), random_kv(1))
    store.observe("solve", PATH, random_kv(2))
    for _ in range(8):
        store.touch("solve", PATH)
    assert store.materialised == {("solve", PATH)}


def test_no_pruning_keeps_every_path():
    store = make(StateMode.NO_PRUNING, min_observations=1, coverage=0.5, decay=1.0, prune_every=2)
    for _ in range(20):
        store.observe("solve", PATH, random_kv(2))
    store.observe("solve", ("rare",), random_kv(1))
    store.prune()
    assert store.materialised == {("solve", ("rare",)), ("solve", PATH)}


def test_uncovered_path_is_not_materialised():
    store = make(StateMode.DIFFERENTIAL, min_observations=1, coverage=0.5, decay=1.0)
    for _ in range(20):
        store.touch("solve", PATH)
    store.observe("solve", ("rare",), random_kv(1))
    assert store.materialised == frozenset()


def test_less_coverage_holds_less():
    """Twelve paths with Zipf frequencies: what is not covered leaves no moments behind either."""
    rng, held = random.Random(0), []
    paths = [(f"p{index}",) for index in range(12)]
    traffic = rng.choices(paths, [1 / (1 + index) for index in range(12)], k=400)
    for coverage in (0.25, 0.5, 0.75, 0.9):
        store = make(StateMode.DIFFERENTIAL, min_observations=4, coverage=coverage, prune_every=32)
        for index, path in enumerate(traffic):
            store.touch("solve", path)
            store.observe("solve", path, random_kv(index))
        held.append(store.nbytes().total)
    assert held == sorted(held) and held[0] < held[-1] / 2


@pytest.mark.parametrize("mode", RESIDUAL_MODES)
def test_request_scope_is_lossless_with_keep_all(mode):
    store = make(mode, scope=Scope.REQUEST, min_observations=1, **KEEP_ALL)
    exact = random_kv(1)
    for observed in (False, True):
        assert store.plan("solve", PATH).shared is None
        assert not store.plan("solve", PATH).fallback
        kept = store.keep("solve", PATH, TOKENS, exact)
        assert isinstance(kept, EncodedSegment)
        assert (kept.mean is not None) is observed
        assert kept.tokens == TOKENS
        torch.testing.assert_close(kept.tensor(), exact, rtol=0, atol=2e-6)
        assert kept.nbytes == 6 * 192
        store.observe("solve", PATH, random_kv(2))


def test_request_scope_bytes_and_the_path_mean():
    store = make(StateMode.DIFFERENTIAL, scope=Scope.REQUEST, min_observations=2, density=0.25)
    kept = store.keep("solve", PATH, TOKENS, random_kv(1))
    # Whole prompts: 4 groups of 72 entries, 18 values of 2 bytes and 9 bytes of bitmap.
    assert kept.nbytes == 4 * 45
    assert store.nbytes().base == 6 * 192
    common = random_kv(3)
    for seed in (4, 5):
        store.observe("solve", PATH, common + 0.1 * random_kv(seed))
    exact = common + 0.1 * random_kv(6)
    without = (kept.tensor() - random_kv(1)).square().sum()
    error = (store.keep("solve", PATH, TOKENS, exact).tensor() - exact).square().sum()
    assert error < without
    assert store.nbytes() == StoreBytes(base=6 * 192, residual=180, statistics=8, workspace=0)


def test_pruned_mean_is_counted_while_a_request_uses_it():
    store = make(StateMode.DIFFERENTIAL, scope=Scope.REQUEST, min_observations=1, coverage=0.5, decay=1.0)
    store.observe("solve", ("rare",), random_kv(1))
    kept = store.keep("solve", ("rare",), TOKENS, random_kv(1))
    before = kept.tensor()
    for _ in range(9):
        store.touch("solve", PATH)
    store.prune()
    assert store.materialised == frozenset()
    assert store.nbytes().residual == 180
    assert torch.equal(kept.tensor(), before)
    del kept
    gc.collect()
    assert store.nbytes().residual == 0


def test_fallback_keeps_a_dense_copy():
    store = make(StateMode.DIFFERENTIAL)
    exact = random_kv(1)
    kept = store.keep("solve", PATH, TOKENS, exact)
    assert isinstance(kept, Segment)
    assert not kept.shared
    exact.zero_()
    assert torch.equal(kept.kv, random_kv(1))


def test_judges_may_run_exactly():
    store = make(StateMode.STATELESS, judges_exact=True)
    assert store.plan("solve", PATH, judge=True).shared is None
    assert not store.plan("solve", PATH, judge=True).fallback
    assert store.plan("solve", PATH).shared is not None
    assert make(StateMode.STATELESS).plan("solve", PATH, judge=True).shared is not None


@pytest.mark.parametrize("mode", [StateMode.STATELESS, *RESIDUAL_MODES])
def test_short_prompts_run_exactly_and_are_no_fallback(mode):
    store = make(mode, exact_head=1, exact_tail=2, min_observations=1)
    store.add_base("short", (1, 2, 3), random_kv(1, 3))
    store.observe("short", PATH, random_kv(2, 3))
    plan = store.plan("short", PATH)
    assert (plan.shared, plan.fallback) == (None, False)
    assert store.nbytes().base == 3 * 192
    store.add_base("longer", (1, 2, 3, 4), random_kv(1, 4))
    assert store.nbytes().base == 4 * 192


def test_base_and_observations_are_copies():
    store = OperationStore(KVConfig(StateMode.STATELESS, exact_head=0), ROPE, SHAPE)
    kv = random_kv(0)
    store.add_base("solve", TOKENS, kv)
    kv.zero_()
    shared = store.plan("solve", PATH).shared
    assert shared is not None
    assert torch.equal(shared.kv, random_kv(0)[:, :, :, :5])


def test_guards():
    store = make(StateMode.DIFFERENTIAL)
    assert "solve" in store
    assert list(store) == ["solve"]
    with pytest.raises(UnknownOperationError, match="'solv' has no base; operations with one: solve; did you mean"):
        store.plan("solv", PATH)
    with pytest.raises(UnknownOperationError, match="'check' has no base"):
        store.observe("check", PATH, random_kv(1))
    with pytest.raises(ValueError, match="'solve' has a base already"):
        store.add_base("solve", TOKENS, random_kv(0))
    with pytest.raises(ValueError, match="base of 'check' must have shape"):
        store.add_base("check", (1, 2), random_kv(0))
    with pytest.raises(ValueError, match="observation of 'solve' must have shape"):
        store.observe("solve", PATH, random_kv(1, 4))
    with pytest.raises(ValueError, match="exact KV of 'solve' must have shape"):
        store.keep("solve", PATH, TOKENS, random_kv(1, 4))
    request = make(StateMode.DIFFERENTIAL, scope=Scope.REQUEST)
    with pytest.raises(ValueError, match="is not the one its base was computed for"):
        request.keep("solve", PATH, (1, 2, 3), random_kv(1, 3))
