"""Packing of traces: branches share their root, see nothing else, and cost the root once."""

import torch

from graphflow.backbone.packing import documents, pack


def test_documents_repeat_the_root_where_branches_do_not_fit():
    """Root of 3 tokens, branches of 4, 3 and 9 in documents of 10: 3+4+3, the last one (12 tokens) is left out."""
    branches = [[([1, 2], 0.0), ([3, 4], 1.0)], [([5, 6, 7], 1.0)], [([8] * 9, 1.0)]]
    (document,) = documents(([9, 9, 9], 0.5), branches, 10)
    assert document.ids == [9, 9, 9, 1, 2, 3, 4, 5, 6, 7]
    assert document.positions == [0, 1, 2, 3, 4, 5, 6, 3, 4, 5]
    assert document.branches == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert document.weights == [0.5] * 3 + [0.0] * 2 + [1.0] * 5
    first, second = documents(([9, 9, 9], 0.5), branches[:2], 8)
    assert (len(first), len(second)) == (7, 6)


def test_the_mask_by_hand():
    """One row: a document of root r and branches a, b (one token each), then a second document of one branch."""

    def draw():
        yield from documents(([1], 0.0), [[([2], 1.0)], [([3], 1.0)]], 3)
        yield from documents(([4], 0.0), [[([5], 1.0)]], 3)

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


def test_labels_are_the_next_token_of_the_same_branch():
    branches = [[([2], 0.0), ([3, 4], 1.0)], [([5], 1.0), ([6], 0.5)]]
    (document,) = documents(([1], 0.5), branches, 9)
    rows = pack(lambda: iter([document]), rows=1, length=6, misses=1)
    # root 1 | branch 2 3 4 | branch 5 6: before 3 stands 2, before 4 stands 3, before 6 stands 5; 5 itself follows the
    # root, but stands behind 4 in the row, so it is not a label
    assert rows.labels.tolist() == [[-100, 3, 4, -100, 6, -100]]
    assert rows.weights.tolist() == [[0.0, 1.0, 1.0, 0.0, 0.5, 0.0]]
