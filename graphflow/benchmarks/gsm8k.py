"""GSM8K: grade-school word problems, scored on one number (Cobbe et al. 2021).

The official scorer (openai/grade-school-math, dataset.py) reads the number after "####" and knows nothing else; an
answer without a number behind that marker is scored here on its last number.
"""

from __future__ import annotations

import re

from graphflow.benchmarks.aflow import aflow_gsm8k_score
from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.loading import FileBenchmark, Row, Source, place, required
from graphflow.engine.episode import Task
from graphflow.engine.tools.text import NUMBER, last_number

TOLERANCE = 1e-6
ALONE = re.compile(rf"####[ \t*$`]*({NUMBER.pattern})[ \t*$`%.]*(?:\n|\Z)")
NEXT = re.compile(rf"####[ \t*$`]*((?>{NUMBER.pattern}))(?![.):][ \t*]*\w)")  # not a heading "#### 2. Total"
FORMAT = "Reason step by step. End with a line '#### N', where N is the final number."
REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"


def number_answer(text: str) -> float | None:
    """The number a text answers with; None without any.

    It is the last that stands alone behind "####", the official form; else the last that stands right behind "####" and
    numbers no heading; else the last of the text. A heading such as "#### Step 3:" is no answer.
    """
    marked = ALONE.findall(text) or NEXT.findall(text)
    return last_number(marked[-1] if marked else text)


def gsm8k_score(answer: str, reference: str) -> float:
    """1.0 if the number of the answer equals that of the reference within 1e-6, else 0.0."""
    given, wanted = number_answer(answer), number_answer(reference)
    return float(given is not None and wanted is not None and abs(given - wanted) <= TOLERANCE)


class GSM8K(FileBenchmark):
    """The original training file; the original test file is carved into validation and test."""

    name, kind, metric_name = "gsm8k", "gsm8k", "accuracy"
    aflow_sizes = (264, 1055)

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        return {
            split: Source((f"gsm8k/{split}.jsonl",), "openai/gsm8k", ("main",), (split,), REVISION)
            for split in ("train", "test")
        }

    def score(self, example: Example, answer: str) -> float:
        """Exact number; see `gsm8k_score` and `aflow_gsm8k_score`."""
        score = aflow_gsm8k_score if self.config.scoring == "aflow" else gsm8k_score
        return score(answer, example.reference)

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        question, solution = required(row, source, index, question=str, answer=str)
        _, marker, reference = solution.rpartition("####")
        if not marker or last_number(reference) is None:
            raise BenchmarkError(f"{place(source, index)}: field 'answer' must end in '#### number'")
        text = f"{question.strip()}\n\n{FORMAT}"
        return Example(Task(f"{self.name}/{source.split}/{index}", self.name, self.kind, text), reference.strip())
