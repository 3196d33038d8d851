"""Segments read once for a whole batch give the logits that contexts materialised one by one give."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from graphflow.backbone import shared_attention as attention
from graphflow.backbone.cache import ROOM, ResidualCache, RoomyLayer
from graphflow.backbone.load import Backbone
from graphflow.backbone.shared_attention import NAME, shared_attention, use_shared_attention
from graphflow.backbone.shared_batch import SharedBatch
from graphflow.backbone.shared_stacks import STACK, TOKEN, divide, stack_up
from graphflow.backbone.turns import MINI
from graphflow.kv import Context, EncodedSegment, Rope, Segment, SegmentKind
from graphflow.kv.codecs import SparseCodec
from graphflow.kv.segment import Cut
from tests.tiny import COMMON, FAMILIES, WINDOW, tiny_backbone, tiny_tokenizer

PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
TOLERANCE = 1e-5  # of the largest logit


def piece(backbone, length, seed, kind=SegmentKind.OPERATION):
    """A segment of random KV."""
    kv = torch.randn(backbone.shape(backbone.dtype).of(length), generator=torch.Generator().manual_seed(seed))
    return Segment((8,) * length, kv.to(backbone.dtype), kind, shared=kind is SegmentKind.OPERATION)


def context(*pieces):
    made = Context()
    for own in pieces:
        made = made.append(own)
    return made


def pair(family="qwen2", dtype=torch.float32):
    """The same backbone twice: with the attention of transformers, and with that over shared segments."""
    plain, shared = tiny_backbone(family, dtype), tiny_backbone(family, dtype)
    plain.model.set_attn_implementation("eager")
    use_shared_attention(shared.model)
    return plain, shared


def caches(plain, shared, rows):
    return [
        kind(rows, backbone.rope, backbone.shape(backbone.dtype), backbone.dtype, backbone.device)
        for kind, backbone in ((ResidualCache, plain), (SharedBatch, shared))
    ]


def run(plain, shared, both, positions):
    """Logits of the same tokens on both caches, of the real ones only."""
    ids = torch.randint(8, 60, positions.shape, generator=torch.Generator().manual_seed(int(positions.sum())))
    real = positions >= 0
    return [
        backbone.logits(backbone.forward(ids, positions, cache))[real]
        for backbone, cache in zip((plain, shared), both, strict=True)
    ]


def check(logits):
    expected, got = logits
    error = (expected - got).abs()
    assert float(error.max()) <= TOLERANCE * max(1.0, float(expected.abs().max())), (
        f"max {float(error.max()):.2e}, mean {float(error.mean()):.2e}, logits to {float(expected.abs().max()):.1f}"
    )


def fresh(lengths, counts):
    """Positions of new tokens, left-padded: ``counts`` of them behind ``lengths``."""
    width = max(counts)
    positions = torch.full((len(counts), width), -1)
    for row, (start, count) in enumerate(zip(lengths, counts, strict=True)):
        positions[row, width - count :] = torch.arange(start, start + count)
    return positions


def ragged(backbone):
    """Shared segments at several offsets, one twice in a row, two in a row, none, alone, and nothing of a row's own."""
    a, b, c = (piece(backbone, length, seed) for seed, length in enumerate((13, 30, 7)))
    text = [piece(backbone, length, 10 + length, SegmentKind.DYNAMIC) for length in (5, 9, 3, 1)]
    return [
        context(text[0], a, b),
        context(a, text[1], b, c, a),
        context(text[2]),
        context(b, c),
        context(text[3], piece(backbone, 11, 3), b),
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decoding_of_a_ragged_batch(family):
    """Contexts of 3 to 72 tokens, Gemma's window is 24: decoding goes on until segments have left it."""
    plain, shared = pair(family)
    rows = ragged(plain)
    both = caches(plain, shared, [row.pieces for row in rows])
    assert sum(len(stack.lengths) for stack in both[1].stacks) == 3
    counts = [6, 3, 1, 5, 2]
    check(run(plain, shared, both, fresh([row.length for row in rows], counts)))
    last = torch.tensor([[row.length + count] for row, count in zip(rows, counts, strict=True)])
    for step in range(WINDOW + 8):
        positions = last + step
        positions[0] = -1 if step > 3 else positions[0]  # a row that is done
        check(run(plain, shared, both, positions))


@pytest.mark.parametrize("family", FAMILIES)
def test_same_logits_as_contexts_that_are_materialised_and_run_alone(family):
    plain, shared = pair(family)
    rows = ragged(plain)
    batch = caches(plain, shared, [row.pieces for row in rows])[1]
    ids = torch.tensor([[20, 30, 40]] * len(rows))
    positions = fresh([row.length for row in rows], [3] * len(rows))
    together = shared.logits(shared.forward(ids, positions, batch))
    for index, row in enumerate(rows):
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(row.materialize(plain.rope, torch.float32)):
            cache.update(keys[None], values[None], layer)
        with torch.inference_mode():
            alone = plain.model(
                input_ids=ids[index : index + 1], position_ids=positions[index : index + 1], past_key_values=cache
            )
        check((alone.logits[0].float(), together[index]))


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_scaled_rotary_embeddings(kind):
    """Yarn multiplies queries and keys by an attention factor, 1.14 here, which must count once in each."""
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 64} if kind == "yarn" else {}

    def made():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**{**COMMON, "initializer_range": 0.3}, rope_parameters=rope))
        return Backbone(kind, model.eval(), tiny_tokenizer(), MINI)

    plain, shared = made(), made()
    assert (plain.model.model.rotary_emb.attention_scaling > 1.1) == (kind == "yarn")
    use_shared_attention(shared.model)
    rows = ragged(plain)
    both = caches(plain, shared, [row.pieces for row in rows])
    check(run(plain, shared, both, fresh([row.length for row in rows], [4, 1, 2, 3, 4])))


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_tokens_that_run_before_a_shared_segment_do_not_see_it(family):
    """Exact head and tail of a prompt: tokens 20, 21 run, 22-51 and 53-59 are held, 52 and 60 run."""
    plain, shared = pair(family)
    core, end = piece(plain, 30, 1), piece(plain, 7, 2)
    rows = [[(piece(plain, 20, seed, SegmentKind.DYNAMIC), 0), (core, 22), (end, 53)] for seed in (3, 4)]
    both = caches(plain, shared, rows)
    check(run(plain, shared, both, torch.tensor([[20, 21, 52, 60], [-1, 20, 52, 60]])))
    check(run(plain, shared, both, torch.tensor([[61], [61]])))


@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
def test_rows_leave_move_and_are_repeated(family):
    plain, shared = pair(family)
    rows = ragged(plain)
    both = caches(plain, shared, [row.pieces for row in rows])
    lengths = [row.length for row in rows]
    check(run(plain, shared, both, fresh(lengths, [2] * 5)))
    for step, kept in enumerate(([4, 1, 1, 0], [2, 0, 0], [1])):
        for cache in both:
            cache.select(torch.tensor(kept))
        lengths = [lengths[row] for row in kept]
        check(run(plain, shared, both, fresh([length + 2 + step for length in lengths], [1] * len(kept))))


def test_a_batch_without_shared_segments_is_dense():
    plain, shared = pair()
    rows = [context(piece(plain, 12, 1)).pieces, context(piece(plain, 5, 2)).pieces, ()]
    both = caches(plain, shared, rows)
    assert both[1].stacks == [] and both[1].shared_bytes == 0
    check(run(plain, shared, both, fresh([12, 5, 0], [1, 3, 2])))


def test_what_is_out_of_a_window_is_not_read():
    """The sliding layers' copy of a segment 30 tokens back is not even touched: NaN there changes nothing."""
    plain, shared = pair("gemma2")
    far, near = piece(plain, 10, 1), piece(plain, 10, 2)
    rows = [context(far, piece(plain, 20 + seed, 3 + seed), near).pieces for seed in (0, 1)]
    both = caches(plain, shared, rows)
    (stack,) = both[1].stacks
    types = plain.model.config.layer_types
    assert types.count("sliding_attention") == 2
    for layer, kind in enumerate(types):
        if kind == "sliding_attention":
            stack.kv[layer, :, :, 0] = torch.nan
    check(run(plain, shared, both, torch.tensor([[40], [41]])))
    stack.kv[types.index("full_attention"), :, :, 0] = torch.nan
    assert run(plain, shared, both, torch.tensor([[41], [42]]))[1].isnan().all(), "full attention does read it"


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), family=st.sampled_from(FAMILIES))
def test_random_contexts(data, family):
    """Any segments in any order behind any text, ragged prefill, decoding with rows that leave."""
    plain, shared = pair(family)
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5), label="segments")
    known = [piece(plain, length, seed) for seed, length in enumerate(lengths)]
    rows = []
    for index in range(data.draw(st.integers(1, 5), label="rows")):
        chosen = data.draw(st.lists(st.integers(-9, len(known) - 1), max_size=6), label="pieces")
        rows.append(context(*(known[i] if i >= 0 else piece(plain, -i, 100 * index - i) for i in chosen)))
    both = caches(plain, shared, [row.pieces for row in rows])
    ends = [row.length for row in rows]
    for _ in range(data.draw(st.integers(1, 4), label="passes")):
        counts = data.draw(st.lists(st.integers(1, 5), min_size=len(ends), max_size=len(ends)), label="new")
        check(run(plain, shared, both, fresh(ends, counts)))
        ends = [end + count for end, count in zip(ends, counts, strict=True)]
        kept = data.draw(st.lists(st.integers(0, len(ends) - 1), min_size=1, max_size=5), label="kept")
        for cache in both:
            cache.select(torch.tensor(kept))
        ends = [ends[row] for row in kept]
    held = sum(len(stack.lengths) for stack in both[1].stacks)
    assert held <= len(known)


def attend(batch, query, keys, values, positions, **how):
    """One layer's attention with a batch: no transformers around it."""
    seen, _ = batch.visible(positions)
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[:, None].to(query.dtype)
    layer = torch.nn.Module()
    layer.layer_idx = 0
    return shared_attention(layer, query, keys, values, mask, cached=batch, **how)[0]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_attention_alone_against_float64(dtype, tolerance, softcap):
    """Two contexts with a segment at 4 and at 9, one query each: scores of absolute keys, softmax, values, in float64.

    In bfloat16 inputs and result are rounded and nothing between them: half a unit in the last place of the result.
    """
    plain = tiny_backbone(dtype=dtype)
    held, texts = piece(plain, 25, 1), [piece(plain, length, length, SegmentKind.DYNAMIC) for length in (4, 9)]
    rows = [context(text, held) for text in texts]
    batch = SharedBatch([row.pieces for row in rows], plain.rope, plain.shape(dtype), dtype, plain.device)
    query = torch.randn(2, 4, 1, 8, generator=torch.Generator().manual_seed(7)).to(dtype)
    own = torch.randn(2, 2, 2, 1, 8, generator=torch.Generator().manual_seed(8)).to(dtype)
    positions = torch.tensor([[row.length] for row in rows])
    keys, values = batch.update(own[0], own[1], 0)
    mixed = attend(batch, query, keys, values, positions, scaling=0.5, softcap=softcap)
    assert mixed.dtype is dtype
    for index, row in enumerate(rows):
        for head in range(4):
            whole = []
            for side in (0, 1):
                parts = [
                    plain.rope.rotate(part.kv[0, 0, head // 2].double().float(), offset).double()
                    if side == 0
                    else part.kv[0, 1, head // 2].double()
                    for part, offset in row.pieces
                ]
                parts[0] = parts[0] if side else keys[index, head // 2, -1 - len(parts[0]) : -1].double()
                whole.append(torch.cat([*parts, own[side, index, head // 2].double()]))
            scores = 0.5 * whole[0] @ query[index, head, 0].double()
            scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
            expected = scores.softmax(0) @ whole[1]
            error = (mixed[index, 0, head].double() - expected).abs() / expected.abs().clamp_min(1)
            assert float(error.max()) <= tolerance


def test_a_bfloat16_model_is_no_further_from_float32_than_when_contexts_are_materialised():
    """Same weights and KV, rounded to bfloat16: the dense path also rounds keys after moving them, and scores."""
    plain, shared = pair(dtype=torch.bfloat16)
    rows = ragged(plain)
    both = caches(plain, shared, [row.pieces for row in rows])
    positions = fresh([row.length for row in rows], [3] * 5)
    dense, ours = run(plain, shared, both, positions)
    precise = Backbone("float32", plain.model.float(), plain.tokenizer, MINI)
    exact, _ = run(precise, shared, caches(precise, shared, [row.pieces for row in rows]), positions)
    assert 0 < float((ours - exact).abs().mean()) <= 1.1 * float((dense - exact).abs().mean())


def test_bytes_by_hand():
    """Two rows hold a segment of 10 tokens; their own texts have 3 and 5 tokens and are padded to 5.

    Tables of the two uses: rows 2 x 8 bytes, offsets 2 x 8, turns of 4 frequencies 2 x 4 x 8, the way back of two
    results a row 4 x 8.
    """
    plain, shared = pair()
    held = piece(plain, 10, 1)
    rows = [context(piece(plain, length, length), held).pieces for length in (3, 5)]
    dense, batch = caches(plain, shared, rows)
    assert batch.shared_bytes == 10 * PER_TOKEN
    assert batch.private_bytes == 2 * 5 * PER_TOKEN
    run(plain, shared, (dense, batch), torch.tensor([[13], [15]]))
    assert batch.shared_bytes == 10 * PER_TOKEN + 2 * 8 + 2 * 8 + 2 * 4 * 8 + 4 * 8
    assert batch.private_bytes == 2 * (5 + 1 + ROOM) * PER_TOKEN
    assert batch.nbytes == batch.shared_bytes + batch.private_bytes
    assert dense.nbytes == 2 * (16 + ROOM) * PER_TOKEN
    batch.select(torch.tensor([1]))
    assert batch.nbytes == 10 * PER_TOKEN + 6 * PER_TOKEN, "no tables before the next pass, no room before it grows"


def test_one_object_is_one_segment_and_so_are_its_cuts():
    backbone = tiny_backbone()
    rope = Rope(backbone.rope.inv_freq)
    base, twin = piece(backbone, 12, 1), piece(backbone, 12, 1)
    coded = EncodedSegment.encode(base.tokens, base.kv, None, base.kv + 0.5, SparseCodec(1.0, 32))
    rows = [
        context(base, Cut(base, 2, 9, rope), twin).pieces,
        context(Cut(base, 2, 9, rope), coded, base, Cut(base, 3, 9, rope)).pieces,
        context(coded).pieces,
    ]
    found, left = divide(rows)
    assert [(held.length, uses) for held, uses in found] == [
        (12, [(0, 0), (1, 19)]),
        (7, [(0, 12), (1, 0)]),
        (12, [(1, 7), (2, 0)]),
    ]
    assert [[own.length for own, _ in row] for row in left] == [[12], [6], []]
    assert left[0][0][0] is twin


def test_stacks_are_cut_where_padding_costs_more_than_a_stack():
    """Eight segments of up to 17 tokens and one of 400, two uses each."""
    backbone = tiny_backbone()
    assert 9 * 400 * (TOKEN + 2) + STACK > (8 * 17 + 400) * (TOKEN + 2) + 2 * STACK
    assert 8 * 17 * (TOKEN + 2) + STACK < sum(range(10, 18)) * (TOKEN + 2) + 2 * STACK
    pieces = [piece(backbone, length, length) for length in (*range(10, 18), 400)]

    def shapes(members):
        stacks = stack_up(
            [(own, [(0, 0), (1, 5)]) for own in members], backbone.shape(torch.float32), torch.float32, backbone.device
        )
        return sorted((len(stack.lengths), stack.kv.shape[4]) for stack in stacks)

    assert shapes(pieces) == [(1, 400), (8, 17)]
    assert shapes(pieces[:8]) == [(8, 17)], "a few padded tokens are cheaper than a second stack"


def test_a_layer_with_room_holds_what_a_growing_one_holds():
    ours, theirs = RoomyLayer(), DynamicCache()
    generator = torch.Generator().manual_seed(0)
    for step, count in enumerate((3, 1, ROOM, 1, 2)):
        if step == 3:
            ours.batch_select_indices(torch.tensor([1, 1, 0]))
            theirs.batch_select_indices(torch.tensor([1, 1, 0]))
        new = torch.randn(2, 3 if step >= 3 else 2, 2, count, 4, generator=generator)
        for got, expected in zip(ours.update(new[0], new[1]), theirs.update(new[0], new[1], 0), strict=True):
            assert torch.equal(got, expected)


def test_without_a_batch_it_is_the_models_own_attention():
    plain, shared = pair("gemma2")
    ids = torch.randint(8, 60, (2, WINDOW + 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, got = (backbone.model(input_ids=ids).logits for backbone in (plain, shared))
    check((expected, got))


def test_it_is_set_up_once():
    _, shared = pair()
    use_shared_attention(shared.model)
    assert shared.model.config._attn_implementation == NAME
    assert len(shared.model.model._forward_pre_hooks) == 1


def test_a_model_that_attends_in_another_way_is_refused():
    plain, shared = pair()
    batch = caches(plain, shared, [row.pieces for row in ragged(plain)])[1]
    with pytest.raises(RuntimeError, match="did not read the batch's shared segments: call use_shared_attention"):
        plain.forward(torch.full((5, 1), 9), torch.full((5, 1), 80), batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_fused_kernel_and_plain_products_agree(family, dtype, monkeypatch):
    """On a CPU parts of a softmax come from the fused kernel; elsewhere from products, here on the same batch."""
    _, backbone = pair(family, dtype)
    rows = [row.pieces for row in ragged(backbone)]
    positions = fresh([max((o + p.length for p, o in row), default=0) for row in rows], [3] * len(rows))
    logits = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(attention, "_fusible", lambda query, softcap: False)
        batch = SharedBatch(rows, backbone.rope, backbone.shape(dtype), dtype, backbone.device)
        found = []
        for step in range(3):
            where = positions + 3 * step
            found.append(backbone.logits(backbone.forward(where % 50 + 8, where, batch)))
        logits.append(torch.cat(found))
    limit = TOLERANCE if dtype is torch.float32 else 0.05
    assert float((logits[0] - logits[1]).abs().max()) <= limit * max(1.0, float(logits[1].abs().max()))
