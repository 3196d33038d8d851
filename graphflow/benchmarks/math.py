r"""MATH: competition problems, scored by mathematical equivalence of the last ``\boxed{}`` (Hendrycks et al. 2021)."""

from __future__ import annotations

import re
from fractions import Fraction

from graphflow.benchmarks.aflow import aflow_math_answer, aflow_math_score
from graphflow.benchmarks.base import BenchmarkError, Example
from graphflow.benchmarks.loading import AFLOW, FileBenchmark, Row, Source, place, required
from graphflow.benchmarks.math_judge import MathJudge, judge
from graphflow.engine.episode import Task
from graphflow.engine.tools.text import final_answer, last_boxed

LONGEST = 600
TOLERANCE = Fraction(1, 10**6)
FORMAT = r"Please reason step by step, and put your final answer within \boxed{}."  # as in Qwen2.5-Math's model card
SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip
AFLOW_SUBJECTS = ("Counting & Probability", "Number Theory", "Prealgebra", "Precalculus")
AFLOW_ROWS = 605  # rows of level 5 in these subjects of the test set: 123 + 154 + 193 + 135
REVISION_500 = "ff5b20257d8185524591543f8ff5993951537bb8"
REVISION_FULL = "21a5633873b6a120296cce3e2df9d5550074f4a3"
THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:\\,|\\!|,\\!)\d{3})+)(?!\d)")
APART = re.compile(r"(?<=\d)(?:\\[!,;: ]|~|\s)+(?=[\d.])")  # "1 2" is not 12
DROPPED = re.compile(r"\\left|\\right|\\!|\\,|\\;|\\:|\\ |~|\\?\$|\\?%|\^\{?\\circ\}?|\\displaystyle|\s")
TEXT = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")
PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


def plain_math(text: str) -> str:
    """A LaTeX answer without spacing, sizing, units signs and text wrappers: for the quick comparison only.

    Spacing stays, as one sign, between digits that are no thousands.
    """
    text = THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), TEXT.sub(r"\1", text.strip().rstrip(".")))
    text = APART.sub("\u2423", text)
    text = DROPPED.sub("", text.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac").replace("{,}", ","))
    grouped = re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+(\.\d+)?", text)
    return text.replace(",", "") if grouped else text


def quick_equal(answer: str, reference: str) -> bool | None:
    """True or False where strings or plain numbers settle it, else None."""
    given, wanted = plain_math(answer), plain_math(reference)
    if given == wanted:
        return bool(given)
    if PLAIN_NUMBER.fullmatch(given) and PLAIN_NUMBER.fullmatch(wanted):
        if max(len(given), len(wanted)) > LONGEST:
            return False
        return abs(Fraction(given) - Fraction(wanted)) <= TOLERANCE
    return None


def math_score(answer: str, reference: str, by: MathJudge | None = None) -> float:
    r"""1.0 if the answer is mathematically equal to the reference, else 0.0.

    The last ``\boxed{}`` of the answer is read, without one its final answer. Strings and plain numbers are compared
    first; math-verify decides the rest, in a process that is stopped when it takes too long (`MathJudge`).

    Args:
        answer: What the workflow answered.
        reference: The right answer, without a box.
        by: The process that compares; None takes the shared one.
    """
    given = final_answer(answer)
    settled = quick_equal(given, reference)
    if settled is not None:
        return float(settled)
    if not given or len(given) > LONGEST:
        return 0.0
    return float((by or judge()).equal("strict", given, reference))


class MATH(FileBenchmark):
    """The original training rows; MATH-500 is carved into validation and test.

    Variants: ``math500``; ``full``, all 5000 test rows; ``aflow``, the 605 rows of level 5 in four subjects.

    Attributes:
        judge: The process that compares; None takes the shared one.
    """

    name, kind, metric_name = "math", "math", "accuracy"
    variants = ("math500", "full", AFLOW)
    aflow_sizes = (119, 486)
    judge: MathJudge | None = None

    def sources(self) -> dict[str, Source]:
        """See `FileBenchmark.sources`."""
        full = {
            split: Source(
                (f"math/{split}.jsonl", f"math/{split}/"),
                "EleutherAI/hendrycks_math",
                SUBJECTS,
                (split,),
                REVISION_FULL,
            )
            for split in ("train", "test")
        }
        if self.variant == "math500":
            full["test"] = Source(("math/math500.jsonl",), "HuggingFaceH4/MATH-500", (), ("test",), REVISION_500)
        return full

    def order(self, row: Row) -> tuple[str, ...] | None:
        """See `FileBenchmark.order`; a row of the full set has no name, and hub and folder no common order."""
        unique = row.get("unique_id")
        parts = (unique,) if unique else (subject_of(row), row.get("problem"), row.get("solution"))
        return tuple(map(str, parts)) if all(isinstance(part, str) for part in parts) else None

    def selected(self, items: list[tuple[int, Row]]) -> list[tuple[int, Row]]:
        """See `FileBenchmark.selected`."""
        if self.variant != AFLOW:
            return items
        kept = [(i, row) for i, row in items if level_of(row) == 5 and subject_of(row) in AFLOW_SUBJECTS]
        if len(kept) != AFLOW_ROWS:
            raise BenchmarkError(
                f"benchmark.variant=aflow of math needs the full test set, which has {AFLOW_ROWS} rows of level 5 in "
                f"{', '.join(AFLOW_SUBJECTS)}; there are {len(kept)} such rows among {len(items)}"
            )
        return kept

    def statistics(self) -> dict[str, int]:
        """See `Benchmark.statistics`; of the process that compares, which all MATH scoring of a process shares."""
        by = self.judge or judge()
        return {"comparisons": by.comparisons, "timeouts": by.timeouts, "retries": by.retries}

    def score(self, example: Example, answer: str) -> float:
        """Mathematical equivalence; see `math_score` and `aflow_math_score`."""
        score = aflow_math_score if self.config.scoring == "aflow" else math_score
        return score(answer, example.reference, self.judge)

    def example(self, index: int, row: Row, source: Source) -> Example:
        """See `FileBenchmark.example`."""
        problem, solution = required(row, source, index, problem=str, solution=str)
        reference = row["answer"] if "answer" in row else last_boxed(solution)
        if not isinstance(reference, str) or not reference.strip():
            raise BenchmarkError(rf"{place(source, index)}: needs a field 'answer', or a \boxed{{}} in 'solution'")
        task = Task(
            id=f"{self.name}/{source.split}/{index}",
            benchmark=self.name,
            kind=self.kind,
            text=f"{problem.strip()}\n\n{FORMAT}",
            level=level_of(row),
            family=subject_of(row),
        )
        return Example(task, aflow_math_answer(solution) if self.config.scoring == "aflow" else reference.strip())


def level_of(row: Row) -> int:
    """Level 1 to 5 of a row, from "Level 3" or 3; 0 without one."""
    level = re.search(r"\d", str(row.get("level", "")))
    return int(level.group()) if level else 0


def subject_of(row: Row) -> str:
    """Subject of a row, as in the original field ``type``."""
    return str(row.get("subject", row.get("type", "")))
