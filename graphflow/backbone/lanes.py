"""A running batch in lanes: rows of about one length lie together, and only within a lane are they padded.

Everything but attention runs on the whole batch at once; attention runs lane by lane. One long context then no longer
makes every other row as long as itself (our choice; paging does the same where a kernel can follow tables).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from graphflow.backbone.cache import Part, ResidualCache, drop
from graphflow.backbone.compat import body, masks_for
from graphflow.backbone.padding import alike
from graphflow.kv.rope import Rope

LANE = 1024
"""Slots of a row that cost as much as one lane more: a few calls in every layer."""
Masks = Tensor | dict[str, Tensor]
Attention = Callable[..., tuple[Tensor, Tensor | None]]


class Lanes(DynamicCache):
    """KV of a batch whose rows come and go.

    Attributes:
        lanes: Batches of one kind; the rows of the first come first.

    Args:
        empty: Makes a batch without rows.
        slots: Slots that cost as much as one lane more.
    """

    def __init__(self, empty: Callable[[], ResidualCache], slots: int = LANE) -> None:
        super().__init__()
        self.lanes: list[ResidualCache] = []
        self._empty, self._slots = empty, slots
        self._masks: list[Masks] = []

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held now, room to grow included."""
        return sum(lane.nbytes for lane in self.lanes)

    @property
    def rows(self) -> list[slice]:
        """Rows of each lane."""
        ends = list(accumulate((len(lane.positions) for lane in self.lanes), initial=0))
        return [slice(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]

    def parts(self, layer: Any) -> Iterator[tuple[ResidualCache, slice, Tensor]]:
        """Every lane, its rows, and their mask in an attention layer.

        Args:
            layer: The attention layer.
        """
        for lane, rows, masks in zip(self.lanes, self.rows, self._masks, strict=True):
            yield lane, rows, masks if isinstance(masks, Tensor) else masks[layer.layer_type]

    def masks(self, config: Any, positions: Tensor, dtype: torch.dtype) -> Masks:
        """Notes the mask of every lane; gives the model one that is as wide as the new tokens, which nothing reads.

        Args:
            config: The model's configuration.
            positions: int64 (batch, new), -1 where a row has no token.
            dtype: Dtype of the model.
        """
        self._masks = [
            lane.masks(config, positions[rows], dtype) for lane, rows in zip(self.lanes, self.rows, strict=True)
        ]
        new = positions.shape[1]
        everything = torch.ones((len(positions), new, new), dtype=torch.bool, device=positions.device)
        return masks_for(config, everything, torch.zeros_like(everything, dtype=torch.long), dtype)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Appends (batch, kv_heads, new, head_dim) each to the rows' lanes; gives them back."""
        for lane, rows in zip(self.lanes, self.rows, strict=True):
            lane.update(key_states[rows], value_states[rows], layer_idx)
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Slots of the longest lane."""
        return max((lane.slots for lane in self.lanes), default=0)

    def advance(self, positions: Tensor) -> None:
        """Records the positions of tokens whose KV a forward pass has just appended (see `ResidualCache`)."""
        for lane, rows in zip(self.lanes, self.rows, strict=True):
            lane.advance(positions[rows])

    def end(self, row: int) -> int:
        """The slot behind a row's last token, in its lane."""
        lane, own = self._at(row)
        return lane.end(own)

    def take(self, row: int, start: int, stop: int, offset: int, rope: Rope, dtype: torch.dtype) -> Tensor:
        """KV of the tokens in slots [start, stop) of a row's lane (see `ResidualCache`)."""
        lane, own = self._at(row)
        return lane.take(own, start, stop, offset, rope, dtype)

    def _at(self, row: int) -> tuple[ResidualCache, int]:
        return next(
            (lane, row - rows.start) for lane, rows in zip(self.lanes, self.rows, strict=True) if row < rows.stop
        )

    def select(self, rows: Sequence[int]) -> None:
        """Keeps these rows; they are in ascending order, none twice."""
        left = []
        for lane, own in zip(self.lanes, self.rows, strict=True):
            kept = [row - own.start for row in rows if own.start <= row < own.stop]
            if kept and len(kept) < own.stop - own.start:
                lane.select(torch.tensor(kept, device=lane.positions.device))
            left += [lane] if kept else []
        self.lanes = left

    def join(self, rows: Sequence[int], *others: ResidualCache) -> list[int]:
        """Keeps these rows and takes in those of other batches, in as many lanes as are worth while.

        Args:
            rows: Ascending, none twice; may be empty.
            others: Batches of the kind of the lanes; not to be used afterwards.

        Returns:
            The new order: for every row its place among the kept rows and, behind them, those of the others.
        """
        sources = [*self.lanes, *others]
        found = [
            (number, row - own.start)
            for number, own in enumerate(self.rows)
            for row in rows
            if own.start <= row < own.stop
        ]
        first = len(self.lanes)
        found += [(first + i, row) for i, other in enumerate(others) for row in range(len(other.positions))]
        live = [(source.positions >= 0).sum(dim=1).tolist() for source in sources]
        groups = alike([live[number][row] for number, row in found], self._slots)
        self.lanes = self._regroup(sources, [[found[place] for place in places] for places in groups])
        return [place for places in groups for place in places]

    def _regroup(
        self, sources: Sequence[ResidualCache], groups: Sequence[Sequence[tuple[int, int]]]
    ) -> list[ResidualCache]:
        """A batch for each group of rows of some batches; one that is lean and stays as it is is left alone."""
        lanes, fresh, stay = list[ResidualCache](), list[ResidualCache](), set[int]()
        for group in groups:
            parts: list[Part] = []
            for number, own in groupby(group, key=lambda member: member[0]):
                source, kept = sources[number], [row for _, row in own]
                parts.append((source, torch.tensor(kept, device=source.positions.device)))
                if len(kept) == len(group) == len(source.positions) and source.lean:
                    stay.add(number)
            if group[0][0] in stay:
                lanes.append(sources[group[0][0]])
            else:
                fresh.append(self._empty())
                fresh[-1].lay(parts)
                lanes.append(fresh[-1])
        used: list[list[Any]] = [source.layers for number, source in enumerate(sources) if number not in stay]
        for layer in range(max((len(lane.layers) for lane in fresh), default=0)):
            for lane in fresh:
                lane.fill(layer)
            drop(used, layer)
        return lanes


def in_lanes(attention: Attention) -> Attention:
    """Attention in the form that transformers calls, lane by lane where the cache has lanes.

    Args:
        attention: Takes the lane, or any other cache, as ``cached``.
    """

    def lane_by_lane(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        cached: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if not isinstance(cached, Lanes):
            return attention(module, query, key, value, attention_mask, cached=cached, **others)
        index: Any = module.layer_idx
        found = [
            attention(module, query[rows], *lane.kv(index), mask, cached=lane, **others)[0]
            for lane, rows, mask in cached.parts(module)
        ]
        return torch.cat(found), None

    return lane_by_lane


def hand_over_cache(model: nn.Module) -> None:
    """Makes a model give its cache to its attention functions, as ``cached``; a second call changes nothing."""
    inner: Any = body(model)
    if not getattr(inner, "hands_over_cache", False):
        inner.hands_over_cache = True
        inner.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "cached": kwargs.get("past_key_values")}), with_kwargs=True
        )
