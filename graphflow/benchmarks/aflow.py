r"""What AFlow's published scorers do with an answer, so that figures can stand beside AFlow's (``scoring: aflow``).

Semantics of geekan/MetaGPT at 27e942c, metagpt/ext/aflow/benchmark/{gsm8k,math,hotpotqa}.py, written anew; programs
are in `graphflow.benchmarks.aflow_code`. AFlow compares MATH answers with sympy's LaTeX parser where antlr 4.11 is
installed and as Python where it is not. Its own requirements (FoundationAgents/AFlow at 2211969, requirements.txt,
sympy 1.14.0) do not install antlr, and neither do ours, so the comparison here is the second one.

Faults that this scoring keeps on purpose: the last number may belong to a remark; a ``\boxed{}`` with braces nested
more than once is not found; HotpotQA scores the whole text, and "yes, it is" against "yes" is not 0.
"""

from __future__ import annotations

import math
import re

from graphflow.benchmarks.math_judge import MathJudge, judge

NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?|\d+\.\d+")
BOXED = re.compile(r"\\boxed{((?:[^{}]|{[^{}]*})*)}", re.DOTALL)
SENTENCE_END = re.compile(r"(?<!\d)[.!?]\s+")
NUMBER_TOLERANCE, MATH_TOLERANCE = 1e-6, 1e-3


def aflow_number(text: str) -> float | None:
    """The last number of a text; a hyphen before it is a sign even after a word or a digit. None without one."""
    found = NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def aflow_gsm8k_score(answer: str, reference: str) -> float:
    """1.0 if the last numbers of both texts agree within 1e-6."""
    given, wanted = aflow_number(answer), aflow_number(reference)
    return float(given is not None and wanted is not None and abs(wanted - given) <= NUMBER_TOLERANCE)


def aflow_math_answer(text: str) -> str:
    r"""The last ``\boxed{}`` with braces nested at most once, else the last sentence; of solutions too."""
    found = BOXED.findall(text)
    if found:
        return found[-1].strip()
    sentences = [part.strip() for part in SENTENCE_END.split(text) if part.strip()]
    return sentences[-1] if sentences else ""


def aflow_digits(text: str) -> float | None:
    r"""A text that is a number, perhaps with commas and a closing ``%`` or ``\%`` (a hundredth); None for others."""
    text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        pass
    if not text.endswith("%"):
        return None
    try:
        return float(text[:-1].removesuffix("\\")) / 100
    except ValueError:
        return None


def aflow_math_score(answer: str, reference: str, by: MathJudge | None = None) -> float:
    """1.0 if the answer of a text equals a reference that `aflow_math_answer` took out of a solution.

    Equal strings are equal, two numbers within 1e-3; the rest is evaluated by sympy, in a process that is stopped
    when it takes too long (AFlow's own has no limit). A text that is more than an expression is not evaluated and
    equals nothing; AFlow's own runs it.

    Args:
        answer: What the workflow answered.
        reference: What `aflow_math_answer` gives for the solution.
        by: The process that compares; None takes the shared one.
    """
    given = aflow_math_answer(answer)
    if given == reference:
        return 1.0
    left, right = aflow_digits(given), aflow_digits(reference)
    if left is not None and right is not None:
        return float(math.isclose(left, right, abs_tol=MATH_TOLERANCE))
    return float((by or judge()).equal("aflow", given, reference))
