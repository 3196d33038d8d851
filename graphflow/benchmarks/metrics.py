"""The scores as `evaluate.Metric` subclasses, defined here so that they load without a hub.

``compute(predictions=[...], references=[...])`` gives the mean over all pairs; ``scoring="aflow"`` scores as AFlow
does (for `PassAt1` with ``entry_points=[...]``, the names of the functions that are asked for).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import evaluate

from graphflow.benchmarks.aflow import aflow_gsm8k_score, aflow_math_score
from graphflow.benchmarks.base import SCORINGS, BenchmarkError, Example
from graphflow.benchmarks.code import code_scores
from graphflow.benchmarks.gsm8k import gsm8k_score
from graphflow.benchmarks.hotpotqa import aflow_hotpot_f1, hotpot_em, hotpot_f1
from graphflow.benchmarks.math import math_score
from graphflow.engine.episode import Task
from graphflow.engine.sandbox import Sandbox
from graphflow.engine.tools.text import final_answer


class TextMetric(evaluate.Metric):
    """A metric over pairs of texts; subclasses implement `_compute`."""

    def _info(self) -> evaluate.MetricInfo:
        texts = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="predictions: answers as texts. references: right answers as texts.",
            features=datasets.Features({"predictions": texts, "references": texts}),
        )


def chosen(options: dict[str, Any]) -> str:
    """The scoring that is asked for.

    Raises:
        BenchmarkError: If there is no such scoring.
    """
    scoring = options.get("scoring", SCORINGS[0])
    if scoring not in SCORINGS:
        raise BenchmarkError(f"scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}")
    return scoring


def mean(score: Callable[[str, str], float], predictions: list[str], references: list[str]) -> float:
    """Mean of a pairwise score."""
    return sum(score(given, wanted) for given, wanted in zip(predictions, references, strict=True)) / len(predictions)


class NumberAccuracy(TextMetric):
    """GSM8K: share of answers whose last number is the reference's."""

    def _compute(self, *, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        score = {"strict": gsm8k_score, "aflow": aflow_gsm8k_score}[chosen(kwargs)]
        return {"accuracy": mean(score, predictions, references)}


class MathAccuracy(TextMetric):
    """MATH: share of answers that are equal to the reference (for ``aflow``, what AFlow takes out of the solution)."""

    def _compute(self, *, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        score = {"strict": math_score, "aflow": aflow_math_score}[chosen(kwargs)]
        return {"accuracy": mean(score, predictions, references)}


class AnswerF1(TextMetric):
    """HotpotQA: mean F1 and exact match of the final answers (for ``aflow``, of the whole texts)."""

    def _compute(self, *, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        score = {"strict": hotpot_f1, "aflow": aflow_hotpot_f1}[chosen(kwargs)]
        answers = predictions if score is aflow_hotpot_f1 else [final_answer(text) for text in predictions]
        return {"f1": mean(score, answers, references), "em": mean(hotpot_em, answers, references)}


class PassAt1(TextMetric):
    """HumanEval, MBPP: share of programs that survive their tests; references are the tests as Python statements."""

    def _compute(self, *, predictions: list[str], references: list[str], **kwargs: Any) -> dict[str, float]:
        names = kwargs.get("entry_points") or [""] * len(predictions)
        tasks = [Task(f"metric/{i}", "metric", "mbpp", "", entry_point=name) for i, name in enumerate(names)]
        examples = [Example(task, "", (tests,)) for task, tests in zip(tasks, references, strict=True)]
        scores = code_scores(examples, predictions, kwargs.get("sandbox") or Sandbox(), chosen(kwargs))
        return {"pass@1": sum(scores) / len(scores)}
