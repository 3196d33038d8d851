"""Caches that are joined, in lanes or not, give the logits that each row gives in a cache of its own."""

from functools import partial

import pytest
import torch

from graphflow.backbone.cache import ROOM, ResidualCache
from graphflow.backbone.lanes import Lanes
from graphflow.backbone.shared_attention import use_shared_attention
from graphflow.backbone.shared_batch import SharedBatch
from graphflow.kv import Context, Segment, SegmentKind
from tests.tiny import FAMILIES, WINDOW, tiny_backbone


def piece(backbone, length, seed):
    kv = torch.randn(backbone.shape(backbone.dtype).of(length), generator=torch.Generator().manual_seed(seed))
    return Segment((8,) * length, kv, SegmentKind.OPERATION, shared=True)


def context(*pieces):
    made = Context()
    for own in pieces:
        made = made.append(own)
    return made


class Alone:
    """Rows, each in a dense cache of its own and in a batch that they join and leave; few ``slots`` make many lanes."""

    def __init__(self, family, kind, slots=10**6):
        self.plain, self.backbone = tiny_backbone(family), tiny_backbone(family)
        self.plain.model.set_attn_implementation("eager")  # that of transformers
        self.kind = kind
        if kind is SharedBatch:
            use_shared_attention(self.backbone.model)
        self.batch = Lanes(partial(self.cache, self.backbone, kind, []), slots)
        self.own, self.lengths = [], []

    def cache(self, backbone, kind, rows):
        return kind(rows, backbone.rope, backbone.shape(torch.float32), backbone.dtype, backbone.device)

    def join(self, contexts, counts, keep):
        """Prefills ragged newcomers, compares, and lets them join the rows that stay."""
        new = self.cache(self.backbone, self.kind, [own.pieces for own in contexts])
        alone = [self.cache(self.plain, ResidualCache, [own.pieces]) for own in contexts]
        places = [range(own.length, own.length + count) for own, count in zip(contexts, counts, strict=True)]
        self.compare(new, alone, places)
        self.own = [*(self.own[i] for i in keep), *alone]
        self.lengths = [*(self.lengths[i] for i in keep), *(place.stop for place in places)]
        order = self.batch.join(keep, new)
        assert sorted(order) == list(range(len(self.own)))
        self.own, self.lengths = ([rows[i] for i in order] for rows in (self.own, self.lengths))

    @property
    def lane(self):
        (lane,) = self.batch.lanes
        return lane

    def compare(self, batch, alone, places):
        width = max(map(len, places))
        positions = torch.full((len(places), width), -1)
        for row, place in enumerate(places):
            positions[row, width - len(place) :] = torch.tensor(list(place))
        ids = torch.randint(8, 60, positions.shape, generator=torch.Generator().manual_seed(sum(map(len, places))))
        logits = self.backbone.logits(self.backbone.forward(ids, positions, batch))
        for row, (cache, place) in enumerate(zip(alone, places, strict=True)):
            own = slice(width - len(place), None)
            exact = self.plain.logits(self.plain.forward(ids[row : row + 1, own], positions[row : row + 1, own], cache))
            torch.testing.assert_close(logits[row, own], exact[0], rtol=0, atol=1e-4)

    def decode(self, steps):
        for _ in range(steps):
            self.compare(self.batch, self.own, [range(length, length + 1) for length in self.lengths])
            self.lengths = [length + 1 for length in self.lengths]


@pytest.mark.parametrize("kind", [ResidualCache, SharedBatch])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_join_decode_and_leave(family, kind):
    """Newcomers longer and shorter than the batch; pieces that both hold, one of them densely so far, or neither."""
    rows = Alone(family, kind)
    a, b, c = (piece(rows.plain, length, seed) for seed, length in enumerate((13, 30, 7)))
    text = [piece(rows.plain, length, 10 + length) for length in (5, 9, 3, 21)]
    rows.join([context(text[0], a)], [4], [])
    rows.decode(3)
    rows.join([context(text[1], b, a), context(c, b)], [1, 6], [0])
    rows.decode(2)
    rows.join([context(text[2]), context(a, text[3], a, c)], [3, 2], [2, 0])
    rows.decode(WINDOW)
    rows.join([context(b)], [1], [3])
    rows.decode(2)
    assert rows.lane.slots == (max(rows.lengths) if kind is ResidualCache else rows.lane.slots)


def test_what_is_joined_is_shared_and_held_once():
    """Four rows join one by one behind the same 30 tokens: held densely by the first alone, then once for all."""
    rows = Alone("qwen2", SharedBatch)
    held, texts = piece(rows.plain, 30, 1), [piece(rows.plain, 2 + i, 10 + i) for i in range(4)]
    for index, text in enumerate(texts):
        rows.join([context(text, held)], [1], list(range(index)))
        rows.decode(1)
        assert [len(stack.lengths) for stack in rows.lane.stacks] == ([1] if index else [])
    assert rows.lane.slots == 5 + 1 + 1, "the longest text, and what has run behind it"
    kv = rows.lane.stacks[0].kv
    rows.join([context(piece(rows.plain, 4, 99), held)], [1], [0, 1, 2, 3])
    assert rows.lane.stacks[0].kv is kv, "a stack that has all that is shared stays as it is"
    rows.join([context(piece(rows.plain, 4, 98))], [1], [])
    assert rows.lane.stacks == []


def test_a_joined_batch_holds_no_more_than_its_rows_and_room():
    rows = Alone("qwen2", ResidualCache)
    rows.join([context(piece(rows.plain, 10, 1)), context(piece(rows.plain, 20, 2))], [1, 1], [])
    rows.join([context(piece(rows.plain, 5, 3))], [2], [1])
    per_token = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
    assert rows.lane.slots == 21
    assert rows.batch.nbytes == 2 * (21 + 16) * per_token


@pytest.mark.parametrize("kind", [ResidualCache, SharedBatch])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_lanes_join_decode_and_leave(family, kind):
    """Long and short rows that come, go, and change lanes as they grow."""
    rows = Alone(family, kind, slots=4)
    a, b, c = (piece(rows.plain, length, seed) for seed, length in enumerate((13, 60, 7)))
    text = [piece(rows.plain, length, 10 + length) for length in (5, 9, 3, 21)]
    rows.join([context(text[0], a), context(b, a)], [4, 1], [])
    assert len(rows.batch.lanes) == 2
    rows.decode(3)
    rows.join([context(text[1], b, a), context(c, b), context(c)], [1, 6, 2], [0, 1])
    assert len(rows.batch.lanes) > 2
    rows.decode(2)
    kept = [0, 2, 3]
    rows.batch.select(kept)
    rows.own, rows.lengths = ([held[i] for i in kept] for held in (rows.own, rows.lengths))
    rows.decode(WINDOW)
    rows.join([context(text[2]), context(a, text[3], a, c)], [3, 2], [1])
    rows.decode(2)
    rows.join([context(b)], [1], [])
    rows.decode(2)
    assert len(rows.batch.lanes) == 1


def test_a_long_row_does_not_make_the_others_as_long():
    """Ten rows of 11 tokens and one of 201: two lanes, each as long as its rows and the room of one growth."""
    rows = Alone("qwen2", ResidualCache, slots=64)
    rows.join([context(piece(rows.plain, 10, i)) for i in range(10)], [1] * 10, [])
    (lane,) = rows.batch.lanes
    rows.join([context(piece(rows.plain, 200, 99))], [1], list(range(10)))
    assert lane in rows.batch.lanes, "a lane whose rows stay is left alone"
    per_token = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
    assert rows.batch.nbytes == (10 * (11 + ROOM) + 201 + ROOM) * per_token
    rows.decode(2)
    assert rows.batch.get_seq_length() == 203


@pytest.mark.parametrize("kind", [ResidualCache, SharedBatch])
def test_a_lane_gives_back_what_its_longest_row_leaves(kind):
    """Rows of 301 and 251 tokens lie in one lane; when the first has left, the next to join makes it fit the second."""
    rows = Alone("qwen2", kind, slots=100)
    rows.join([context(piece(rows.plain, length, length)) for length in (300, 250)], [1, 1], [])
    assert len(rows.batch.lanes) == 1
    rows.batch.select([1])
    rows.own, rows.lengths = rows.own[1:], rows.lengths[1:]
    rows.join([context(piece(rows.plain, 10, 1))], [1], [0])
    per_token = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32
    assert rows.batch.nbytes == (251 + ROOM + 11 + ROOM) * per_token
    rows.decode(2)


def test_a_lane_gives_back_pieces_that_few_of_its_rows_hold():
    """Of three pieces of 60 tokens, each held by two rows, one is left."""
    rows = Alone("qwen2", SharedBatch, slots=1000)
    pieces = [piece(rows.plain, 60, seed) for seed in range(3)]
    rows.join([context(own) for own in pieces for _ in range(2)], [1] * 6, [])
    kept = [0, 1]
    rows.batch.select(kept)
    rows.own, rows.lengths = ([held[i] for i in kept] for held in (rows.own, rows.lengths))
    (lane,) = rows.batch.lanes
    assert sum(len(stack.pieces) for stack in lane.stacks) == 3
    assert rows.batch.join(kept) == kept
    (lane,) = rows.batch.lanes
    assert [own for stack in lane.stacks for own in stack.pieces] == pieces[:1]
    rows.decode(2)


def test_the_kv_of_a_row_is_taken_from_its_lane():
    rows = Alone("llama", ResidualCache, slots=4)
    rows.join([context(piece(rows.plain, 40, 1)), context(piece(rows.plain, 3, 2))], [1, 1], [])
    rows.decode(3)
    shape = rows.plain.shape(torch.float32)
    for place, (alone, length) in enumerate(zip(rows.own, rows.lengths, strict=True)):
        slots = [(cache.end(row) - 3, cache.end(row)) for cache, row in ((rows.batch, place), (alone, 0))]
        taken = [
            cache.take(row, start, stop, length - 3, rows.plain.rope, shape.dtype)
            for (cache, row), (start, stop) in zip(((rows.batch, place), (alone, 0)), slots, strict=True)
        ]
        torch.testing.assert_close(*taken, rtol=0, atol=1e-5)
