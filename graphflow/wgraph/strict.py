"""Reading YAML strictly: every mistake ends in one sentence that names the key, what was given and what is allowed.

PyYAML alone keeps the last of two equal keys and says nothing; here that is an error. The functions raise plain
`ValueError`; the callers know the file and put its name in front.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from graphflow.errors import unknown_name

E = TypeVar("E", bound=Enum)


class _UniqueKeys(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses a key that is given twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ValueError: If the file is not valid YAML or gives a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"not readable as YAML{line}: {error.problem}") from error


def mapping(raw: object, what: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """The mapping ``raw``, if it holds all required keys and no key but the required and optional ones.

    Args:
        raw: What the file gave.
        what: How to call it in a message, for example ``"step 'fix'"``.
        required: Keys that must be there.
        optional: Keys that may be there.

    Raises:
        ValueError: If it is no mapping, if a key is unknown or if a required key is missing.
    """
    allowed = [*required, *optional]
    if not isinstance(raw, dict):
        raise ValueError(f"{what} must be a mapping with the keys {', '.join(allowed)}, not {raw!r}")
    for key in raw:
        if key not in allowed:
            raise ValueError(f"{what}: {unknown_name('key', key, allowed)}")
    missing = [key for key in required if key not in raw]
    if missing:
        raise ValueError(f"{what}: missing key {', '.join(map(repr, missing))}; required: {', '.join(required)}")
    return raw


def texts(raw: object, what: str) -> tuple[str, ...]:
    """A list of strings as a tuple.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) for item in raw):
        raise ValueError(f"{what} must be a list of names, for example [task], not {raw!r}")
    return tuple(raw)


def text(raw: object, what: str) -> str:
    """A string.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(raw, str):
        raise ValueError(f"{what} must be a text, not {raw!r}")
    return raw


def whole(raw: object, what: str, least: int) -> int:
    """A whole number of at least ``least`` (``true`` is none).

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(raw, int) or isinstance(raw, bool) or raw < least:
        raise ValueError(f"{what} must be a whole number of at least {least}, not {raw!r}")
    return raw


def member(kind: type[E], raw: object, what: str) -> E:
    """The member of an enum that has this value.

    Raises:
        ValueError: If there is none.
    """
    for item in kind:
        if item.value == raw:
            return item
    raise ValueError(unknown_name(what, raw, [str(item.value) for item in kind]))
