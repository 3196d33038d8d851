"""vanilla: one call with the benchmark's answer format (the paper's "vanilla" baseline).

The operation's prompt carries the answer-format line, so that a gain over this method is not a gain in formatting.
"""

from __future__ import annotations

from graphflow.engine.episode import Task
from graphflow.methods.base import Method, MethodError
from graphflow.wgraph.workflow import Workflow

SINGLE_CALL = ("direct", "code")


class Vanilla(Method):
    """The one-call workflow that is made for the task's kind: ``direct`` for answers, ``code`` for functions."""

    name = "vanilla"

    def build(self, task: Task) -> Workflow:
        """See `Method.build`.

        Raises:
            MethodError: Neither workflow is made for the kind.
        """
        for name in SINGLE_CALL:
            workflow = self.workflow(name)
            if task.kind in workflow.kinds:
                return workflow
        raise MethodError(f"no single-call workflow ({', '.join(SINGLE_CALL)}) is made for the kind {task.kind!r}")
