"""HotpotQA, distractor setting: two-hop questions over ten passages, F1 and exact match (Yang et al. 2018).

``strict`` is the official scorer (hotpotqa/hotpot, hotpot_evaluate_v1.py) on the final answer of a text. ``aflow`` is
F1 over the whole text (geekan/MetaGPT at 27e942c, metagpt/ext/aflow/benchmark/hotpotqa.py), so its tasks ask for the
answer alone.
"""

from __future__ import annotations

import random
import re
import string
import warnings
from collections import Counter
from pathlib import Path

from graphflow.benchmarks.base import BenchmarkConfig, BenchmarkError, Example
from graphflow.benchmarks.loading import AFLOW, FileBenchmark, Row, Source, one_of, place, required
from graphflow.engine.episode import Task
from graphflow.engine.tools.text import final_answer

FORMAT = "Answer from the passages. End with a line 'Answer: ...' that holds a few words only, or yes or no."
AFLOW_FORMAT = "Answer from the passages. Write the answer alone: a few words only, or yes or no."
DEV, SAMPLE = "hotpot_dev_distractor_v1.json", "distractor_sample.jsonl"
CLOSED = ("yes", "no", "noanswer")
PUNCTUATION = frozenset(string.punctuation)
REVISION = "1908d6afbbead072334abe2965f91bd2709910ab"
TYPES = ("bridge", "comparison")
LEVELS = {"easy": 1, "medium": 2, "hard": 3}


def normalize_answer(text: str) -> str:
    """SQuAD normalisation: lower case, no punctuation, no articles, single spaces."""
    text = "".join(letter for letter in text.lower() if letter not in PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def hotpot_em(answer: str, reference: str) -> float:
    """1.0 if both texts are equal after `normalize_answer`, else 0.0."""
    return float(normalize_answer(answer) == normalize_answer(reference))


def hotpot_f1(answer: str, reference: str) -> float:
    """F1 over the bag of normalised words.

    As in the official scorer, where one side is "yes", "no" or "noanswer" anything but equality scores 0.
    """
    given, wanted = normalize_answer(answer), normalize_answer(reference)
    if given != wanted and (given in CLOSED or wanted in CLOSED):
        return 0.0
    return word_f1(given, wanted)


def aflow_hotpot_f1(answer: str, reference: str) -> float:
    """F1 over the bag of normalised words of the whole text; yes and no are words like others."""
    return word_f1(normalize_answer(answer), normalize_answer(reference))


def word_f1(given: str, wanted: str) -> float:
    """F1 over the words of two normalised texts."""
    given_words, wanted_words = given.split(), wanted.split()
    same = sum((Counter(given_words) & Counter(wanted_words)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(given_words), same / len(wanted_words)
    return 2 * precision * recall / (precision + recall)


class HotpotQA(FileBenchmark):
    """The original training rows; the development rows are carved into validation and test. All passages are shown.

    A folder without the development file but with `SAMPLE` gives the rows of that one, with a warning.
    """

    name, kind, metric_name = "hotpotqa", "hotpotqa", "f1"
    aflow_sizes = (200, 800)

    def __init__(self, config: BenchmarkConfig) -> None:
        super().__init__(config)
        self._answers = self._exact = 0

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        files = {
            "train": ("hotpotqa/hotpot_train_v1.1.json", "hotpotqa/distractor_train.jsonl"),
            "validation": (f"hotpotqa/{DEV}", f"hotpotqa/{SAMPLE}"),
        }
        made = {
            split: Source(names, "hotpotqa/hotpot_qa", ("distractor",), (split,), REVISION)
            for split, names in files.items()
        }
        return {"train": made["train"], "test": made["validation"]}

    def load(self, split: str) -> list[Example]:
        """See `Benchmark.load`; says so where the rows are not those of the dev file."""
        folder = Path(self.config.data_dir).expanduser() / self.name
        if self.config.data_dir and split != "train" and not (folder / DEV).exists() and (folder / SAMPLE).exists():
            warnings.warn(
                f"{folder / SAMPLE} is read in place of {DEV}: rows of the training file, for tests of this code. "
                "Figures from it stand beside no published ones",
                stacklevel=2,
            )
        return super().load(split)

    def order(self, row: Row) -> str | None:
        """See `FileBenchmark.order`."""
        name = row.get("_id", row.get("id"))
        return name if isinstance(name, str) else None

    def selected(self, items: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """See `FileBenchmark.selected`; AFlow's 1000 rows are not published as indices, ours are drawn by seed."""
        if self.variant != AFLOW:
            return items
        drawn = random.Random(self.config.seed).sample(range(len(items)), min(sum(self.aflow_sizes), len(items)))
        return [items[i] for i in sorted(drawn)]

    def score(self, example: Example, answer: str) -> float:
        """F1 of the final answer, or of the whole text; see `hotpot_f1` and `aflow_hotpot_f1`."""
        aflow = self.config.scoring == "aflow"
        given, f1 = (answer, aflow_hotpot_f1) if aflow else (final_answer(answer), hotpot_f1)
        self._answers += 1
        self._exact += int(hotpot_em(given, example.reference))
        return f1(given, example.reference)

    def statistics(self) -> dict[str, int]:
        """See `Benchmark.statistics`: exact match beside F1, as a count."""
        return {"answers": self._answers, "exact_matches": self._exact}

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        question, reference = required(row, source, index, question=str, answer=str)
        passages = read_context(row, source, index)
        wish = AFLOW_FORMAT if self.config.scoring == "aflow" else FORMAT
        shown = "\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, start=1))
        task = Task(
            id=f"{self.name}/{source.split}/{index}",
            benchmark=self.name,
            kind=self.kind,
            text=f"{shown}\n\nQuestion: {question.strip()}\n\n{wish}",
            passages=passages,
            level=LEVELS.get(one_of(row, source, index, "level", LEVELS), 0),
            family=one_of(row, source, index, "type", TYPES),
        )
        return Example(task, reference.strip())


def read_context(row: Row, source: Source, index: int) -> tuple[str, ...]:
    """Passages as "title: text", from the original form (pairs) or the hub's (two parallel lists)."""
    context = row.get("context")
    if isinstance(context, dict) and {"title", "sentences"} <= context.keys():
        context = list(zip(context["title"], context["sentences"], strict=False))
    if not isinstance(context, list) or not context or not all(is_passage(pair) for pair in context):
        found = f"{context!r:.60}"
        raise BenchmarkError(f"{place(source, index)}: field 'context' must hold (title, sentences) pairs, got {found}")
    return tuple(f"{title}: {''.join(sentences).strip()}" for title, sentences in context)


def is_passage(pair: object) -> bool:
    """Whether a value is a title and a list of sentences."""
    match pair:
        case [str(), [*sentences]]:
            return all(isinstance(sentence, str) for sentence in sentences)
        case _:
            return False
