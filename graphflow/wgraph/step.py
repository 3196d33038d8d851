"""Steps: the occurrences of operations that a workflow is made of, and the guards that may skip them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphflow.wgraph import strict

TASK = "task"
"""Id of the pseudo-step that every workflow starts from; its output is the task's text."""

_ID = re.compile(r"[A-Za-z_]\w*(#\d+)?( x\d+)?")
_GUARD = re.compile(r"(?P<no>not )?(?P<step>[^.]+)\.(?P<field>\w+)")


class WorkflowError(ValueError):
    """A workflow that cannot run; the message names the step, what was given and what is allowed."""


@dataclass(frozen=True)
class Guard:
    """A condition on a boolean output field of an earlier step.

    Attributes:
        step: Id of the step that produces the field.
        field: Name of the field, declared in its operation's `Operation.fields`.
        negated: True if the field must be false.
    """

    step: str
    field: str
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> Guard:
        """Read ``"tests.failed"`` or ``"not review.issues"``.

        Raises:
            WorkflowError: If the text has another form.
        """
        match = _GUARD.fullmatch(text)
        if match is None:
            raise WorkflowError(f"guard must be 'step.field' or 'not step.field', not {text!r}")
        return cls(match["step"], match["field"], match["no"] is not None)

    def __str__(self) -> str:
        return f"{'not ' if self.negated else ''}{self.step}.{self.field}"


@dataclass(frozen=True)
class Step:
    """One occurrence of an operation in a workflow.

    Attributes:
        id: Name inside the workflow.
        op: Name of the operation.
        inputs: Ids of the steps whose outputs it reads, in order; `TASK` for the task itself.
        samples: How many outputs are drawn from one prefill.
        when: The step is skipped if this guard does not hold; None for always.

    Raises:
        WorkflowError: If the id or the number of samples is not allowed, or there is no input.
    """

    id: str
    op: str
    inputs: tuple[str, ...]
    samples: int = 1
    when: Guard | None = None

    def __post_init__(self) -> None:
        if self.id == TASK or not _ID.fullmatch(self.id):
            raise WorkflowError(
                f"step id must be a name of letters, digits and underscores other than 'task', not {self.id!r}"
            )
        if self.samples < 1:
            raise WorkflowError(f"step {self.id!r}: samples must be at least 1, not {self.samples}")
        if not self.inputs:
            raise WorkflowError(f"step {self.id!r}: in must name at least one step (or 'task'), not []")
        if len(set(self.inputs)) < len(self.inputs):
            raise WorkflowError(f"step {self.id!r}: in names a step twice: {', '.join(self.inputs)}")

    @classmethod
    def from_dict(cls, id: str, raw: object) -> Step:
        """Build a step from ``{op: ..., in: [...], samples: ..., when: ...}``.

        Raises:
            WorkflowError: If a key is unknown or missing, or a value is not allowed.
        """
        what = f"step {id!r}"
        try:
            values = strict.mapping(raw, what, ("op", "in"), ("samples", "when"))
            return cls(
                id=strict.text(id, "step id"),
                op=strict.text(values["op"], f"{what}: op"),
                inputs=strict.texts(values["in"], f"{what}: in"),
                samples=strict.whole(values.get("samples", 1), f"{what}: samples", 1),
                when=Guard.parse(strict.text(values["when"], f"{what}: when")) if "when" in values else None,
            )
        except WorkflowError:
            raise
        except ValueError as error:
            raise WorkflowError(str(error)) from error

    def to_dict(self) -> dict[str, object]:
        """The inverse of `from_dict`, without the id and without defaults."""
        raw: dict[str, object] = {"op": self.op, "in": list(self.inputs)}
        if self.samples > 1:
            raw["samples"] = self.samples
        if self.when is not None:
            raw["when"] = str(self.when)
        return raw
