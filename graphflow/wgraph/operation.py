"""Operations: the atomic steps that workflows are made of.

The three texts `semantics`, `triggers` and `schema` are the paper's node feature ("functional semantics, language
triggers, internal execution schema"). Types of values and the fields that guards read are our choice: they are what
makes "executable" a thing that can be checked before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from graphflow.errors import unknown_name
from graphflow.wgraph import strict

TYPES = frozenset({"task", "answer", "code", "result", "review", "facts", "query", "passages", "plan"})
"""Types of the values that steps hand on. Only the task itself has the type ``task``."""

ARITIES = ("one", "many")


class OperationError(ValueError):
    """An operation that is declared wrongly; the message names the field, what was given and what is allowed."""


class Kind(Enum):
    """Who does the work: the language model, a tool outside it, or the executor itself."""

    LLM = "llm"
    TOOL = "tool"
    CONTROL = "control"


class Convention(Enum):
    """How the output of a language-model call is read."""

    TEXT = "text"
    FIELDS = "fields"
    CODE = "code"


@dataclass(frozen=True)
class Operation:
    """One atomic step: a language-model call, a tool call or a control step.

    Attributes:
        name: Its name, also the name of its file.
        kind: Who does the work.
        accepts: Types an input may have.
        produces: Type of the output.
        prompt: Static prompt text, whose KV is shared. Language-model operations have one, others do not.
        requires: Types that some ancestor must produce (inputs are ancestors).
        convention: How the output is read.
        temperature: Sampling temperature, 0 is greedy.
        max_tokens: Limit of generated tokens per sample.
        judge: True if the output is a decision about other outputs (a choice, a verdict).
        fields: Boolean output fields that a guard may read, for example ``("failed",)``.
        arity: ``"one"`` for exactly one input, ``"many"`` for one or more; n samples count as n inputs.
        semantics: What it does.
        triggers: Words of tasks that call for it.
        schema: What it reads and writes.

    Raises:
        OperationError: If a value is outside what is allowed.
    """

    name: str
    kind: Kind
    accepts: tuple[str, ...]
    produces: str
    prompt: str = ""
    requires: tuple[str, ...] = ()
    convention: Convention = Convention.TEXT
    temperature: float = 0.0
    max_tokens: int = 64
    judge: bool = False
    fields: tuple[str, ...] = ()
    arity: str = "one"
    semantics: str = ""
    triggers: str = ""
    schema: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name == "task":
            self._refuse("name", self.name, "a name of letters, digits and underscores other than 'task'")
        if not self.accepts:
            self._refuse("accepts", [], f"at least one of {', '.join(sorted(TYPES))}")
        for key, given in (("accepts", self.accepts), ("requires", self.requires), ("produces", (self.produces,))):
            self._known_types(key, given)
        if self.produces == "task":
            self._refuse("produces", "task", "any type but 'task', which only the task itself has")
        if (self.kind is Kind.LLM) != bool(self.prompt.strip()):
            wanted = "a prompt for kind llm" if self.kind is Kind.LLM else f"no prompt for kind {self.kind.value}"
            self._refuse("prompt", self.prompt, wanted)
        if self.arity not in ARITIES:
            self._refuse("arity", self.arity, " or ".join(ARITIES))
        if not 0.0 <= self.temperature <= 2.0:
            self._refuse("temperature", self.temperature, "0 to 2")
        if self.max_tokens < 1:
            self._refuse("max_tokens", self.max_tokens, "at least 1")
        for field in self.fields:
            if not field.isidentifier():
                self._refuse("fields", field, "names of letters, digits and underscores")

    @classmethod
    def from_dict(cls, raw: object) -> Operation:
        """Build an operation from plain values, as a YAML file gives them.

        Raises:
            OperationError: If a key is unknown or missing, or a value is not allowed.
        """
        try:
            values = strict.mapping(raw, "operation", _REQUIRED, [key for key in _KEYS if key not in _REQUIRED])
            return cls(**{key: _read(key, value) for key, value in values.items()})
        except OperationError:
            raise
        except ValueError as error:
            raise OperationError(str(error)) from error

    def _known_types(self, key: str, given: Iterable[str]) -> None:
        for name in given:
            if name not in TYPES:
                raise OperationError(f"operation {self.name!r}: {key}: {unknown_name('type', name, TYPES)}")

    def _refuse(self, key: str, given: object, allowed: str) -> None:
        raise OperationError(f"operation {self.name!r}: {key} must be {allowed}, not {given!r}")


_KEYS = tuple(field.name for field in fields(Operation))
_REQUIRED = ("name", "kind", "accepts", "produces")


def _read(key: str, raw: Any) -> Any:
    """The value of one key in the type that `Operation` declares for it."""
    match key:
        case "kind":
            return strict.member(Kind, raw, key)
        case "convention":
            return strict.member(Convention, raw, key)
        case "accepts" | "requires" | "fields":
            return strict.texts(raw, key)
        case "max_tokens":
            return strict.whole(raw, key, 1)
        case "judge":
            if not isinstance(raw, bool):
                raise ValueError(f"judge must be true or false, not {raw!r}")
            return raw
        case "temperature":
            if not isinstance(raw, int | float) or isinstance(raw, bool):
                raise ValueError(f"temperature must be a number, not {raw!r}")
            return float(raw)
        case _:
            return strict.text(raw, key)
