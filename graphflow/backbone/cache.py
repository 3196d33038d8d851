"""A `DynamicCache` that is built from contexts: bases and residuals are decoded, moved into place and batched.

Rows are ragged. A slot of the cache holds one token of each row, with its position, or -1 where a row has none; the
attention mask follows from positions alone, so the order of slots is free (our choice).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from graphflow.kv.accounting import KVShape
from graphflow.kv.rope import Rope
from graphflow.kv.segment import Piece, to_local

Placed = Sequence[tuple[Piece, int]]  # pieces with their offsets; gaps are allowed


class ResidualCache(DynamicCache):
    """KV of a batch of contexts, grown by the model's forward passes.

    Attributes:
        positions: int64 (batch, slots), position of the token in each slot, -1 for none.

    Args:
        rows: For every row its pieces and their offsets; a piece is decoded (base + residual) and moved here.
        rope: Rotary embedding of the model.
        shape: Shape of the model's KV.
        dtype: Dtype that the model computes in.
        device: Device that the model computes on.
    """

    def __init__(self, rows: Sequence[Placed], rope: Rope, shape: KVShape, dtype: torch.dtype, device: torch.device):
        super().__init__()
        slots = max((sum(piece.length for piece, _ in row) for row in rows), default=0)
        self.positions = torch.full((len(rows), slots), -1, device=device)
        if not slots:
            return
        whole = torch.zeros(
            (shape.layers, 2, len(rows), shape.kv_heads, slots, shape.head_dim), dtype=dtype, device=device
        )
        for index, row in enumerate(rows):
            if not row:
                continue
            kv = torch.cat([piece.tensor().to(device) for piece, _ in row], dim=3).to(dtype)
            offsets = torch.cat([torch.full((piece.length,), offset) for piece, offset in row]).to(device)
            local = torch.cat([torch.arange(piece.length) for piece, _ in row]).to(device)
            start = slots - kv.shape[3]
            whole[:, 0, index, :, start:] = rope.rotate(kv[:, 0], offsets)
            whole[:, 1, index, :, start:] = kv[:, 1]
            self.positions[index, start:] = offsets + local
        for layer in range(shape.layers):
            self.update(whole[layer, 0], whole[layer, 1], layer)

    @property
    def slots(self) -> int:
        """Tokens of a row, holes included."""
        return self.positions.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held now."""
        return sum(tensor.numel() * tensor.element_size() for pair in self._tensors() for tensor in pair)

    def _tensors(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, (batch, kv_heads, slots, head_dim)."""
        layers: list[Any] = self.layers
        return [(layer.keys, layer.values) for layer in layers]

    def visible(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What new tokens may attend to, the new tokens themselves appended as the last slots.

        Args:
            positions: int64 (batch, new), -1 where a row has no token.

        Returns:
            visible: bool (batch, new, slots + new); a hole sees itself, so that no row of the softmax is empty.
            distance: int64, the same shape, query position minus key position.
        """
        keys = torch.cat([self.positions, positions], dim=1)
        distance = positions[:, :, None] - keys[:, None, :]
        new = positions.shape[1]
        own = torch.eye(new, dtype=torch.bool, device=positions.device)
        seen = (keys[:, None, :] >= 0) & (distance >= 0)
        seen[:, :, -new:] |= own
        return seen, distance

    def advance(self, positions: Tensor) -> None:
        """Records the positions of tokens whose KV a forward pass has just appended."""
        self.positions = torch.cat([self.positions, positions], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; a row may be repeated (samples share one prefill).

        Args:
            rows: int64 (new batch,).
        """
        self.positions = self.positions[rows]
        self.batch_select_indices(rows)

    def take(self, row: int, start: int, stop: int, offset: int, rope: Rope, dtype: torch.dtype) -> Tensor:
        """KV of the tokens in slots [start, stop) of a row, in the local frame.

        Args:
            row: Row of the batch.
            start: First slot.
            stop: Slot after the last.
            offset: Position of the first token.
            rope: Rotary embedding of the model.
            dtype: Dtype to keep.

        Returns:
            (layers, 2, kv_heads, stop - start, head_dim), a copy.
        """
        kv = torch.stack(
            [torch.stack([keys[row, :, start:stop], values[row, :, start:stop]]) for keys, values in self._tensors()]
        )
        return to_local(kv, offset, rope).to(dtype)
