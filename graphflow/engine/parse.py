"""Reading what a model wrote: never raises, never drops; what cannot be read is handed on whole and counted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphflow.engine.episode import StepOutput
from graphflow.wgraph.operation import Convention, Operation

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_FINE = re.compile(r"^\W*(ok|lgtm|correct|no issues)\b", re.IGNORECASE)


def parse_output(operation: Operation, text: str) -> tuple[StepOutput, int]:
    """An output as its operation declares it.

    Returns:
        The output, and 1 if it could not be read as declared (then it is the whole text), else 0.
    """
    text, failed = text.strip(), 0
    if operation.convention is Convention.CODE:
        fenced = _FENCE.search(text)
        text = fenced.group(1).strip("\n") if fenced else text
        failed = int("def " not in text)
    fields = {name: not _FINE.match(text) for name in operation.fields}
    return StepOutput(text, fields), int(failed or not text)


def parse_choice(text: str, candidates: Sequence[StepOutput]) -> int | None:
    """Index of the candidate that a letter names; None where there is no readable letter of one."""
    match = re.match(r"\W*([A-Z])\b", text.strip())
    index = LETTERS.index(match.group(1)) if match else len(candidates)
    return index if index < len(candidates) else None
