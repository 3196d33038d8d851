"""Plans and decisions as a model writes them: numbered calls (LLMCompiler's form), and blocks between tags (ours).

Read strictly, so that what is wrong with a plan can be said to whoever wrote it. A line is ``2. run_python($1)``: its
number, an operation, and arguments, of which ``$1`` or ``${1}`` stands for what line 1 gives. Thoughts, code fences
and blank lines are passed over; a line that calls ``join`` ends the plan, as in the original.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from graphflow.engine.episode import Task
from graphflow.methods.proposing import MoreOperations
from graphflow.wgraph.workflow import Step, Workflow

JOIN = "join"
_NUMBERED = re.compile(r"\s*(\d+)\.\s*(\S.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s*(?:<END_OF_PLAN>)?\s*")
_READS = re.compile(r"\$\{?(\d+)\}?")
_PASSED_OVER = re.compile(r"\s*(?:|```\w*|<END_OF_PLAN>|thought:.*)\s*", re.IGNORECASE)


class PlanError(ValueError):
    """A plan that cannot be followed; the message is for whoever wrote it."""


@dataclass(frozen=True)
class Call:
    """One line of a plan.

    Attributes:
        number: Its number.
        op: The operation that it calls.
        reads: Numbers of the lines whose outputs it reads, each once, in the order in which they are named.
        words: What its arguments say besides, without quotation marks.
    """

    number: int
    op: str
    reads: tuple[int, ...]
    words: str


def numbered(text: str) -> list[tuple[int, str]]:
    """The numbered lines of a text, whatever else it holds."""
    found = (_NUMBERED.fullmatch(line) for line in text.splitlines())
    return [(int(match[1]), match[2].strip()) for match in found if match]


def parse_plan(text: str, most: int) -> list[Call]:
    """The lines of a plan.

    Args:
        text: What was written.
        most: Lines that a plan may have, ``join`` not counted.

    Raises:
        PlanError: There is no line or there are too many, a line has another form, or it reads one that does not stand
            before it.
    """
    calls: list[Call] = []
    for line in text.splitlines():
        if _PASSED_OVER.fullmatch(line):
            continue
        call = _parse_line(line, calls[-1].number if calls else 0)
        if call.op == JOIN:
            break
        known = [earlier.number for earlier in calls]
        for number in call.reads:
            if number not in known:
                named = ", ".join(f"${one}" for one in known) or "there is none"
                raise PlanError(f"line {call.number}: ${number} does not stand before it ({named})")
        calls.append(call)
    if not 1 <= len(calls) <= most:
        raise PlanError(f"a plan has 1 to {most} lines before {JOIN}(), not {len(calls)}")
    return calls


def _parse_line(line: str, before: int) -> Call:
    match = _NUMBERED.fullmatch(line)
    call = match and _CALL.fullmatch(match[2])
    if not match or not call:
        raise PlanError(f"a line must read 'number. operation(arguments)', not {line.strip()[:80]!r}")
    number = int(match[1])
    if number <= before:
        raise PlanError(f"line {number}: numbers must rise, {before} stands before it")
    words = " ".join(_READS.sub(" ", call[2]).split()).strip(" ,\"'")
    return Call(number, call[1], tuple(dict.fromkeys(int(one) for one in _READS.findall(call[2]))), words)


def block(text: str, name: str) -> str | None:
    """What stands in the last ``<name>...</name>`` of a text; None without one. A text may end before its closing."""
    start = text.rfind(f"<{name}>")
    if start < 0:
        return None
    return text[start + len(name) + 2 :].split(f"</{name}>")[0].strip()


class Deciding(MoreOperations):
    """A method whose model decides in a block: its answer is what ``<answer>`` holds, or the whole text without one."""

    def read(self, task: Task, answer: str) -> str:
        """See `Asking.read`."""
        decided = block(answer, "answer")
        return answer if decided is None else decided


def extended(workflow: Workflow, *steps: Step) -> Workflow:
    """A workflow with further steps, the last of which is its answer."""
    return replace(workflow, steps=(*workflow.steps, *steps), answer=steps[-1].id)
