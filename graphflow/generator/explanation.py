"""Why a workflow was picked: what else was considered, choice by choice, and what training saw on tasks like this one.

The network's logits mean something only through the grammar's choices, so what is shown are probabilities: of whole
workflows, of the option that was taken at every choice and of the best one that was not, and of every edge to be part
of the workflow (our choice; the paper shows edge scores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from graphflow.engine.episode import Task
from graphflow.generator.generator import Generator
from graphflow.generator.outcomes import OutcomeTable, records
from graphflow.generator.sampling import Selection
from graphflow.wgraph.workflow import Workflow


@dataclass(frozen=True)
class Candidate:
    """A workflow that was considered.

    Attributes:
        workflow: It.
        probability: That the network gives it, in [0, 1]; those of all valid workflows together make 1.
    """

    workflow: Workflow
    probability: float


@dataclass(frozen=True)
class Choice:
    """One choice on the way to the picked workflow, which is built from its answer backwards.

    Attributes:
        taken: What was chosen: an answer, an edge, or that an edge is left out.
        share: Its probability among the options that the grammar left, in (0, 1].
        instead: The best of the others.
        loss: Its probability.
    """

    taken: str
    share: float
    instead: str
    loss: float


@dataclass(frozen=True)
class Explanation:
    """What the generator had before it for one task.

    Attributes:
        task: The task.
        workflow: The workflow that it picks.
        candidates: What was considered, the most probable first.
        choices: Those that had more than one option.
        use: For every edge of the wGraph the probability that it is part of the workflow, by the candidates.
    """

    task: Task
    workflow: Workflow
    candidates: tuple[Candidate, ...]
    choices: tuple[Choice, ...]
    use: tuple[float, ...]

    @property
    def covered(self) -> float:
        """Probability of all candidates together; the rest is on recombinations that nobody looked at."""
        return sum(candidate.probability for candidate in self.candidates)


@torch.no_grad()
def explain(generator: Generator, task: Task) -> Explanation:
    """What the generator picks for a task, and what it passed over.

    Considered are the merged and the executed workflows, what greedy decoding gives, and the pick itself. With
    `GeneratorConfig.mask_kind` all of them use edges of the task's kind only.
    """
    sampler = generator.sampler_for(task.kind)
    generator.model.eval()
    logits = generator.logits(generator.encoder.encode([task.text]))
    (picked,) = generator.compose([task])
    greedy = sampler.workflow(sampler.select(logits)[0])
    considered: dict[Selection, Workflow] = {
        selection: sampler.workflow(selection)
        for selection in (*sampler.known, sampler.locate(greedy), sampler.locate(picked))
    }
    plans = sampler.plans(list(considered.values()))
    shares = plans.log_prob(logits)[0].exp()
    use = (shares / shares.sum()) @ plans.masks[:, : len(generator.wgraph.edges)]
    ranked = sorted(
        (Candidate(workflow, share) for workflow, share in zip(considered.values(), shares.tolist(), strict=True)),
        key=lambda candidate: (-candidate.probability, candidate.workflow.name),
    )
    choices = []
    for options, taken in sampler.choices(picked):
        given = torch.cat([logits[0], logits.new_zeros(1)])[options].softmax(0).tolist()
        other = max((place for place in range(len(options)) if place != taken), key=given.__getitem__)
        choices.append(
            Choice(_words(generator, options, taken), given[taken], _words(generator, options, other), given[other])
        )
    return Explanation(task, picked, tuple(ranked), tuple(choices), tuple(use.clamp(0, 1).tolist()))


def _words(generator: Generator, options: Sequence[int], place: int) -> str:
    """An option of a choice in words."""
    wgraph, logit = generator.wgraph, options[place]
    if logit == generator.sampler.grammar.size:
        (edge,) = [other for other in options if other != logit]
        return f"without {wgraph.edges[edge].source} -> {wgraph.edges[edge].target}"
    if logit >= len(wgraph.edges):
        return f"answer from {wgraph.nodes[logit - len(wgraph.edges)].id}"
    edge = wgraph.edges[logit]
    return f"{edge.source} -> {edge.target}" + (f" [{edge.guard}]" if edge.guard else "")


def nearest(generator: Generator, table: OutcomeTable, task: Task, count: int) -> list[Task]:
    """The training tasks that look most like a task to the generator; the nearest first."""
    tasks = table.tasks()
    features = generator.encoder.encode([task.text, *(other.text for other in tasks)])
    order = (features[1:] @ features[0]).argsort(descending=True, stable=True)
    return [tasks[place] for place in order[:count].tolist()]


def rewards(generator: Generator, table: OutcomeTable, tasks: Sequence[Task]) -> dict[str, tuple[float, int]]:
    """Mean reward of every workflow that was executed on some of these tasks, and on how many, by fingerprint."""
    chosen, found = {task.id for task in tasks}, dict[str, list[float]]()
    for row in records(table.means(generator.config.reward)):
        if row["task_id"] in chosen:
            found.setdefault(row["fingerprint"], []).append(row["reward"])
    return {fingerprint: (fmean(values), len(values)) for fingerprint, values in found.items()}
