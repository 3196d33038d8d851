"""agentkb: workflows looked up in a knowledge base of solved tasks (the paper's "AgentKB" baseline; reduction is ours).

Read: the code of OPPO-PersonalAI/Agent-KB as two public copies have it (``run_gaia.py`` in zegeee/Agent-KB at 11a65aa,
and a port of ``agent_kb_retrieval.py``), since the repository itself was not to be had.

The original keeps a base of tasks with the plan and the experience of an agent on each. Before its agent begins, a
model reasons about the task (what to search for), the base is searched by a half TF-IDF, half embedding score, three
hits are refined into suggestions by another call, and the agent runs with these in its prompt. If the answer is wrong,
judged against the reference, a "teacher" does the same once more with the log of the failure.

Kept: the two calls, the hybrid search with its weights, three hits, experience of failures as well as of successes,
suggestions as text in front of the agent's work.

Changed: what a hit holds is a workflow, so that of the best hit that was solved is run, whole; the base is written from
executed training outcomes, one entry a task, its experience a line on which workflows solved it (the original has a
model write it). Only tasks of the same kind are searched, since a workflow for code answers no question. The embedding
is the generator's text encoder, which is one of hashed words unless ``generator.features.kind`` says otherwise.

Left out: the teacher, which looks at the reference answer of the very task that is tested. Nothing is added to the base
after `AgentKB.fit`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.growth import Outputs
from graphflow.engine.tools import ToolBox
from graphflow.generator.features import Encoder
from graphflow.generator.outcomes import OutcomeTable, records
from graphflow.methods.base import Method, MethodError
from graphflow.methods.notation import ending
from graphflow.methods.proposing import MoreOperations, Proposal
from graphflow.methods.retrieval_index import RetrievalIndex
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import TASK, Step, Workflow

HITS = 3
SOLVED = 0.5  # a metric from here on counts as success: F1 of an answer over passages is rarely 1
NAMED = 3  # workflows that an experience names at most
SHOWN = 300  # last characters of a similar task that are shown
KNOWLEDGE = "knowledge_base.json"
SIMILAR, EXPERIENCE = "Similar task:", "Experience:"


@dataclass(frozen=True)
class Entry:
    """What is known about one training task.

    Attributes:
        query: The task's text.
        benchmark: Its benchmark.
        kind: Its kind.
        workflow: Fingerprint of the workflow that did best on it.
        success: Whether that one solved it.
        experience: Which workflows did, and which did not.
    """

    query: str
    benchmark: str
    kind: str
    workflow: str
    success: bool
    experience: str


def _reason(task: Task, inputs: list[StepOutput], box: ToolBox) -> StepOutput:
    """The script of a search text: what the task asks, or its first sentence where it asks nothing."""
    sentences = re.split(r"(?<=[.!?])\s|\n", task.text.strip())
    return StepOutput(next((said for said in sentences if said.endswith("?")), sentences[0]))


def _refine(task: Task, inputs: list[StepOutput], box: ToolBox) -> StepOutput:
    """The script of suggestions: the experience of the best hit."""
    lines = [line for found in inputs for line in found.text.split("\n") if line.startswith(EXPERIENCE)]
    return StepOutput(lines[0].removeprefix(EXPERIENCE).strip() if lines else "")


REASON = Proposal(
    Operation(
        name="kb_reason",
        kind=Kind.LLM,
        accepts=("task",),
        produces="query",
        max_tokens=64,
        prompt="""\
Say what kind of task this is, so that similar tasks can be found in a collection of solved ones. Name the subject, what
is given, what is asked for and the steps it seems to need, in words that a similar task would use too. Do not solve the
task. Write one or two lines of search terms and nothing else.""",
    ),
    _reason,
)
REFINE = Proposal(
    Operation(
        name="kb_refine",
        kind=Kind.LLM,
        accepts=("passages",),
        produces="plan",
        max_tokens=96,
        prompt="""\
Above are similar tasks and the experience that was made with each. Turn what helps with the present task into one or
two short suggestions for whoever solves it: what to do first, and which mistake to avoid. Leave out what does not fit,
and do not solve the task. Write the suggestions and nothing else.""",
    ),
    _refine,
)
LOOKUP = Operation("kb_lookup", Kind.TOOL, ("query",), "passages")
ADVICE = Operation("kb_advice", Kind.TOOL, ("task", "plan"), "plan", arity="many")


class AgentKB(Method):
    """Grows in two stages: reason; look up and refine; the best hit's workflow behind the suggestions.

    Args:
        library: The operations.
        workflows: The repository's workflows by name.
        encoder: Embeds tasks.
        scripted: Whether scripts write search texts and suggestions in the model's place.

    Attributes:
        entries: The knowledge base.
    """

    name = "agentkb"

    def __init__(
        self, library: Library, workflows: Mapping[str, Workflow], encoder: Encoder, scripted: bool = False
    ) -> None:
        super().__init__(library, workflows)
        self.encoder = encoder
        self.entries: list[Entry] = []
        self._by_fingerprint: dict[str, Workflow] = {}
        self._index: RetrievalIndex | None = None
        self.propose(REASON, REFINE, scripted=scripted)
        self.asking = MoreOperations([REASON.made(scripted), REFINE.made(scripted), LOOKUP, ADVICE])
        self.tools = {**self.tools, LOOKUP.name: self._look_up, ADVICE.name: _advise}

    def fit(self, table: OutcomeTable | None = None) -> None:
        """Write one entry for each training task."""
        table = self.needs(table)
        rows: dict[str, list[dict]] = {}
        for row in records(table.means()):
            rows.setdefault(row["task_id"], []).append(row)
        self._know([_entry(task, rows[task.id]) for task in table.tasks()], table.workflows)

    def _know(self, entries: list[Entry], workflows: Mapping[str, Workflow]) -> None:
        self.entries = entries
        self._by_fingerprint = {entry.workflow: workflows[entry.workflow] for entry in entries}
        self._index = RetrievalIndex([entry.query for entry in entries], self.encoder)

    def hits(self, task: Task, text: str) -> list[Entry]:
        """The entries of the task's kind that are nearest to a search text, the best first.

        Raises:
            MethodError: `fit` was not called, or on no task of this kind.
        """
        own = [place for place, entry in enumerate(self.entries) if entry.kind == task.kind]
        if self._index is None or not own:
            raise MethodError(
                f"method 'agentkb' must be fitted on tasks of the kind {task.kind!r} before it builds; it knows "
                f"{', '.join(sorted({entry.kind for entry in self.entries})) or 'none'}"
            )
        return [self.entries[place] for place in self._index.nearest(text, HITS, own)]

    def build(self, task: Task) -> Workflow:
        """The call that says what to search for; the rest follows in `grow`."""
        self.hits(task, task.text)  # what cannot be looked up fails before a call is paid for
        reason = Step(REASON.name, REASON.name, (TASK,))
        return Workflow("agentkb", (task.kind,), (reason,), reason.id)

    def grow(self, task: Task, workflow: Workflow, outputs: Outputs) -> Workflow | None:
        """Look-up and refining behind the search text; behind the suggestions the workflow of the best hit."""
        if workflow.answer == REASON.name:
            steps = (Step(LOOKUP.name, LOOKUP.name, (REASON.name,)), Step(REFINE.name, REFINE.name, (LOOKUP.name,)))
            return replace(workflow, steps=(*workflow.steps, *steps), answer=REFINE.name)
        if workflow.answer != REFINE.name:
            return None
        hits = self.hits(task, outputs[REASON.name][0].text)
        found = self._by_fingerprint[next((hit for hit in hits if hit.success), hits[0]).workflow]
        advice = Step(ADVICE.name, ADVICE.name, (TASK, REFINE.name))
        steps = (*workflow.steps, advice, *self._advised(found))
        return Workflow(f"agentkb, {found.name}", found.kinds, steps, found.answer)

    def _advised(self, workflow: Workflow) -> list[Step]:
        """The steps of a workflow; the first call that reads the task reads it with the suggestions behind it."""
        calls = (step for step in workflow.steps if self.library[step.op].kind is Kind.LLM)
        first = next((step.id for step in calls if TASK in step.inputs), "")
        return [
            replace(step, inputs=tuple(ADVICE.name if name == TASK else name for name in step.inputs))
            if step.id == first
            else step
            for step in workflow.steps
        ]

    def _look_up(self, task: Task, inputs: list[StepOutput], box: ToolBox) -> StepOutput:
        """The tool behind `LOOKUP`."""
        hits = self.hits(task, inputs[0].text)
        return StepOutput(said_of(hits))

    def save(self, folder: str | Path) -> None:
        """Write the knowledge base with its workflows as one JSON file."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        workflows = {key: workflow.to_dict() for key, workflow in sorted(self._by_fingerprint.items())}
        content = {"entries": [asdict(entry) for entry in self.entries], "workflows": workflows}
        partial = place / f"{KNOWLEDGE}.partial"
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(place / KNOWLEDGE)

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote.

        Raises:
            MethodError: There is nothing in the folder.
        """
        file = Path(folder) / KNOWLEDGE
        if not file.exists():
            raise MethodError(f"method 'agentkb': no {KNOWLEDGE} in {folder}; fit it first")
        content = json.loads(file.read_text())
        workflows = {key: Workflow.from_dict(raw) for key, raw in content["workflows"].items()}
        self._know([Entry(**entry) for entry in content["entries"]], workflows)


def said_of(hits: Sequence[Entry]) -> str:
    """What a model reads of some entries."""
    return "\n".join(f"{SIMILAR} {ending(hit.query, SHOWN)}\n{EXPERIENCE} {hit.experience}" for hit in hits)


def _advise(task: Task, inputs: list[StepOutput], box: ToolBox) -> StepOutput:
    """The tool behind `ADVICE`: the suggestions, on the branch of its first input, which is the task alone."""
    return StepOutput(inputs[1].text)


def _entry(task: Task, rows: list[dict]) -> Entry:
    """What the executions of a task say: the best workflow (ties go to fewer tokens, then the name) and a line."""
    ranked = sorted(rows, key=lambda row: (-row["metric"], row["tokens"], row["workflow"]))
    best = ranked[0]
    good = [row["workflow"] for row in ranked if row["metric"] >= SOLVED]
    bad = [row["workflow"] for row in ranked[::-1] if row["metric"] < SOLVED]
    return Entry(
        task.text, task.benchmark, task.kind, best["fingerprint"], best["metric"] >= SOLVED, experience_of(good, bad)
    )


def experience_of(good: Sequence[str], bad: Sequence[str]) -> str:
    """An experience: some of the workflows that solved a task, and some of those that did not, in the order given."""
    said = [f"{', '.join(good[:NAMED])} solved it" if good else "nothing solved it"]
    said += [f"{', '.join(bad[:NAMED])} did not"] if bad and good else []
    return "; ".join(said) + "."
