"""``retrieve``: the passage that fits a query best, by BM25 (Robertson; `bm25s`)."""

from __future__ import annotations

import functools

import bm25s
import numpy as np

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools.toolbox import ToolBox, only


def tokens(texts: list[str]) -> list[list[str]]:
    """Lower-case words without English stop words."""
    found = bm25s.tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
    return [[str(word) for word in words] for words in found]


@functools.lru_cache(maxsize=256)
def index(passages: tuple[str, ...]) -> bm25s.BM25 | None:
    """The BM25 index of passages; None if they hold no word at all."""
    words = tokens(list(passages))
    if not any(words):
        return None
    model = bm25s.BM25()
    model.index(words, show_progress=False)
    return model


def best_passage(query: str, passages: tuple[str, ...]) -> int:
    """Index of the best passage; the earliest of equally good ones, so the first if no word is shared."""
    model = index(passages)
    words = tokens([query])[0]
    if model is None or not words:
        return 0
    return int(np.argmax(model.get_scores(words)))


def retrieve(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The best of the task's passages for the input text; empty if the task has none."""
    query = only(inputs).text
    return StepOutput(task.passages[best_passage(query, task.passages)] if task.passages else "")
