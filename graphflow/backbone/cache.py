"""A `DynamicCache` that is built from contexts: bases and residuals are decoded, moved into place and batched.

Rows are ragged. A slot of the cache holds one token of each row, with its position, or -1 where a row has none; the
attention mask follows from positions alone, so the order of slots is free (our choice).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, DynamicLayer

from graphflow.backbone.compat import masks_for
from graphflow.kv.accounting import KVShape, tensor_bytes
from graphflow.kv.rope import Rope
from graphflow.kv.segment import Piece, to_local

Placed = Sequence[tuple[Piece, int]]  # pieces with their offsets; gaps are allowed
Part = tuple["ResidualCache", Tensor]  # a batch and some of its rows
ROOM = 16  # slots that a layer has to spare when it grows: one copy in so many tokens


class RoomyLayer(DynamicLayer):
    """A layer that grows in place while it has room, where `DynamicLayer` copies itself for every token."""

    _buffer: Tensor | None = None  # (2, batch, kv_heads, room, head_dim): keys and values are views of it

    @classmethod
    def of(cls, keys: Tensor, values: Tensor) -> RoomyLayer:
        """A layer with these keys and values, (batch, kv_heads, slots, head_dim) each."""
        layer = cls()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        return layer

    @classmethod
    def within(cls, buffer: Tensor, slots: int) -> RoomyLayer:
        """A layer that holds the first slots of a buffer, (2, batch, kv_heads, room, head_dim), and grows into it."""
        layer = cls.of(buffer[0, :, :, :slots], buffer[1, :, :, :slots])
        layer._buffer = buffer
        return layer

    @property
    def nbytes(self) -> int:
        """Bytes held, room included."""
        if self._buffer is not None:
            return tensor_bytes(self._buffer)
        return sum(tensor_bytes(tensor) for tensor in (self.keys, self.values) if tensor is not None)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (batch, kv_heads, new, head_dim) each; gives all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.shape[2]
        buffer = self._buffer
        if buffer is None or buffer.shape[3] < stop:
            batch, heads, _, dim = key_states.shape
            buffer = key_states.new_empty((2, batch, heads, stop + ROOM, dim))
            if self.keys is not None and self.values is not None and start:
                buffer[0, :, :, :start], buffer[1, :, :, :start] = self.keys, self.values
            self._buffer = buffer
        buffer[0, :, :, start:stop], buffer[1, :, :, start:stop] = key_states, value_states
        self.keys, self.values = buffer[0, :, :, :stop], buffer[1, :, :, :stop]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch, without room."""
        super().batch_select_indices(indices)
        self._buffer = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch, without room."""
        super().batch_repeat_interleave(repeats)
        self._buffer = None

    def reorder_cache(self, beam_idx: Tensor) -> None:  # type: ignore[override]
        """Rows in another order, without room."""
        self.batch_select_indices(beam_idx)


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
        self.layer_class_to_replicate = RoomyLayer
        slots = max((sum(piece.length for piece, _ in row) for row in rows), default=0)
        self.positions = torch.full((len(rows), slots), -1, device=device)
        self._packed: list[list[tuple[list[Any], Tensor, _Pack]]] = []
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
        self.layers: list[Any] = [RoomyLayer.of(*whole[layer]) for layer in range(shape.layers)]

    @property
    def slots(self) -> int:
        """Tokens of a row, holes included."""
        return self.positions.shape[1]

    @property
    def lean(self) -> bool:
        """True if some row has a token in every slot: to lay the rows anew (`lay`) would give nothing back."""
        return bool((self.positions >= 0).all(dim=1).any())

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held now, room to grow included."""
        return sum(layer.nbytes for layer in self.layers)

    def _tensors(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, (batch, kv_heads, slots, head_dim)."""
        return [self.kv(layer) for layer in range(len(self.layers))]

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

    def masks(self, config: Any, positions: Tensor, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
        """Attention masks of a forward pass over new tokens, in the form that the model takes (`compat.masks_for`).

        Args:
            config: The model's configuration.
            positions: int64 (batch, new), -1 where a row has no token.
            dtype: Dtype of the model.
        """
        return masks_for(config, *self.visible(positions), dtype)

    def end(self, row: int) -> int:
        """The slot behind a row's last token."""
        return self.slots

    def kv(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, (batch, kv_heads, slots, head_dim) each."""
        own: Any = self.layers[layer]
        return own.keys, own.values

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

    def lay(self, parts: Sequence[Part]) -> None:
        """Becomes rows of other batches, once `fill` has been called for every layer.

        Holes are dropped: every row ends at the last slot, its tokens in the order in which they were.

        Args:
            parts: Batches of this kind, and int64 (kept,), their rows, in order.
        """
        parts = [(cache, rows) for cache, rows in parts if len(rows)]
        packs = [_Pack(cache.positions[rows]) for cache, rows in parts]
        count, slots = sum(len(rows) for _, rows in parts), max((pack.longest for pack in packs), default=0)
        positions, start = torch.full((count, slots), -1, device=self.positions.device), 0
        for (_, rows), pack in zip(parts, packs, strict=True):
            positions[start : start + len(rows), slots - pack.longest :] = pack.positions
            start += len(rows)
        sources: list[tuple[list[Any], Tensor, _Pack]] = [
            (cache.layers, rows, pack) for (cache, rows), pack in zip(parts, packs, strict=True)
        ]
        self.layers = [RoomyLayer() for _ in (sources[0][0] if sources else ())]
        self._packed, self.positions = [sources] * len(self.layers), positions

    def fill(self, layer: int) -> None:
        """Copies the keys and values of a layer, see `lay`."""
        count, slots = self.positions.shape
        sources, self._packed[layer] = self._packed[layer], []
        keys, start = sources[0][0][layer].keys, 0
        buffer = keys.new_empty((2, count, keys.shape[1], slots + ROOM, keys.shape[3]))
        for layers, rows, pack in sources:
            own = buffer[:, start : start + len(rows)]
            own[:, :, :, : slots - pack.longest] = 0  # never seen, but must be finite
            into = own[:, :, :, slots - pack.longest : slots]
            pack.copy(layers[layer].keys, rows, into[0])
            pack.copy(layers[layer].values, rows, into[1])
            start += len(rows)
        self.layers[layer] = RoomyLayer.within(buffer, slots)

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


def drop(used: Iterable[list[Any]], layer: int) -> None:
    """Lets go of a layer of batches that are used up: what is copied goes at once, no second batch is ever held."""
    for layers in used:
        if layers:
            layers[layer] = RoomyLayer()


class _Pack:
    """How the tokens of some rows come to stand without holes between them, each row at the end.

    Attributes:
        longest: Tokens of the longest row.
        positions: int64 (rows, longest).
    """

    def __init__(self, positions: Tensor) -> None:
        live = positions >= 0
        self.longest = int(live.sum(dim=1).max())
        order = live.to(torch.uint8).argsort(dim=1, stable=True)
        order = order[:, order.shape[1] - self.longest :]
        plain = torch.arange(positions.shape[1] - self.longest, positions.shape[1], device=order.device)
        # Rows of a batch that only decodes stand so already: their slots are copied as they are.
        self._order = None if bool((order == plain).all()) else order
        self.positions = positions.gather(1, order)

    def copy(self, tensor: Tensor, rows: Tensor, into: Tensor) -> None:
        """Copies the tokens of (batch, kv_heads, slots, head_dim) into (rows, kv_heads, longest, head_dim)."""
        if self._order is None:
            torch.index_select(tensor[:, :, tensor.shape[2] - self.longest :], 0, rows, out=into)
        else:
            into.copy_(tensor[rows[:, None], :, self._order].transpose(1, 2))
