"""Control steps over candidate answers: ``vote``, ``first_nonempty`` and ``extract_answer``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools.text import NUMBER, extract_code, final_answer, last_number
from graphflow.engine.tools.toolbox import CODE_KINDS, ToolBox, only


def vote_key(task: Task, text: str) -> Hashable:
    """What two candidates must share to count as one answer.

    Code: the program without blank lines and trailing spaces. GSM8K: the last number. Otherwise the final answer, as
    a number where it is one, else in one case with single spaces.
    """
    if task.kind in CODE_KINDS:
        return "\n".join(line.rstrip() for line in extract_code(text).splitlines() if line.strip())
    if task.kind == "gsm8k":
        number = last_number(text)
        if number is not None:
            return number
    answer = " ".join(final_answer(text).split()).casefold()
    return last_number(answer) if NUMBER.fullmatch(answer) else answer


def vote(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The first candidate of the largest group, whole; ties go to the earliest group, blank texts have no vote."""
    keys = [(vote_key(task, item.text), item) for item in inputs if item.text.strip()]
    if not keys:
        return StepOutput("")
    winner = Counter(key for key, _ in keys).most_common(1)[0][0]  # most_common keeps the order of equal counts
    return next(StepOutput(item.text) for key, item in keys if key == winner)


def first_nonempty(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The first input that is not blank; empty if all are."""
    return next((item for item in inputs if item.text.strip()), StepOutput(""))


def extract_answer(task: Task, inputs: list[StepOutput], toolbox: ToolBox) -> StepOutput:
    """The final answer alone; for code kinds the program alone."""
    text = only(inputs).text
    return StepOutput(extract_code(text) if task.kind in CODE_KINDS else final_answer(text))
