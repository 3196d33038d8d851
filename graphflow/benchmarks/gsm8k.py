"""GSM8K: grade-school word problems, scored on the last number (Cobbe et al. 2021)."""

from __future__ import annotations

from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.loading import FileBenchmark, Row, Source, required
from graphflow.engine.episode import Task
from graphflow.engine.tools.text import last_number

TOLERANCE = 1e-6
FORMAT = "Solve the problem. End with a line '#### N', where N is the final number."
REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"


def number_answer(text: str) -> float | None:
    """The number a text answers with: its last one; None without any."""
    return last_number(text)


def gsm8k_score(answer: str, reference: str) -> float:
    """1.0 if the last number of the answer equals that of the reference within 1e-6, else 0.0."""
    given, wanted = number_answer(answer), number_answer(reference)
    return float(given is not None and wanted is not None and abs(given - wanted) <= TOLERANCE)


class GSM8K(FileBenchmark):
    """The original training file; the original test file is carved into validation and test."""

    name, kind, metric_name, version = "gsm8k", "gsm8k", "accuracy", 1

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        return {
            split: Source((f"gsm8k/{split}.jsonl",), "openai/gsm8k", ("main",), (split,), REVISION)
            for split in ("train", "test")
        }

    def score(self, example: Example, answer: str) -> float:
        """Exact number; see `gsm8k_score`."""
        return gsm8k_score(answer, example.reference)

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        question, solution = required(row, source, index, question=str, answer=str)
        _, marker, reference = solution.rpartition("####")
        if not marker or last_number(reference) is None:
            raise BenchmarkError(f"{source.files[0]}, row {index + 1}: field 'answer' must end in '#### number'")
        text = f"{question.strip()}\n\n{FORMAT}"
        return Example(Task(f"{self.name}/{source.split}/{index}", self.name, self.kind, text), reference.strip())
