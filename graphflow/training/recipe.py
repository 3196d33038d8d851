"""What decides a mini backbone's weights."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, fields
from typing import Any

from graphflow.benchmarks.mini.traces import DRILL

REPEAT = "repeat"
# Shares of draws; `DRILL` are arithmetic sheets, `REPEAT` random tokens and the same again.
KINDS = {"gsm8k": 1.8, "math": 1.3, "hotpotqa": 1.6, "humaneval": 0.7, "mbpp": 0.6, DRILL: 0.8, REPEAT: 0.3}
CODE: tuple[str, ...] = ("humaneval", "mbpp")


def _drawn(text: str, share: float) -> bool:
    """True for about a share of all texts, the same ones everywhere."""
    return random.Random(text).random() < share


@dataclass
class Recipe:
    """Settings of one training run; those of a shipped backbone are in its ``training.json``.

    Attributes:
        name: Name of the backbone.
        architecture: qwen, llama or gemma.
        tokens: Budget in tokens, padding included.
        repeat_share: Share of the budget, at its beginning, that is repeated random tokens alone: nothing but copying
            lowers their loss (our choice). Some stay in the mixture, or copying is lost again; 0: none at all.
        repeat_rate: Factor on the learning rates meanwhile.
        short_share: Share of the budget in which operation prompts are mostly cut to their first words; what follows
            keeps the positions that it has after whole ones (our choice: steps go to outputs instead of prompts).
        whole_share: Share of the steps before that with whole prompts.
        growth_share: Share of the budget over which problems grow from the easiest to the suite's own.
        drill_from: Share of the budget after which arithmetic sheets come in; mental arithmetic is slow to learn and
            would crowd out the rest before.
        text_weight: Weight of task text in the loss; outputs have 1 or more.
        code_weight: Factor on the shares of the two code kinds (our choice: that a repair must not copy what it
            repairs is learnt late).
        operation_first: Share of tokens in the operation-first layout.
        blocked: Share of task-first documents whose operation prompts see nothing before themselves (reuse-aware).
        lessons: Share of draws that are traces of methods' own operations (`graphflow.training.lessons`), task first.
        batch: Tokens of a step.
        short_length: Tokens of a row while prompts are short; length: afterwards.
        long_length: Tokens of a row in every ``long_every``-th step after that, with look-up tasks to match; 0: never.
        long_every: See ``long_length``.
        vocabulary: Entries of the tokenizer.
        layers: Decoder layers; hidden, intermediate, heads, kv_heads: their sizes.
        muon_lr: Peak rate of Muon (matrices of the layers); adam_lr: of AdamW (everything else).
        warmup_steps: Steps to the full rates.
        decay_share: Last share of the budget over which they fall linearly.
        seed: Of weights and data.

    Raises:
        ValueError: If a value is outside its range; the message names field, value and range.
    """

    name: str = "qwen-mini"
    architecture: str = "qwen"
    tokens: int = 28_000_000
    repeat_share: float = 0.0225
    repeat_rate: float = 2.5
    short_share: float = 0.88
    whole_share: float = 0.15
    growth_share: float = 0.4
    drill_from: float = 0.15
    text_weight: float = 0.2
    code_weight: float = 1.0
    operation_first: float = 0.5
    blocked: float = 0.0
    lessons: float = 0.0
    batch: int = 4096
    short_length: int = 512
    length: int = 1024
    long_length: int = 2048
    long_every: int = 24
    vocabulary: int = 1536
    layers: int = 4
    hidden: int = 256
    intermediate: int = 768
    heads: int = 4
    kv_heads: int = 2
    muon_lr: float = 0.006
    adam_lr: float = 0.002
    warmup_steps: int = 50
    decay_share: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        shares = (
            "repeat_share",
            "short_share",
            "whole_share",
            "growth_share",
            "drill_from",
            "operation_first",
            "blocked",
            "lessons",
        )
        for name in (*shares, "decay_share", "text_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"recipe.{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.code_weight > 0:
            raise ValueError(f"recipe.code_weight must be above 0, got {self.code_weight}")
        for name in ("short_length", "length", "long_length"):
            if getattr(self, name) < 0 or self.batch % max(1, getattr(self, name)):
                raise ValueError(f"recipe.{name} must divide batch ({self.batch}), got {getattr(self, name)}")

    @property
    def steps(self) -> int:
        """Optimiser steps in the budget."""
        return self.tokens // self.batch

    def repeats(self, step: int) -> bool:
        """Whether this step is repeated random tokens."""
        return step < self.repeat_share * self.steps

    def kinds(self, step: int) -> dict[str, float]:
        """Shares of draws in this step."""
        without = {DRILL} if step < self.drill_from * self.steps else set()
        without |= set() if self.repeat_share else {REPEAT}
        weight = dict.fromkeys(CODE, self.code_weight)
        return {kind: share * weight.get(kind, 1.0) for kind, share in KINDS.items() if kind not in without}

    def short(self, step: int) -> bool:
        """Whether operation prompts are cut in this step: in most steps of the first part, in none of the last."""
        return self._early(step) and not _drawn(f"whole/{self.seed}/{step}", self.whole_share)

    def long(self, step: int) -> bool:
        """Whether the rows of this step are as long as the context; not before all prompts are whole."""
        return self.long_length > 0 and not self._early(step) and step % self.long_every == 0

    def row_length(self, step: int) -> int:
        """Tokens of a row in this step."""
        if self.short(step):
            return self.short_length
        return self.long_length if self.long(step) else self.length

    def _early(self, step: int) -> bool:
        return step < self.short_share * self.steps

    def learning_rate(self, step: int) -> float:
        """Share of the full rate: linear warm-up, high for repeats, constant, linear decay to a fiftieth."""
        if self.repeats(step):
            return self.repeat_rate * min(1.0, (step + 1) / self.warmup_steps)
        start = (1 - self.decay_share) * self.steps
        decay = 1.0 if step < start else 1 - 0.98 * (step - start) / max(1.0, self.steps - start)
        return min(1.0, (step + 1) / self.warmup_steps) * decay

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for the record."""
        return asdict(self)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Field names and defaults."""
        return {field.name: field.default for field in fields(cls)}
