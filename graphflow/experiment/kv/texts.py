"""Synthetic work of set size: task texts of so many tokens, and chains of so many calls that write so many tokens.

Values do not matter here, only how much is computed and kept. Every state mode does equal work: outputs end at their
token limit and nowhere else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace

from graphflow.backbone.load import Backbone
from graphflow.benchmarks.base import Example
from graphflow.engine.episode import Task
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import TASK, Step, Workflow

CHAIN = (
    "decompose",
    "generate_cot",
    "review",
    "revise",
    "extract_facts",
    "reflect",
    "judge",
    "answer_generate",
)
"""Operations of a chain, in order, none twice: operation first, a second call of one would find its text again."""
NO_TOKEN = -1


@dataclass(frozen=True)
class Size:
    """How much one task is.

    Attributes:
        text: Tokens of its text, without the marks of the turn around it.
        calls: Operations that are called in a chain.
        outputs: Tokens that each of them writes.
        prompts: How often an operation's prompt says what it says: for prompts that are longer than the suite's.
    """

    text: int
    calls: int
    outputs: int
    prompts: int = 1

    @property
    def workflow(self) -> Workflow:
        """The chain."""
        ops = CHAIN[: self.calls]
        steps = tuple(Step(f"s{i}", op, (f"s{i - 1}" if i else TASK,)) for i, op in enumerate(ops))
        return Workflow(f"chain_{self.calls}", (), steps, steps[-1].id)

    def library(self, library: Library) -> Library:
        """Operations of the chain, greedy, with these outputs as their limit."""
        ops = (library[name] for name in CHAIN[: self.calls])
        return Library(
            replace(op, prompt="\n".join([op.prompt] * self.prompts), max_tokens=self.outputs, temperature=0.0)
            for op in ops
        )


def endless(backbone: Backbone) -> Backbone:
    """The same backbone with no token that ends an output."""
    own = copy(backbone)
    own.stop = NO_TOKEN
    return own


def words_of(backbone: Backbone, prompts: Iterable[str]) -> list[str]:
    """Words of some prompts that are one token after a blank, no two of them the same token."""
    found: dict[int, str] = {}
    before = len(backbone.encode("the"))
    for word in sorted({word for prompt in prompts for word in re.findall(r"[a-z]+", prompt)}):
        ids = backbone.encode(f"the {word}")
        if len(ids) == before + 1:
            found.setdefault(ids[-1], word)
    return list(found.values())


def examples(backbone: Backbone, words: list[str], tokens: int, count: int, seed: int) -> list[Example]:
    """Tasks whose texts are random words; while words last, no two texts begin with the same one.

    Args:
        backbone: Cuts texts into tokens.
        words: What texts are made of (`words_of`).
        tokens: Tokens of every text.
        count: Tasks.
        seed: Of the words drawn.

    Raises:
        ValueError: The tokenizer joins words, so that a text has another number of tokens.
    """
    draw, made = random.Random(seed), []
    for place in range(count):
        first = words[place % len(words)]
        more = max(0, tokens - len(backbone.encode(first)))
        text = " ".join([first, *draw.choices(words, k=more)])
        if len(backbone.encode(text)) != tokens:
            raise ValueError(
                f"a text of {tokens} tokens cannot be made of words for the tokenizer of {backbone.name}: "
                f"got {len(backbone.encode(text))}"
            )
        made.append(Example(Task(f"text-{tokens}/{place}", "synthetic", "synthetic", text), ""))
    return made


def context_tokens(backbone: Backbone, library: Library, size: Size, operation_first: bool) -> int:
    """Tokens of the longest context that serving a task needs, with everything that is written.

    Args:
        backbone: Its tokenizer and turn format.
        library: Operations of the chain.
        size: The work.
        operation_first: The layout: one prompt a call and no prompt after the text, or all prompts in one context.
    """
    turns, prompts = backbone.turns, [op.prompt for op in size.library(library).values()]

    def length(text: str) -> int:
        return len(backbone.encode(text))

    behind = size.outputs + length(turns.closing)
    if operation_first:
        before = max(length(turns.write_instruction(prompt)) for prompt in prompts) + length("".join(turns.task))
        written = size.calls * (length(turns.opening) + behind)
    else:
        before = length(turns.write_task(""))
        written = sum(length(turns.write_operation(prompt)) + behind for prompt in prompts)
    return before + size.text + written - length(turns.closing)
