"""What users get wrong with names, said in one sentence (floor 0: every floor may import it)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownNameError(KeyError):
    """A name that is not among the known ones.

    It is a `KeyError`, so that mappings may raise it, but ``str()`` gives the sentence itself: `KeyError` would put
    quotes around it.
    """

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def unknown_name(kind: str, given: object, allowed: Iterable[str]) -> str:
    """The sentence about a name that is not known, with the nearest known one.

    Args:
        kind: What the name should name, for example ``"operation"``.
        given: The name as it came.
        allowed: Every name that would have been right.

    Returns:
        For example ``unknown operation 'vot' (did you mean 'vote'?); allowed: review, vote``.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {kind} {given!r}{hint}; allowed: {', '.join(names) or 'none'}"
