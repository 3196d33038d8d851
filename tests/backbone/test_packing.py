"""Packing of traces: branches share their root, see nothing else, and cost the root once."""

import torch

from graphflow.backbone.packing import Document, Piece, documents, pack, size_of


def piece(*ids, weight=0.0, blocked=False, gap=0):
    return Piece(ids, weight, blocked, gap)


def test_documents_repeat_the_root_where_branches_do_not_fit():
    """Root of 3 tokens, branches of 4, 3 and 9 in documents of 10: 3+4+3, the last one (12 tokens) is left out."""
    branches = [[piece(1, 2), piece(3, 4, weight=1.0)], [piece(5, 6, 7, weight=1.0)], [piece(*[8] * 9, weight=1.0)]]
    root = [piece(9, 9, weight=0.5), piece(9)]
    (document,) = documents(root, branches, 10)
    assert document.ids == [9, 9, 9, 1, 2, 3, 4, 5, 6, 7]
    assert document.positions == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5]
    assert document.branches == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert document.weights == [0.5, 0.5, 0.0, 0.0, 0.0] + [1.0] * 5
    first, second = documents(root, branches[:2], 8)
    assert (len(first), len(second)) == (7, 6)
    assert size_of(branches[0]) == 4 and not list(documents(root, branches[2:], 10))


def test_the_mask_by_hand():
    """One row: a document of root r and branches a, b (one token each), then a second document of one branch."""

    def draw():
        yield from documents([piece(1)], [[piece(2, weight=1.0)], [piece(3, weight=1.0)]], 3)
        yield from documents([piece(4)], [[piece(5, weight=1.0)]], 3)

    rows = pack(draw, rows=1, length=5, misses=1)
    assert rows.ids.tolist() == [[1, 2, 3, 4, 5]] and rows.filled == 1.0
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0],  # root sees itself
            [1, 1, 0, 0, 0],  # a sees the root
            [1, 0, 1, 0, 0],  # b sees the root, not a
            [0, 0, 0, 1, 0],  # the next document sees nothing of the first
            [0, 0, 0, 1, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(rows.mask()[0, 0], expected)


def test_a_blocked_piece_sees_itself_alone_but_for_its_last_token():
    """Root r, prompt of three tokens (blocked), output o, a second blocked prompt of two."""
    document = Document()
    document.add([piece(1)], 0)
    document.add([piece(2, 3, 4, blocked=True), piece(5), piece(6, 7, blocked=True)], 1)
    assert document.blocks == [0, 1, 1, 0, 0, 2, 0]
    rows = pack(lambda: iter([document]), rows=1, length=7, misses=1)
    expected = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0, 0],
            [0, 1, 0, 0, 0, 0, 0],  # the prompt's first token sees neither the root
            [0, 1, 1, 0, 0, 0, 0],
            [1, 1, 1, 1, 0, 0, 0],  # its last token sees everything
            [1, 1, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 1, 0],
            [1, 1, 1, 1, 1, 1, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(rows.mask()[0, 0], expected)


def test_a_window_counts_positions_not_places_in_the_row():
    """Root of two tokens and two branches: the second branch stands far right in the row and near in its context."""
    branches = [[piece(3, 4)], [piece(5)]]
    rows = pack(lambda: documents([piece(1, 2)], branches, 5), rows=1, length=5, misses=1)
    seen = rows.mask(window=2)[0, 0].int().tolist()
    assert seen[3] == [0, 0, 1, 1, 0], "position 3 sees positions 2 and 3"
    assert seen[4] == [0, 1, 0, 0, 1], "position 2 of the other branch sees position 1 of the root"


def test_a_gap_moves_the_last_token_and_all_that_follows():
    """An abridged piece takes the room of the whole one, in the root and in a branch, and costs its own tokens."""
    root = [piece(1, 2, gap=3), piece(3)]
    branches = [[piece(4, 5, 6, gap=2, blocked=True), piece(7, 8, weight=1.0)], [piece(9, gap=4), piece(10)]]
    (document,) = documents(root, branches, 10)
    assert document.ids == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert document.positions == [0, 4, 5, 6, 7, 10, 11, 12, 10, 11], "5 + 1 of the root, then 3 + 2, then 1 + 4"
    assert document.branches == [0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert document.blocks == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    rows = pack(lambda: iter([document]), rows=1, length=10, misses=1)
    assert rows.positions.tolist() == [document.positions]
    assert rows.labels.tolist() == [[-100] * 5 + [7, 8] + [-100] * 3]
    (whole,) = documents([piece(0, 0, 0, 0, 0), piece(3)], [[piece(7, 8)]], 8)
    (cut,) = documents([piece(0, 0, gap=3), piece(3)], [[piece(7, 8)]], 5)
    assert set(zip(cut.ids, cut.positions, strict=True)) < set(zip(whole.ids, whole.positions, strict=True))
    second = [document.positions for document in documents(root, branches, 8)][1]
    assert second == [0, 4, 5, 10, 11], "the root's gap is there again where the root is repeated"


def test_a_window_counts_the_positions_of_a_gap():
    """Root at 0, 1 and 6, a branch at 7 and 8: with three positions to see, the gap hides what stands beside it."""
    (document,) = documents([piece(1, 2, 3, gap=4)], [[piece(4, 5)]], 5)
    assert document.positions == [0, 1, 6, 7, 8]
    rows = pack(lambda: iter([document]), rows=1, length=5, misses=1)
    expected = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1]], dtype=torch.bool
    )
    assert torch.equal(rows.mask(window=3)[0, 0], expected)
    assert torch.equal(rows.mask(window=6)[0, 0, 2], torch.tensor([False, True, True, False, False]))
    assert torch.equal(rows.mask()[0, 0], torch.ones(5, 5).tril().bool()), "without a window it hides nothing"


def test_labels_are_the_next_token_of_the_same_branch():
    branches = [[piece(2), piece(3, 4, weight=1.0)], [piece(5, weight=1.0), piece(6, weight=0.5)]]
    (document,) = documents([piece(1, weight=0.5)], branches, 9)
    rows = pack(lambda: iter([document]), rows=1, length=6, misses=1)
    # root 1 | branch 2 3 4 | branch 5 6: before 3 stands 2, before 4 stands 3, before 6 stands 5; 5 itself follows the
    # root, but stands behind 4 in the row, so it is not a label
    assert rows.labels.tolist() == [[-100, 3, 4, -100, 6, -100]]
    assert rows.weights.tolist() == [[0.0, 1.0, 1.0, 0.0, 0.5, 0.0]]
