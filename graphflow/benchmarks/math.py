r"""MATH: competition problems, scored by mathematical equivalence of the last ``\boxed{}`` (Hendrycks et al. 2021)."""

from __future__ import annotations

import re
import threading

from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.loading import FileBenchmark, Row, Source, required
from graphflow.engine.episode import Task
from graphflow.engine.tools.text import final_answer, last_boxed

LONGEST = 600
TIMEOUT_S = 5
FORMAT = r"Solve the problem. Put the final answer, and nothing else, in \boxed{}."
VARIANTS = ("math500", "full")
SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
REVISION_500 = "ff5b20257d8185524591543f8ff5993951537bb8"
REVISION_FULL = "21a5633873b6a120296cce3e2df9d5550074f4a3"
DROPPED = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\:|\\ |~|\$|\\%|%|\^\{?\\circ\}?|\\displaystyle|\s")
TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")


def plain_math(text: str) -> str:
    """A LaTeX answer without spacing, sizing, units signs and text wrappers: for the quick comparison only."""
    text = TEXT.sub(r"\1", text.strip().rstrip("."))
    text = DROPPED.sub("", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac"))
    grouped = re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text)
    return text.replace(",", "") if grouped else text


def quick_equal(answer: str, reference: str) -> bool | None:
    """True or False where strings or plain numbers settle it, else None."""
    given, wanted = plain_math(answer), plain_math(reference)
    if given == wanted:
        return bool(given)
    number = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
    if number.fullmatch(given) and number.fullmatch(wanted):
        return abs(float(given) - float(wanted)) <= 1e-6
    return None


def math_score(answer: str, reference: str) -> float:
    r"""1.0 if the answer is mathematically equal to the reference, else 0.0.

    The last ``\boxed{}`` of the answer is read, without one its final answer. Strings and plain numbers are compared
    first; `math_verify` decides the rest, with a timeout in the main thread (its timeout is a signal).
    """
    given = final_answer(answer)
    settled = quick_equal(given, reference)
    if settled is not None:
        return float(settled)
    if not given or len(given) > LONGEST:
        return 0.0
    from math_verify import parse, verify

    limit = TIMEOUT_S if threading.current_thread() is threading.main_thread() else None
    wanted, found = (parse(f"${text}$", parsing_timeout=limit) for text in (reference, given))  # pyright: ignore
    return float(verify(wanted, found, timeout_seconds=limit))


class MATH(FileBenchmark):
    """The original training rows; MATH-500 (or, as variant ``full``, all 5000) is carved into validation and test."""

    name, kind, metric_name, version = "math", "math", "accuracy", 1

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        variant = self.config.variant or VARIANTS[0]
        if variant not in VARIANTS:
            raise BenchmarkError(f"benchmark.variant must be one of {', '.join(VARIANTS)} for math, got {variant!r}")
        full = {
            split: Source((f"math/{split}.jsonl",), "EleutherAI/hendrycks_math", SUBJECTS, (split,), REVISION_FULL)
            for split in ("train", "test")
        }
        if variant == "math500":
            full["test"] = Source(("math/math500.jsonl",), "HuggingFaceH4/MATH-500", (), ("test",), REVISION_500)
        return full

    def score(self, example: Example, answer: str) -> float:
        """Mathematical equivalence; see `math_score`."""
        return math_score(answer, example.reference)

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        problem, solution = required(row, source, index, problem=str, solution=str)
        reference = row["answer"] if "answer" in row else last_boxed(solution)
        if not isinstance(reference, str) or not reference.strip():
            place = f"{source.files[0]}, row {index + 1}"
            raise BenchmarkError(rf"{place}: needs a field 'answer', or a \boxed{{}} in field 'solution'")
        level = re.search(r"\d", str(row.get("level", "")))
        task = Task(
            id=f"{self.name}/{source.split}/{index}",
            benchmark=self.name,
            kind=self.kind,
            text=f"{problem.strip()}\n\n{FORMAT}",
            level=int(level.group()) if level else 0,
            family=str(row.get("subject", row.get("type", ""))),
        )
        return Example(task, reference.strip())
