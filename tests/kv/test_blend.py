"""Blend mode in the store, and what stands in for a residual in controls: worked by hand."""

import pytest
import torch

from graphflow.kv import BudgetError, KVConfig, KVShape, OperationStore, Rope, SegmentKind
from graphflow.kv.controls import fit, stand_in
from graphflow.kv.deviation import Deviations
from graphflow.kv.kept import INTEGERS
from graphflow.kv.modes import Control
from graphflow.kv.segment import CodedSegment, Cut, Segment, pack

ROPE = Rope(torch.tensor([1.0, 0.1]))
SHAPE = KVShape(layers=2, kv_heads=1, head_dim=4, dtype=torch.float32)
TOKENS = tuple(range(10, 18))


def random_kv(seed, length=8):
    return torch.randn(SHAPE.of(length), generator=torch.Generator().manual_seed(seed))


def make(**settings):
    store = OperationStore(KVConfig("blend", **{"exact_head": 1, "min_observations": 2, **settings}), ROPE, SHAPE)
    store.add_base("solve", TOKENS, random_kv(0))
    return store


def test_the_tokens_that_deviate_most_run_again():
    """Of tokens 1..6 in the middle, 2 and 5 are made to differ; a third of six is two."""
    store, exact = make(rerun=1 / 3), random_kv(0)
    exact[:, 1, :, 2] += 5
    exact[:, 1, :, 5] += 9
    assert store.plan("solve", ()).fallback
    for path in ((), ("plan",)):
        store.observe("solve", path, exact)
    plan = store.plan("solve", ("other",))
    assert [(start, stop) for start, stop, piece in plan.runs(8) if piece is None] == [(0, 1), (2, 3), (5, 6), (7, 8)]
    assert [piece.tokens for piece, _ in plan.pieces] == [(11,), (13, 14), (16,)]
    assert plan.stored == 4 and not plan.fallback
    for piece, start in plan.pieces:
        alone = random_kv(0)[:, :, :, start : start + piece.length].clone()
        alone[:, 0] = ROPE.rotate(alone[:, 0], -start)
        torch.testing.assert_close(piece.tensor(), alone, rtol=0, atol=1e-5)
        assert piece.nbytes == piece.size == 0, "cut from the base, which counts"
    assert store.nbytes().statistics == 8 * 2 + 4 * 6, "two paths' traffic and one number a stored token"


def test_no_tokens_and_all_tokens_need_no_observations():
    none, everything = make(rerun=0.0).plan("solve", ()), make(rerun=1.0).plan("solve", ())
    assert none.stored == 6 and not none.fallback
    assert everything.stored == 0 and not everything.fallback


def test_a_budget_holds_what_is_learned_of_tokens():
    base = 6 * SHAPE.bytes_per_token
    make(store_bytes=8 + base + 4 * 6, tracked_paths=1)
    with pytest.raises(BudgetError):
        make(store_bytes=8 + base + 4 * 6 - 1, tracked_paths=1)


def test_deviation_counts_keys_and_values_by_their_energy():
    base = torch.ones(1, 2, 1, 2, 2)
    base[:, 0] = 10
    kv = base.clone()
    kv[:, 0, :, 0] += 10  # keys of token 0: squared deviation 2 x 100 of an energy of 4 x 100
    kv[:, 1, :, 1] += 1.5  # values of token 1: 2 x 2.25 of 4
    deviations = Deviations()
    deviations.update("a", base, kv)
    assert deviations.largest("a", 1) == [1] and deviations.nbytes == 8 and deviations.count("a") == 1


def test_stand_ins():
    held = [("a", ()), ("a", ("b",)), ("b", ()), ("c", ())]
    traffic = {("a", ()): 1.0, ("a", ("b",)): 2.0, ("b", ()): 3.0, ("c", ()): 3.0}.__getitem__
    assert stand_in(Control.OTHER_PATH, ("a", ()), held, traffic) == ("a", ("b",))
    assert stand_in(Control.OTHER_PATH, ("b", ()), held, traffic) is None
    assert stand_in(Control.OTHER_OPERATION, ("a", ()), held, traffic) == ("b", ())
    assert stand_in(Control.OTHER_REQUEST, ("a", ()), held, traffic) == ("a", ())


def test_a_residual_of_another_length_is_cut_or_filled_up():
    x = random_kv(1, 3)
    assert torch.equal(fit(x, 2), x[:, :, :, :2])
    assert torch.equal(fit(x, 5)[:, :, :, :3], x) and not fit(x, 5)[:, :, :, 3:].any()


def test_text_and_quantised_prompts_are_kept_by_their_codecs():
    cases = (("stateful", SegmentKind.DYNAMIC, "int8"), ("stateful_int8", SegmentKind.OPERATION, "none"))
    for mode, kind, codec in cases:
        store = OperationStore(KVConfig(mode, dynamic_codec=codec), ROPE, SHAPE)
        piece, kv = store.hold(TOKENS, random_kv(1), kind), random_kv(1)
        assert isinstance(piece, CodedSegment)
        assert piece.nbytes == piece.size == piece.coded.nbytes == 2 * 2 * 8 * 4 + 4 * 2 * (8 + 8)
        assert 0 < (piece.tensor() - kv).abs().max() < 0.03
        other = SegmentKind.OPERATION if kind is SegmentKind.DYNAMIC else SegmentKind.DYNAMIC
        assert isinstance(store.hold(TOKENS, random_kv(1), other), Segment)


def test_modes_with_bases_keep_a_requests_part_of_a_prompt_as_its_text():
    for mode in ("stateless", "blend", "differential"):
        store = OperationStore(KVConfig(mode, dynamic_codec="int4"), ROPE, SHAPE)
        for kind in SegmentKind:
            assert isinstance(store.hold(TOKENS, random_kv(1), kind), CodedSegment)


def test_rows_that_run_are_left_out_of_a_segment_that_a_request_owns():
    """Without room in the store the decoded segment is the request's own, and so are the bytes of its parts."""
    settings = {"exact_head": 0, "exact_rows": 0.25, "min_observations": 1, "tracked_paths": 4}
    ops = "abcde"

    def learned(**more):
        store = OperationStore(KVConfig("no_pruning", **settings, **more), ROPE, SHAPE)
        for seed, op in enumerate(ops):
            store.add_base(op, TOKENS, random_kv(seed))
            store.observe(op, (), random_kv(10 + seed))
        return store

    free = learned()
    tight = learned(store_bytes=free.nbytes().total + 1500)
    plans = [(tight.plan(op, ()), free.plan(op, ())) for op in ops]
    owned = [sum(piece.nbytes for piece, _ in plan.pieces) for plan, _ in plans]
    assert owned[0] == 0 and owned[-1] > 0, "there is room for the first in the store, and none for the last"
    for plan, same in plans:
        assert [start for _, start in plan.pieces] == [start for _, start in same.pieces]
        tokens = sum(piece.length for piece, _ in plan.pieces)
        assert sum(piece.nbytes for piece, _ in plan.pieces) in (0, tokens * SHAPE.bytes_per_token)
        for (piece, _), (other, _) in zip(plan.pieces, same.pieces, strict=True):
            torch.testing.assert_close(piece.tensor(), other.tensor())


def test_the_zero_control_runs_the_same_rows():
    settings = {"exact_head": 0, "exact_rows": 0.25, "min_observations": 1}
    plans = []
    for control in ("none", "zero"):
        store = OperationStore(KVConfig("no_pruning", control=control, **settings), ROPE, SHAPE)
        store.add_base("solve", TOKENS, random_kv(0))
        store.observe("solve", (), random_kv(1))
        plans.append([(start, piece.length) for piece, start in store.plan("solve", ()).pieces])
    assert plans[0] == plans[1] and sum(length for _, length in plans[0]) == 7 - 2


def test_keys_are_encoded_at_one_position():
    # The same key at every position: a channel turns in the local frame and is one number at position 0.
    kv = random_kv(1)[:, :, :, :1].repeat(1, 1, 1, 24, 1)
    kv[:, 0] = ROPE.rotate(kv[:, 0], torch.arange(24))
    piece = pack(tuple(range(24)), kv, SegmentKind.DYNAMIC, ROPE, INTEGERS["int4"])
    assert (piece.tensor()[:, 0] - kv[:, 0]).abs().max() < 2e-3  # float16 holds the middle to 2^-11 of its size
    assert (INTEGERS["int4"].decode(INTEGERS["int4"].encode(kv))[:, 0] - kv[:, 0]).abs().max() > 5e-2


def test_a_cut_is_a_slice_that_holds_nothing():
    whole = Segment(TOKENS, random_kv(2), SegmentKind.OPERATION, shared=True)
    cut = Cut(whole, 2, 5, ROPE)
    assert (cut.tokens, cut.kind, cut.shared, cut.length) == (TOKENS[2:5], SegmentKind.OPERATION, True, 3)
    torch.testing.assert_close(cut.tensor(), whole.slice(2, 5, ROPE).kv)
