"""Where the failure of one task ends: whatever a step raises becomes the reason in that task's episode."""

from __future__ import annotations

from collections.abc import Callable


def attempt(action: Callable[[], object]) -> str:
    """Runs what belongs to one task, or to a few; gives what it raised in words, nothing if it went well.

    The one place that catches every exception: a tool or a model may raise anything, and the other tasks in flight are
    to be served all the same. The exception itself is not handed on: its traceback would keep alive all that the
    failed step held.
    """
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
