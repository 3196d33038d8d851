"""From logits to workflows, and back to their probability (paper section 3.1: greedy selection of edges).

All decoding walks the choices of `graphflow.generator.grammar`, so an invalid workflow cannot come out. A choice among
edges is a softmax over the allowed ones, a yes or no is a sigmoid; the probability of a workflow is the product over
its choices, which makes imitation exact maximum likelihood. Sampling is greedy decoding of perturbed logits (Gumbel
noise where one of many is chosen, logistic noise where an edge is taken or not): the Gumbel-max trick, hence exact. The
same noise drives the relaxed decoding that gradients pass through (binary concrete: Maddison et al., 2017; Jang et
al., 2017). The factorisation is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphflow.generator.grammar import DONE, START, Grammar
from graphflow.wgraph.wgraph import WGraph
from graphflow.wgraph.workflow import Workflow, WorkflowError


class Selection(NamedTuple):
    """A workflow inside the wGraph.

    Attributes:
        edges: Indices into `WGraph.edges`, ascending.
        answer: Position of the answer in `WGraph.nodes`.
    """

    edges: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Plans:
    """The choices that make some workflows, ready to score (see `Sampler.plans`).

    Workflows share choices (all of them that of the answer), so every distinct one is kept, and normalised, once. The
    first is no choice: it has one option, which scores 0.

    Attributes:
        options: What scores the options of every distinct choice, one choice after another ``[N]``, long, indices into
            the extended logits.
        owner: Which choice each of them belongs to ``[N]``, long.
        choices: The choices of each workflow ``[W, D]``, long, filled up with 0.
        taken: What scores the option that is taken there ``[W, D]``, long.
        masks: 1 for each edge that is used and for the answer node ``[W, E + n]``, float.
        selections: Where the workflows lie in the wGraph.
    """

    options: Tensor
    owner: Tensor
    choices: Tensor
    taken: Tensor
    masks: Tensor
    selections: tuple[Selection, ...]

    def log_prob(self, logits: Tensor) -> Tensor:
        """Log-probability of every workflow for every task, differentiable.

        Args:
            logits: Edge and answer logits ``[B, E + n]`` (`Sampler.join`).

        Returns:
            ``[B, W]``, nats.
        """
        extended = torch.cat([logits, logits.new_zeros(len(logits), 1)], dim=1)
        scores, owner = extended[:, self.options], self.owner.expand(len(logits), -1)
        peak = scores.new_full((len(logits), int(self.owner[-1]) + 1), float("-inf"))
        peak = peak.scatter_reduce(1, owner, scores.detach(), "amax")
        mass = torch.zeros_like(peak).scatter_add(1, owner, (scores - peak.gather(1, owner)).exp())
        whole = peak + mass.log()
        shares = extended[:, self.taken.flatten()] - whole[:, self.choices.flatten()]
        return shares.view(len(logits), *self.taken.shape).sum(-1)


class Sampler:
    """Decodes logits over one wGraph. What it learns about the graph's choices it keeps, so later calls are fast.

    Attributes:
        grammar: The choices.
        wgraph: The graph.
        known: Workflows that `select_likeliest` considers: the merged ones, and what `remember` was told.
    """

    def __init__(self, wgraph: WGraph, max_llm_calls: int = 8, edges: Sequence[int] | None = None) -> None:
        """See `Grammar` for the arguments."""
        self.wgraph = wgraph
        self.grammar = Grammar(wgraph, max_llm_calls, edges)
        self._built: dict[Selection, Workflow] = {}
        self._merged = {workflow.fingerprint: workflow for workflow in reversed(wgraph.workflows)}
        sides = [wgraph.index(edge.target) for edge in wgraph.edges]
        self._many = torch.tensor([self.grammar.takes_many(edge.target) for edge in wgraph.edges], dtype=torch.bool)
        rank = {wgraph.index(id): rank for rank, id in enumerate(wgraph.topological())}
        self._backwards = sorted(range(1, len(wgraph.nodes)), key=rank.__getitem__, reverse=True)
        self._into = {node: [e for e, side in enumerate(sides) if side == node] for node in self._backwards}
        self._answers = torch.zeros(len(wgraph.nodes), dtype=torch.bool)
        for option in self.grammar.options(START):
            self._answers[option.logit - len(wgraph.edges)] = True
        self.known: list[Selection] = []
        self.remember(wgraph.workflows)

    @classmethod
    def of_kind(cls, wgraph: WGraph, kind: str, max_llm_calls: int = 8) -> Sampler:
        """A sampler over the edges of those merged workflows that are made for a benchmark kind.

        Raises:
            ValueError: No merged workflow is.
        """
        fitting = {workflow.name for workflow in wgraph.workflows if kind in workflow.kinds}
        if not fitting:
            known = sorted({kind for workflow in wgraph.workflows for kind in workflow.kinds})
            raise ValueError(f"no workflow of the wGraph is made for kind {kind!r}; there are {', '.join(known)}")
        edges = [index for index, edge in enumerate(wgraph.edges) if fitting.intersection(edge.workflows)]
        return cls(wgraph, max_llm_calls, edges)

    @staticmethod
    def join(edge_logits: Tensor, answer_logits: Tensor) -> Tensor:
        """The logits in one tensor ``[B, E + n]`` from ``[B, E]`` and ``[B, n]``."""
        return torch.cat([edge_logits, answer_logits], dim=-1)

    def select(self, logits: Tensor) -> list[Selection]:
        """The greedy choices for each row of ``[B, E + n]``; ties go to the lower index, then to taking an edge."""
        return [self._greedy(row)[0] for row in logits.detach().tolist()]

    def select_likeliest(self, logits: Tensor) -> list[Selection]:
        """For each row the most probable of the greedy workflow and all `known` ones.

        Greedy choices are short-sighted where many workflows share their first choices: together these are probable,
        each of them may not be, and what is put together of their most probable parts may be none of them.
        """
        greedy = [self._greedy(row) for row in logits.detach().tolist()]
        if not self.known:
            return [selection for selection, _ in greedy]
        best, index = self._known_plans.log_prob(logits.detach()).max(1)
        rows = zip(greedy, best.tolist(), index.tolist(), strict=True)
        return [self.known[i] if value > score + 1e-4 else selection for (selection, score), value, i in rows]

    def remember(self, workflows: Iterable[Workflow]) -> None:
        """Add workflows to the `known` ones; what cannot be composed here is passed over."""
        merged = {self.locate(workflow): workflow for workflow in self.composable(workflows)[0]}
        self.known += [selection for selection in merged if selection not in self.known]
        self._known_plans = self.plans([self.workflow(selection) for selection in self.known])

    def composable(self, workflows: Iterable[Workflow]) -> tuple[list[Workflow], list[Workflow]]:
        """The workflows that can be composed here, and the others."""
        can, cannot = [], []
        for workflow in workflows:
            try:
                self.plans([workflow])
            except WorkflowError:
                cannot.append(workflow)
            else:
                can.append(workflow)
        return can, cannot

    def decode_greedy(self, edge_logits: Tensor, answer_logits: Tensor) -> list[Workflow]:
        """The best choice at every point, one workflow a row; deterministic.

        Args:
            edge_logits: ``[B, E]``.
            answer_logits: ``[B, n]``.
        """
        return [self.workflow(selection) for selection in self.select(self.join(edge_logits, answer_logits))]

    def sample(
        self, edge_logits: Tensor, answer_logits: Tensor, generator: torch.Generator, temperature: float = 1.0
    ) -> list[Workflow]:
        """One workflow a row, drawn from the distribution that `log_prob` gives for logits divided by ``temperature``.

        Raises:
            ValueError: The temperature is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}; decode_greedy is the limit at 0")
        logits = self.join(edge_logits, answer_logits) / temperature
        return [self.workflow(selection) for selection in self.select(logits + self.noise(len(logits), generator))]

    def log_prob(self, edge_logits: Tensor, answer_logits: Tensor, workflow: Workflow) -> Tensor:
        """Log-probability of one workflow in each row, ``[B]``, differentiable. See `plans` for what may be asked."""
        return self.plans([workflow]).log_prob(self.join(edge_logits, answer_logits))[:, 0]

    def noise(self, size: int, generator: torch.Generator) -> Tensor:
        """Noise ``[size, E + n]`` whose greedy decoding is a sample: Gumbel, or logistic for edges into many inputs."""
        shape = (2, size, self.grammar.size)
        uniform = torch.rand(shape, generator=generator).clamp(1e-20, 1 - 1e-7)
        first, second = -(-uniform.log()).log()
        many = torch.cat([self._many, torch.zeros(len(self.wgraph.nodes), dtype=torch.bool)])
        return torch.where(many, first - second, first)

    def relax(self, logits: Tensor, temperature: float) -> Tensor:
        """How much each edge and answer node is used by a soft decoding, differentiable.

        The answer is a softmax over nodes; a node is needed as much as the noisy-or of the edges that start from it
        (and of its being the answer); its need times a softmax over its edges (a sigmoid each, for many inputs) is
        the use of these. At temperature 0 that is `select` without the look-ahead masks.

        Args:
            logits: ``[B, E + n]``, with `noise` added where samples are meant.
            temperature: Divides the logits, positive.

        Returns:
            ``[B, E + n]`` in [0, 1].
        """
        count = len(self.wgraph.edges)
        scaled = logits / temperature
        answer = scaled[:, count:].masked_fill(~self._answers, float("-inf")).softmax(-1)
        unused = list((1 - answer).unbind(1))
        use: list[Tensor] = [logits.new_zeros(len(logits))] * count
        for node in self._backwards:
            into = self._into[node]
            if not into:
                continue
            part = scaled[:, into]
            shares = part.sigmoid() if self._many[into[0]] else part.softmax(-1)
            amount = (1 - unused[node]).unsqueeze(1) * shares
            for edge, value in zip(into, amount.unbind(1), strict=True):
                use[edge] = value
                source = self.wgraph.index(self.wgraph.edges[edge].source)
                unused[source] = unused[source] * (1 - value)
        return torch.cat([torch.stack(use, 1), answer], 1)

    def straight_through(self, logits: Tensor, temperature: float) -> Tensor:
        """The mask of the greedy workflow ``[B, E + n]``, exactly 0 or 1, with the gradient of `relax`."""
        soft = self.relax(logits, temperature)
        hard = torch.stack([self.mask(selection) for selection in self.select(logits)])
        return hard + (soft - soft.detach())

    def mask(self, selection: Selection) -> Tensor:
        """1 for each edge that is used and for the answer node ``[E + n]``, float."""
        used = torch.zeros(self.grammar.size)
        used[[*selection.edges, len(self.wgraph.edges) + selection.answer]] = 1.0
        return used

    def workflow(self, selection: Selection) -> Workflow:
        """The workflow of a selection: the merged one where the structure is known, else one named by fingerprint."""
        found = self._built.get(selection)
        if found is None:
            answer = self.wgraph.nodes[selection.answer].id
            found = self.wgraph.workflow(selection.edges, answer, "composed")
            name = f"composed_{found.fingerprint}"
            found = self._merged.get(found.fingerprint) or Workflow(name, (), found.steps, found.answer)
            self._built[selection] = found
        return found

    def locate(self, workflow: Workflow) -> Selection:
        """Where a workflow lies: as it was merged, or by its step ids, which are node ids if it was composed here.

        Raises:
            WorkflowError: It is neither.
        """
        merged = self._merged.get(workflow.fingerprint)
        if merged is not None:
            embedding = self.wgraph.embed(merged)
            return Selection(tuple(sorted(embedding.edges)), self.wgraph.index(embedding.answer))
        index = {(edge.source, edge.target, edge.guard): i for i, edge in enumerate(self.wgraph.edges)}
        edges = []
        for step in workflow.steps:
            for source in step.inputs:
                key = (source, step.id, str(step.when) if step.when else "")
                if key not in index:
                    raise WorkflowError(
                        f"{workflow} does not lie in this wGraph: no edge {source!r} -> {step.id!r} "
                        f"({key[2] or 'always'}); merge it first (WGraph.add)"
                    )
                edges.append(index[key])
        selection = Selection(tuple(sorted(edges)), self.wgraph.index(workflow.answer))
        if self.workflow(selection).fingerprint != workflow.fingerprint:
            raise WorkflowError(f"{workflow} reads its inputs in another order than this wGraph; merge it first")
        return selection

    def plans(self, workflows: Sequence[Workflow]) -> Plans:
        """The choices that lead to some workflows.

        Raises:
            WorkflowError: A workflow does not lie in the wGraph, or the grammar does not allow it (too many calls, or
                no path without guards): then its probability is zero.
        """
        selections = [self.locate(workflow) for workflow in workflows]
        chosen = [self.choices(workflow) for workflow in workflows]
        number: dict[tuple[int, ...], int] = {(self.grammar.size,): 0}
        depth = max((len(choices) for choices in chosen), default=0)
        choices = torch.zeros(len(chosen), depth, dtype=torch.long)
        taken = torch.full((len(chosen), depth), self.grammar.size)
        for row, made in enumerate(chosen):
            for column, (allowed, index) in enumerate(made):
                choices[row, column] = number.setdefault(tuple(allowed), len(number))
                taken[row, column] = allowed[index]
        options = torch.tensor([logit for allowed in number for logit in allowed])
        owner = torch.tensor([place for allowed, place in number.items() for _ in allowed])
        masks = torch.stack([self.mask(selection) for selection in selections])
        return Plans(options, owner, choices, taken, masks, tuple(selections))

    def _greedy(self, row: list[float]) -> tuple[Selection, float]:
        """The greedy choices for logits ``E + n``, and their log-probability."""
        row = [*row, 0.0]
        state, edges, answer, score = START, [], 0, 0.0
        while state != DONE:
            options = self.grammar.options(state)
            best = options[0]
            if len(options) > 1:
                best = max(options, key=lambda option: row[option.logit])
                score -= math.log(sum(math.exp(row[option.logit] - row[best.logit]) for option in options))
            if state is START:
                answer = best.logit - len(self.wgraph.edges)
            elif best.logit < self.grammar.size:
                edges.append(best.logit)
            state = best.state
        return Selection(tuple(sorted(edges)), answer), score

    def choices(self, workflow: Workflow) -> list[tuple[list[int], int]]:
        """Per choice with an alternative: what scores the allowed options, and which of them is taken.

        Options are indices into the logits ``E + n``; E + n itself, of score 0, stands for "no".

        Raises:
            WorkflowError: As `plans`.
        """
        selection = self.locate(workflow)
        edges, answer = set(selection.edges), len(self.wgraph.edges) + selection.answer
        state, found, met = START, [], set()
        while state != DONE:
            options = self.grammar.options(state)
            logits = [option.logit for option in options]
            wanted = [i for i, logit in enumerate(logits) if logit == answer or logit in edges]
            taken = wanted or [i for i, logit in enumerate(logits) if logit == self.grammar.size]
            if not taken:
                break
            if len(options) > 1:
                found.append((logits, taken[0]))
            met.add(logits[taken[0]])
            state = options[taken[0]].state
        if met - {self.grammar.size} != edges | {answer}:
            raise WorkflowError(
                f"{workflow} cannot be composed from this wGraph: it takes more than "
                f"{self.grammar.max_llm_calls} language-model calls, or no path without guards leads to its answer"
            )
        return found
