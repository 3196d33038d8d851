"""Traces of what searches ask for: edits of workflows (AFlow) and flows in the CoRE language (AutoFlow).

What a good modification is, only scores can say; what an experienced writer knows is which are valid, which workflows
people make, and what was tried already. So half of the targets are valid changes at random, and half lead to a workflow
of the repository (our choice).
"""

from __future__ import annotations

import random
import re

from graphflow.benchmarks.mini.problem import draw
from graphflow.benchmarks.mini.suite import MAKERS
from graphflow.benchmarks.mini.traces import Trace, call
from graphflow.engine.episode import Task
from graphflow.methods.aflow import EDIT, FAILURES, AFlow
from graphflow.methods.autoflow import EXAMPLES, FLOW, INVALID, Attempt, AutoFlow, broken, can_be_written
from graphflow.methods.core_language import write_flow
from graphflow.methods.edits import apply_edit, difference, draw_edit
from graphflow.methods.notation import operations_of
from graphflow.methods.search_tree import Node, Tree
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow, WorkflowError

TARGETS = 8  # texts that are learnt for one page
WALK = 3  # edits, at most, that lead from a workflow that is known to the one that is shown
EDITED, FAILING = (0, 0, 1, 2, 3, 5, 8), (0, 0, 1, 1, 2, FAILURES)  # earlier edits, and failed tasks, of a page
WRITTEN = 4  # earlier flows of a page at most, besides the one that a search begins with
KNOWN = 0.3  # share of pages that begin from a workflow of the repository
STEPS = 7  # of a flow, at most
TRIES = 20  # draws of targets for one page
BROKEN, REFUSED = 0.15, 0.35  # shares of earlier flows that were not valid, and of earlier edits that are made wrong


class SearchTraces:
    """Pages of searches that might be, each with what could be written on it.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.
        max_llm_calls: Calls that a workflow may make.
    """

    def __init__(self, library: Library, workflows: dict[str, Workflow], max_llm_calls: int = 8) -> None:
        self.library, self.max_llm_calls = library, max_llm_calls
        self.repository = [workflow for workflow in workflows.values() if workflow.llm_calls(library) <= max_llm_calls]
        self.aflow = AFlow(library, workflows, max_llm_calls=max_llm_calls)
        self.autoflow = AutoFlow(library, workflows, max_llm_calls=max_llm_calls)

    def edits(self, kind: str, rng: random.Random) -> Trace:
        """A workflow with its experience, and edits of it that are valid and were not tried."""
        tree = Tree(self._start(kind, rng), _score(rng))
        node = tree.nodes[0]
        for _ in range(rng.choice(EDITED)):
            self._tried(tree, node, kind, rng)
        failed = [draw(MAKERS[kind], rng, "train").text for _ in range(rng.choice(FAILING))]
        experience = tree.experience(node).splitlines()
        page = self.aflow.page(kind, node, experience, failed)
        known = {line.rpartition("] ")[2] for line in experience}
        found: dict[str, None] = {}
        for _ in range(TRIES):
            edit = self._edit(node.workflow, kind, rng, toward=rng.random() < 0.5)
            if edit and edit not in known and not tree.known(self._applied(node.workflow, edit)):
                found[edit] = None
            if len(found) == TARGETS:
                break
        return Trace(page, [call(EDIT.name, "\n".join(edit.split("; "))) for edit in found])

    def flows(self, kind: str, rng: random.Random) -> Trace:
        """Some flows with their rewards, and flows that were not among them."""
        tasks = [_task(kind, rng) for _ in range(EXAMPLES)]
        attempts = [Attempt(0, write_flow(self.autoflow.first(tasks[0])), _score(rng))]
        for epoch in range(1, rng.randint(1, WRITTEN + 1)):
            flow = write_flow(self._flow(kind, rng))
            if any(flow == attempt.flow for attempt in attempts):
                continue
            if rng.random() < BROKEN:
                said = "the flow cannot be read"
                try:
                    self.autoflow.read(flow := broken(flow, rng))
                except WorkflowError as error:
                    said = " ".join(str(error).split())
                attempts.append(Attempt(epoch, flow, INVALID, said))
            else:
                attempts.append(Attempt(epoch, flow, _score(rng)))
        page = self.autoflow.page(tasks, attempts, attempts)
        drawn = (write_flow(self._flow(kind, rng)) for _ in range(TRIES))
        new = list(dict.fromkeys(flow for flow in drawn if flow not in page))[:TARGETS]
        return Trace(page, [call(FLOW.name, flow) for flow in new])

    def _of(self, kind: str) -> list[Workflow]:
        return [workflow for workflow in self.repository if kind in workflow.kinds]

    def _start(self, kind: str, rng: random.Random) -> Workflow:
        """Where a search may be: at the single call that it begins with or at a workflow of the repository, or further.

        Steps that edits add are named by their operations, so that most steps of a search are.
        """
        known = rng.random() < KNOWN
        workflow = rng.choice(self._of(kind)) if known else self.aflow.first(Task("", "", kind, ""))
        for _ in range(rng.randint(0, WALK)):
            if edit := self._edit(workflow, kind, rng, toward=rng.random() < 0.5):
                workflow = self._applied(workflow, edit)
        return workflow

    def _applied(self, workflow: Workflow, edit: str) -> Workflow:
        return apply_edit(workflow, edit, self.library, self.max_llm_calls)

    def _edit(self, workflow: Workflow, kind: str, rng: random.Random, toward: bool) -> str:
        """A valid edit of a workflow on one line, at random or toward one of the repository; empty for none."""
        if not toward:
            names = operations_of(self.repository, kind)
            return draw_edit(workflow, self.library, names, self.max_llm_calls, rng)
        target = rng.choice(self._of(kind))
        edit = "; ".join(difference(workflow, target.steps, target.answer))
        try:
            self._applied(workflow, edit)
        except WorkflowError:
            return ""
        return edit

    def _flow(self, kind: str, rng: random.Random) -> Workflow:
        """A workflow that can be written as a flow: of the repository, or near one."""
        while True:
            workflow = rng.choice(self._of(kind)) if rng.random() < 0.5 else self._start(kind, rng)
            if len(workflow.steps) <= STEPS and can_be_written(workflow, self.library):
                return workflow

    def _tried(self, tree: Tree, node: Node, kind: str, rng: random.Random) -> None:
        """One more line of experience: what an edit was worth, or why it was refused."""
        edit = self._edit(node.workflow, kind, rng, toward=rng.random() < 0.3)
        if edit and rng.random() < REFUSED:
            edit = _mistaken(edit, tree, node, rng)
        if not edit:
            return
        round = len(tree.nodes) + len(node.refused)
        changed = self.aflow.changed(tree, node, edit, round)
        if changed is not None:
            tree.add(round, changed, _score(rng), node, edit)


def _mistaken(edit: str, tree: Tree, node: Node, rng: random.Random) -> str:
    """An edit as models get it wrong: an operation or a step that is not there, an id that is, or one tried before."""
    tried = [child.edit for child in tree.nodes if child.parent == node.round]
    made = rng.choice("abc")
    mistakes = [
        edit.replace("(", f"_{made}(", 1),
        re.sub(r"\w+(?=[,)])", f"step_{made}", edit, count=1),
        re.sub(r"(?<=add )\w+", rng.choice(node.workflow.steps).id, edit, count=1),
    ]
    return rng.choice([*mistakes, *(rng.choice(tried) for _ in mistakes[: len(tried)])])


def _score(rng: random.Random) -> float:
    """A mean over a few validation tasks."""
    return rng.randint(4, 31) / 32


def _task(kind: str, rng: random.Random) -> Task:
    return Task("training", f"mini-{kind}", kind, draw(MAKERS[kind], rng, "train").text)
