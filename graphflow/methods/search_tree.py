"""The tree that AFlow searches: workflows with scores, what was tried from each, and which is changed next.

Selection, experience and stopping rule are AFlow's (``optimizer_utils/data_utils.py``, ``experience_utils.py`` and
``convergence_utils.py`` of its repository, see `graphflow.methods.aflow`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graphflow.methods.notation import write_workflow
from graphflow.wgraph.workflow import Workflow

ALPHA, LAMBDA = 0.2, 0.3  # of the original's code; its paper's text and appendix disagree
CANDIDATES = 4
TOP, STILL = 3, 5
TRIED = "- ["


@dataclass(frozen=True)
class Refused:
    """An edit that could not be applied.

    Attributes:
        edit: Its text.
        error: Why not.
    """

    edit: str
    error: str


@dataclass
class Node:
    """One workflow that was executed.

    Attributes:
        round: Round that it came from; 0 is the first workflow.
        workflow: The workflow.
        score: Mean metric on the validation tasks, in [0, 1].
        parent: Round of the workflow that it was made from; None for the first.
        edit: The edit that made it; empty for the first.
        refused: Edits of it that were not valid.
    """

    round: int
    workflow: Workflow
    score: float
    parent: int | None = None
    edit: str = ""
    refused: list[Refused] = field(default_factory=list)


def probabilities(scores: Sequence[float], alpha: float = ALPHA, uniform: float = LAMBDA) -> list[float]:
    """How likely each candidate is chosen: ``uniform / n + (1 - uniform) softmax(alpha (s - max s))``, s in points.

    Args:
        scores: In [0, 1]; they count times 100.
        alpha: How much a point counts.
        uniform: Share that all candidates have equally.
    """
    weights = [math.exp(alpha * 100 * (score - max(scores))) for score in scores]
    return [uniform / len(scores) + (1 - uniform) * weight / sum(weights) for weight in weights]


class Tree:
    """All workflows of a search.

    Attributes:
        nodes: In the order in which they were executed.
    """

    def __init__(self, first: Workflow, score: float) -> None:
        self.nodes = [Node(0, first, score)]

    def add(self, round: int, workflow: Workflow, score: float, parent: Node, edit: str) -> Node:
        """Note a workflow that an edit of another one made."""
        self.nodes.append(Node(round, workflow, score, parent.round, edit))
        return self.nodes[-1]

    @property
    def best(self) -> Node:
        """The highest score; of equal ones the earliest."""
        return max(self.nodes, key=lambda node: (node.score, -node.round))

    def known(self, workflow: Workflow) -> Node | None:
        """The node whose workflow has the same structure, if there is one."""
        return next((node for node in self.nodes if node.workflow.fingerprint == workflow.fingerprint), None)

    def candidates(self, count: int = CANDIDATES) -> list[Node]:
        """What may be changed next: the first workflow, always, and the best of the others."""
        first, *others = self.nodes
        return [first, *sorted(others, key=lambda node: (-node.score, node.round))[: count - 1]]

    def choose(self, draw: random.Random) -> Node:
        """One of the candidates, drawn by `probabilities`."""
        nodes = self.candidates()
        return draw.choices(nodes, probabilities([node.score for node in nodes]))[0]

    def experience(self, node: Node) -> str:
        """What was tried from a workflow and what came of it, one line an edit."""
        lines = [
            f"{TRIED}{'better' if child.score > node.score else 'not better'}, {child.score:.4f}] {child.edit}"
            for child in self.nodes
            if child.parent == node.round
        ]
        return "\n".join([*lines, *(f"{TRIED}refused: {refused.error}] {refused.edit}" for refused in node.refused)])

    def stands_still(self, top: int = TOP, rounds: int = STILL) -> bool:
        """Whether the mean of the best ``top`` scores was the same after each of the last ``rounds`` workflows.

        As in the original the mean is over what there is while fewer than ``top`` are known, and nothing stands still
        before one more than ``top`` is.
        """
        scores = [node.score for node in self.nodes]
        if len(scores) <= max(top, rounds):
            return False
        means = []
        for count in range(len(scores) - rounds, len(scores) + 1):
            best = sorted(scores[:count], reverse=True)[:top]
            means.append(sum(best) / len(best))
        return all(math.isclose(one, means[0], abs_tol=1e-12) for one in means)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain values, one mapping a node, ready for JSON."""
        return [
            {
                "round": node.round,
                "parent": node.parent,
                "score": node.score,
                "edit": node.edit,
                "workflow": write_workflow(node.workflow).split("\n"),
                "refused": [{"edit": refused.edit, "error": refused.error} for refused in node.refused],
            }
            for node in self.nodes
        ]
