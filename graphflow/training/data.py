"""Training data of the mini backbones: a tokenizer, and batches of packed traces in both layouts."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from graphflow.backbone.packing import Document, Piece, Rows, documents, pack
from graphflow.backbone.turns import MINI, TurnFormat
from graphflow.benchmarks.mini.hotpotqa import PASSAGES
from graphflow.benchmarks.mini.traces import Stage, make_calls, make_trace
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.training.lessons import Lessons
from graphflow.training.recipe import KINDS, REPEAT, Recipe
from graphflow.wgraph.library import Library

SPECIAL = ["<|pad|>", "<|bos|>", "<|task|>", "<|op|>", "<|out|>", "<|tool|>", "<|given|>", "<|end|>"]
SHORT_WORDS = 5
FIRST_PASSAGES = 3
LONG_PASSAGES = (30, 45)
SIMPLE, SIMPLE_LEFT = 0.6, 0.2  # share of one-relation questions at first, and when look-ups are grown
REPEATED = (8, 120)  # random tokens that are repeated
DOCUMENTS = 2  # of one draw, at most
PROBLEMS = 8  # tasks that operation-first calls of one operation are drawn from


def prompts_of(library: Library) -> dict[str, str]:
    """Static prompt of every operation that calls the model."""
    return {op.name: op.prompt for op in library.operations.values() if op.prompt}


def train_tokenizer(size: int, seed: int, prompts: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE on traces and prompts; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer/{seed}")
    texts = [*prompts.values()] * 400
    for _ in range(12_000):
        trace = make_trace(rng.choice([kind for kind in KINDS if kind != REPEAT]), rng)
        texts += [trace.root, *(turn.text for branch in trace.branches for turn in branch)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|pad|>"
    )


class Batches(Dataset[Rows]):
    """Batch number i, made from the seed and i alone, so that a resumed run sees the same ones.

    Args:
        recipe: The recipe.
        tokenizer: The backbone's tokenizer.
        library: Operations, for their prompts.
        turns: Turn format of the backbone.
        lessons: Traces of methods' own operations, where the recipe has a share of them (`Recipe.lessons`).

    Raises:
        ValueError: If the recipe has such a share and there are none.
    """

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: Any,
        library: Library,
        turns: TurnFormat = MINI,
        lessons: Lessons | None = None,
    ):
        if recipe.lessons and lessons is None:
            raise ValueError(f"recipe.lessons is {recipe.lessons}, but there are no lessons to take them from")
        self.recipe, self.vocabulary, self.lessons = recipe, len(tokenizer), lessons
        prompts = prompts_of(library) | (lessons.prompts if lessons else {})
        self.writers = {
            short: TraceWriter(tokenizer, turns, prompts, recipe.text_weight, SHORT_WORDS if short else 0)
            for short in (True, False)
        }

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, index: int) -> Rows:
        recipe, length = self.recipe, self.recipe.row_length(index)
        rng = random.Random(f"train/{recipe.seed}/{index}")
        if recipe.repeats(index):
            return pack(lambda: self.repeated(rng, length), recipe.batch // length, length)
        writer = self.writers[recipe.short(index)]
        written = {True: 0, False: 0}  # tokens in the operation-first and in the task-first layout

        def draw() -> Iterator[Document]:
            kinds = recipe.kinds(index)
            kind = rng.choices(list(kinds), list(kinds.values()))[0]
            if kind == REPEAT:
                yield from self.repeated(rng, length)
                return
            stage = self.stage(index, rng)
            if self.lessons and recipe.lessons and rng.random() < recipe.lessons:
                trace = self.lessons.trace(rng, stage)
                yield from itertools.islice(writer.write(trace, length), DOCUMENTS)
                return
            operation_first = written[True] < recipe.operation_first * sum(written.values())
            if operation_first:
                for operation, root, calls in make_calls(kind, rng, PROBLEMS, stage):
                    yield from count(writer.write_calls(operation, root, rng.sample(calls, len(calls)), length), True)
            else:
                blocked, trace = rng.random() < recipe.blocked, make_trace(kind, rng, stage)
                trace = replace(trace, branches=rng.sample(trace.branches, len(trace.branches)))
                yield from count(writer.write(trace, length, blocked), False)

        def count(whole: Iterator[Document], operation_first: bool) -> Iterator[Document]:
            for document in itertools.islice(whole, DOCUMENTS):  # more would repeat a long root too often
                written[operation_first] += len(document)
                yield document

        return pack(draw, recipe.batch // length, length)

    def repeated(self, rng: random.Random, length: int) -> Iterator[Document]:
        """Random tokens and the same again, so that no position and no word tells what comes next."""
        ids = rng.choices(range(len(SPECIAL), self.vocabulary), k=rng.randint(*REPEATED))
        yield from documents([Piece(ids)], [[Piece(ids, 1.0)]], length)

    def stage(self, step: int, rng: random.Random) -> Stage:
        """How hard the problems of this step are: easy at first, with many passages in long rows."""
        recipe = self.recipe
        if recipe.long(step):
            return Stage(rng.randint(*LONG_PASSAGES))
        growth = min(1.0, step / max(1.0, recipe.growth_share * recipe.steps))
        low, high = (round(FIRST_PASSAGES + growth * (end - FIRST_PASSAGES)) for end in PASSAGES)
        passages = rng.randint(FIRST_PASSAGES if rng.random() < 0.2 else low, high)
        return Stage(passages, SIMPLE * (1 - growth) + SIMPLE_LEFT * growth, round(1 + 4 * growth))
