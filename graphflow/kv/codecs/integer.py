"""Every entry in 8 or 4 bits: the bar that any residual has to beat, 2x and 4x without any graph.

Keys are quantised per channel and values per token, as in KIVI: a few key channels are large for all tokens, values
have no such channels. Whole KV is given with its keys turned back to position 0 (`graphflow.kv.segment.CodedSegment`),
as in KIVI and KVQuant; residuals have theirs at local positions. Asymmetric (our choice, as in KIVI): biases of key
projections put whole channels on one side of zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphflow.kv.codecs.base import Codec, Encoded, check_residual, narrow
from graphflow.kv.codecs.bits import pack_nibbles, unpack_nibbles

_TOKENS, _CHANNELS = -2, -1  # axis along which entries share a step: tokens of a channel, channels of a token


class IntegerCodec(Codec):
    """Keeps every entry as one of 2^bits evenly spaced levels around the middle of its group's range.

    A group is ``run`` tokens of one key channel, or ``group`` channels of one token's values (the last group may be
    short); keys of fewer than ``short`` tokens are grouped as values are. Each has a float16 step and middle; the step
    covers the range around the middle as it is stored, so an entry is off by half a step and what float16 loses of the
    step. Steps of ranges under 1e-6 or so vanish in float16: such groups become their middle. A (layer, K/V) all of
    whose steps are 0 has no codes: layer 0 sees no context, so its residual is rounding.

    Stored: codes uint8, two to a byte at 4 bits; steps and middles, keys (layers, kv_heads, ceil(L/run), head_dim),
    values (layers, kv_heads, L, ceil(head_dim/group)).

    Bytes: ceil(entries of (layer, K/V) with a step x bits / 8)
    + 4 x layers x kv_heads x (ceil(L / run) x head_dim + L x ceil(head_dim / group)), for L of at least ``short``.

    Args:
        bits: 8 or 4.
        group: Channels of a token that share a step, 1 or more (KIVI: 32).
        run: Tokens of a key channel that share a step, 1 or more; None is ``group``.
        short: Keys of fewer tokens than this share steps along channels, 0 or more: a step for each channel of a few
            tokens would take more than their codes.

    Raises:
        ValueError: Another width, a group or run below 1, or ``short`` below 0.
    """

    def __init__(self, bits: int, group: int = 32, run: int | None = None, short: int = 0) -> None:
        run = group if run is None else run
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {bits}")
        for name, value, lowest in (("group", group, 1), ("run", run, 1), ("short", short, 0)):
            if value < lowest:
                raise ValueError(f"{name} must be {lowest} or more, got {value}")
        self.bits = bits
        self.group = group
        self.run = run
        self.short = short

    def encode(self, residual: Tensor, weight: Tensor | None = None) -> Encoded:
        """Encode a residual; ``weight`` is not used (see `Codec.encode`)."""
        check_residual(residual)
        codes = residual.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        tensors: dict[str, Tensor] = {}
        for side, name, axis in self._sides(codes.shape[3]):
            steps, middles = _ranges(codes[:, side], axis, self._size(axis), self._levels)
            tensors[f"{name}_steps"], tensors[f"{name}_middles"] = steps, middles
            self._to_codes(codes[:, side], axis, steps, middles)
        flat = codes[_stepped(tensors)].reshape(-1).to(torch.uint8)
        tensors["codes"] = pack_nibbles(flat) if self.bits == 4 else flat
        return Encoded(tuple(residual.shape), tensors)

    def decode(self, encoded: Encoded) -> Tensor:
        """The residual again, float32."""
        tensors, shape = encoded.tensors, torch.Size(encoded.shape)
        packed, stepped = tensors["codes"], _stepped(tensors)
        count = int(stepped.sum()) * shape[2:].numel()
        codes = unpack_nibbles(packed, count) if self.bits == 4 else packed.to(torch.float32)
        if count == shape.numel():
            values = codes.reshape(shape)
        else:
            values = torch.zeros(shape, device=packed.device)
            values[stepped] = codes.reshape(-1, *shape[2:])
        for side, name, axis in self._sides(shape[3]):
            steps, middles = tensors[f"{name}_steps"], tensors[f"{name}_middles"]
            for part, step, lowest in self._parts(values[:, side], axis, steps, middles):
                part.mul_(step).add_(lowest)
        return values

    def _sides(self, tokens: int) -> tuple[tuple[int, str, int], ...]:
        """Side, its name, and the axis along which its groups lie."""
        return (0, "key", _CHANNELS if tokens < self.short else _TOKENS), (1, "value", _CHANNELS)

    def _size(self, axis: int) -> int:
        """Entries of a group along an axis."""
        return self.run if axis == _TOKENS else self.group

    @property
    def _levels(self) -> int:
        return 2**self.bits - 1

    def _to_codes(self, values: Tensor, axis: int, steps: Tensor, middles: Tensor) -> None:
        """Turn values (layers, kv_heads, L, head_dim) into their codes, in place."""
        for part, step, lowest in self._parts(values, axis, steps, middles):
            part.sub_(lowest).div_(torch.where(step > 0, step, torch.inf)).round_().clamp_(0, self._levels)

    def _parts(
        self, values: Tensor, axis: int, steps: Tensor, middles: Tensor
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Views of the values by group, each with its steps and the values of code 0, float32."""
        steps, middles = steps.to(torch.float32), middles.to(torch.float32)
        lowest = middles - steps * (self._levels / 2)
        size = self._size(axis)
        whole = values.shape[axis] // size
        for part in _split(values, axis, size):
            own = slice(0, whole) if part.shape[axis] == size else slice(whole, None)
            index = (..., own, slice(None)) if axis == _TOKENS else (..., own)
            yield part, steps[index].unsqueeze(axis), lowest[index].unsqueeze(axis)


def _stepped(tensors: dict[str, Tensor]) -> Tensor:
    """Which (layers, 2) have a step above 0 somewhere."""
    return torch.stack([(tensors[f"{name}_steps"] > 0).flatten(1).any(dim=1) for name in ("key", "value")], dim=1)


def _split(values: Tensor, axis: int, group: int) -> Iterator[Tensor]:
    """Views (..., groups, group, ...) of the whole groups along an axis, and of the short one at the end."""
    size = values.shape[axis]
    whole = size - size % group
    if whole:
        yield values.narrow(axis, 0, whole).unflatten(axis, (-1, group))
    if whole < size:
        yield values.narrow(axis, whole, size - whole).unsqueeze(axis - 1)


def _ranges(values: Tensor, axis: int, group: int, levels: int) -> tuple[Tensor, Tensor]:
    """Steps and middles of every group, float16."""
    steps, middles = [], []
    for part in _split(values, axis, group):
        lowest, highest = part.amin(dim=axis), part.amax(dim=axis)
        middle = narrow(lowest / 2 + highest / 2, torch.float16)
        centre = middle.to(torch.float32)
        steps.append(narrow(torch.maximum(highest - centre, centre - lowest) * (2 / levels), torch.float16))
        middles.append(middle)
    return torch.cat(steps, dim=axis), torch.cat(middles, dim=axis)
