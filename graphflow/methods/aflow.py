"""aflow: a tree search over workflows, one modification a round (the paper's "AFlow" baseline; the reduction is ours).

Read: FoundationAgents/AFlow (``scripts/optimizer.py`` at 0b53cc3) and geekan/MetaGPT (``metagpt/ext/aflow/scripts``:
``optimizer_utils/data_utils.py`` at 23917d1, ``experience_utils.py`` at 7c92dd8, ``convergence_utils.py`` at 77703f1).

The original has a model rewrite a workflow, as Python code with prompts, for 20 rounds. Each round chooses one of four
workflows (the first and the best of the others) by a mixture of a uniform and a softmax distribution over scores, shows
the model its score, what was tried from it and logs of its failures, and scores what comes back by five repetitions on
validation tasks. It stops when the mean of the best three scores stands still for five rounds.

Kept: the rounds, the selection and its constants, one modification a round, experience in the prompt, no modification
twice, the stopping rule, a list of operations for each kind of benchmark, the best validation round as the result.

Left out: free Python and new prompts (local models break the code, and a prompt that changes every round has no state
to share), for which there is a language of edits that is checked (`graphflow.methods.edits`); the right answers in the
logs of failures (a model sees the texts of failed tasks only); up to 20 attempts a round (five here,
each of which reads why those before it were refused). One repetition instead of five by default (``method.repeats=5``
is the original's), since greedy decoding repeats itself.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools import ToolBox
from graphflow.methods.edits import apply_edit, draw_edit, written
from graphflow.methods.found import Found
from graphflow.methods.notation import ending, operations_of, read_workflow, section, write_operations, write_workflow
from graphflow.methods.proposing import Proposal
from graphflow.methods.search_tree import TRIED, Node, Refused, Tree
from graphflow.methods.trials import BudgetSpent, Trials
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import Workflow, WorkflowError

ROUNDS, ATTEMPTS = 20, 5
FAILURES, FAILURE_CHARS = 3, 400  # as many logs as the original shows; the last characters of each task
KNOWN, NOT_SHOWN = "this gives the workflow", "not shown"
OPERATIONS, WORKFLOW, EXPERIENCE, FAILED = "Operations:", "Workflow:", "Experience:", "Tasks that it fails:"

EDIT = Operation(
    name="aflow_edit",
    kind=Kind.LLM,
    accepts=("task",),
    produces="plan",
    temperature=0.7,
    max_tokens=256,
    prompt="""\
Improve the workflow above by one modification. A workflow is a list of steps, each with an id, the operation it calls
and what it reads: the task, or earlier steps. Only the operations above exist, and each accepts the listed types only.
Write the modification in lines of these forms, and nothing else:
add ID: OPERATION(INPUT, ...) [xN] [when [not] STEP.FIELD]
set ID: OPERATION(INPUT, ...) [xN] [when [not] STEP.FIELD]
answer ID
xN draws N samples, which vote or ensemble_select can join. A step with when runs only if that field is set; the answer
must exist whether it is or not. Steps that the answer does not need go by themselves. Do not write a modification that
the experience shows as tried or refused; where several did not help, change something else than they did.""",
)


class AFlow(Found):
    """The best workflow that the search found for each benchmark.

    Args:
        library: The operations.
        workflows: The repository's workflows by name: where a search starts, and which operations a kind has.
        seed: Of the selection.
        scripted: Whether edits are drawn at random in the model's place.
        repeats: Repetitions of a validation round.
        max_llm_calls: Calls that a workflow may make at most.
        rounds: Modifications at most.

    Attributes:
        trees: The whole search by benchmark, of those that ran here.
    """

    name = "aflow"

    def __init__(
        self,
        library: Library,
        workflows: Mapping[str, Workflow],
        seed: int = 0,
        scripted: bool = False,
        repeats: int = 1,
        max_llm_calls: int = 8,
        rounds: int = ROUNDS,
    ) -> None:
        super().__init__(library, workflows)
        self.seed, self.repeats, self.max_llm_calls, self.rounds = seed, repeats, max_llm_calls, rounds
        self.trees: dict[str, Tree] = {}
        self.edit = Proposal(EDIT, partial(write_edit, library, max_llm_calls))
        self.propose(self.edit, scripted=scripted)

    def executions(self, tasks: int) -> int:
        """See `Found.executions`."""
        return (self.rounds + 1) * self.repeats * tasks

    def search(self, trials: Trials) -> None:
        """Search on the validation tasks of one benchmark; ends with the best so far where the budget is spent.

        Raises:
            BudgetSpent: Not even the first workflow can be scored.
        """
        task = trials.tasks[0]
        first = self.first(task)
        tree = Tree(first, trials.mean(first, repeats=self.repeats))
        try:
            self._grow(tree, trials, task)
        except BudgetSpent:
            pass  # what was found so far counts
        self.trees[task.benchmark] = tree
        self.keep(task.benchmark, tree.best.workflow, tree.to_list())

    def _grow(self, tree: Tree, trials: Trials, task: Task) -> None:
        draw = random.Random(f"{self.seed}/{task.benchmark}")
        for round in range(1, self.rounds + 1):
            node = tree.choose(draw)
            edit, workflow = self._modified(tree, node, trials, round)
            if workflow is not None:
                tree.add(round, workflow, trials.mean(workflow, repeats=self.repeats), node, edit)
                if tree.stands_still():
                    return

    def _modified(self, tree: Tree, node: Node, trials: Trials, round: int) -> tuple[str, Workflow | None]:
        """An edit and what it makes; None if all attempts are refused, each knowing why those before it were."""
        for attempt in range(ATTEMPTS):
            text = self.shown(tree, node, trials)
            edit = written(trials.write(self.edit, text, seed=ATTEMPTS * round + attempt))
            if (workflow := self.changed(tree, node, edit, round)) is not None:
                return edit, workflow
        return "", None

    def changed(self, tree: Tree, node: Node, edit: str, round: int) -> Workflow | None:
        """What an edit makes of a workflow; None, and a note why, if it is not valid or gives what was tried before."""
        try:
            workflow = apply_edit(node.workflow, edit, self.library, self.max_llm_calls, f"aflow_{round}")
            if known := tree.known(workflow):
                raise WorkflowError(f"{KNOWN} of round {known.round}, score {known.score:.4f}")
        except WorkflowError as error:
            node.refused.append(Refused(edit, " ".join(str(error).split())))
            return None
        return workflow

    def shown(self, tree: Tree, node: Node, trials: Trials) -> str:
        """What a model reads to write an edit: `page`, with as many failures and as much experience as it has room for.

        Failed tasks go first, then the oldest refusals, scores last.
        """
        failed = [trial.task for trial in trials.execute(node.workflow) if trial.metric < 1][:FAILURES]
        texts = {task.id: task.text for task in trials.tasks}
        lines = tree.experience(node).splitlines()
        scores, refused = lines[: len(lines) - len(node.refused)], lines[len(lines) - len(node.refused) :]
        kept = [(lines, failed[:count]) for count in range(len(failed), -1, -1)]
        kept += [([*scores, *refused[gone:]], []) for gone in range(1, len(refused) + 1)]
        kept += [(scores[gone:], []) for gone in range(1, len(scores) + 1)]
        kind = trials.tasks[0].kind
        pages = (self.page(kind, node, own, [texts[id] for id in ids], bool(lines), bool(failed)) for own, ids in kept)
        return trials.roomy(self.edit, pages)

    def page(
        self,
        kind: str,
        node: Node,
        experience: Sequence[str],
        failed: Sequence[str],
        tried: bool = False,
        fails: bool = False,
    ) -> str:
        """The text behind `EDIT`; the workflow, whose steps an edit must name, stands last.

        Args:
            kind: Of the tasks.
            node: The workflow to change.
            experience: What was tried from it (`Tree.experience`).
            failed: Texts of tasks that it fails.
            tried: There is experience, shown or not.
            fails: There are such tasks, shown or not.
        """
        sections = [
            OPERATIONS,
            write_operations(self.library, operations_of([*self.workflows.values()], kind)),
            f"\n{FAILED}",
            *([f"* {ending(text, FAILURE_CHARS)}" for text in failed] or [NOT_SHOWN if fails else "none"]),
            f"\n{EXPERIENCE}",
            *(experience or [NOT_SHOWN if tried else "none yet"]),
            f"\n{WORKFLOW}",
            write_workflow(node.workflow),
            f"\nIts score is {node.score:.4f}.",
        ]
        return "\n".join(sections)


def write_edit(library: Library, max_llm_calls: int, task: Task, inputs: list[StepOutput], box: ToolBox) -> StepOutput:
    """The script in a model's place: a random valid edit, seeded by the text, that its experience does not list."""
    lines = task.text.split("\n")
    operations = [line.split("(")[0] for line in section(lines, OPERATIONS)]
    tried = [line.rpartition("] ")[2] for line in section(lines, EXPERIENCE) if line.startswith(TRIED)]
    workflow = read_workflow(section(lines, WORKFLOW))
    draw = random.Random(task.text)
    return StepOutput(draw_edit(workflow, library, operations, max_llm_calls, draw, frozenset(tried)))
