"""What the generator is trained for: five objectives behind one interface.

The paper's objective is the expected task metric E[f(S, W)]; its training recipe is in an appendix that no public copy
shows, so these are ours and are measured against each other:

- ``imitation``: likelihood of the executed workflows, weighted by a softmax of their reward on the task.
- ``expected``: the mean reward itself, under the generator's distribution over the workflows executed on the task. All
  of them are in the table, so the gradient is exact and needs neither samples nor a baseline.
- ``gumbel``: a small network learns the reward of an edge mask for a task; the generator maximises what it says about
  its own workflows, through straight-through Gumbel decoding with an annealed temperature.
- ``reinforce``: workflows are drawn from the generator; the score function (Williams, 1992) of each is weighted by its
  reward above a moving baseline. What was not executed on its task has the reward that the small network predicts.
- ``best``: as ``expected``, while the table grows: after the warm start, in a few rounds, the generator draws workflows
  for the training tasks, and what is new among them is executed (`graphflow.generator.training`). A policy gradient on
  fresh executions: exact over all that was executed on a task, so it needs no baseline either.

All but the first begin with a stretch of imitation (without it they settle on the best fixed workflow before they have
looked at the task: a policy-gradient signal vanishes where the policy is sure) and carry two more terms: the entropy
of the choice among executed workflows, and an anchor that keeps probability on executed workflows at all, since nothing
is known about the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from graphflow.generator.sampling import Plans, Sampler, Selection


class ObjectiveKind(Enum):
    """Which objective."""

    IMITATION = "imitation"
    EXPECTED = "expected"
    GUMBEL = "gumbel"
    REINFORCE = "reinforce"
    BEST = "best"

    @property
    def executes(self) -> bool:
        """Whether training executes workflows of its own."""
        return self is ObjectiveKind.BEST


@dataclass
class ObjectiveConfig:
    """The objective and its settings.

    Attributes:
        kind: The objective.
        sharpness: Reward difference that changes a workflow's probability by a factor e: the temperature of the weights
            in ``imitation`` (0 takes the best workflow only), the weight of the entropy in the others. At least 0.
        warm_start: All but ``imitation``: share of the training that imitates first, in [0, 1).
        anchor: Likewise: weight of the log-likelihood of the executed workflows together, at least 0.
        start_temperature: ``gumbel``: relaxation temperature at the start of training, positive.
        end_temperature: ``gumbel``: at its end, positive, at most ``start_temperature``.
        fit_steps: ``gumbel``, ``reinforce``: gradient steps of the outcome model.
        samples: ``reinforce``: workflows drawn for each task of a step, 1 or more.
        baseline_decay: ``reinforce``: share of the baseline that a step keeps, in [0, 1).
        rounds: ``best``: how often the generator's own workflows are executed, 1 or more: right after the warm start,
            then evenly over the remaining epochs, at most once an epoch.
        fresh: ``best``: workflows drawn for each training task in a round, 1 or more.
    """

    kind: ObjectiveKind = ObjectiveKind.EXPECTED
    sharpness: float = 0.1
    warm_start: float = 0.2
    anchor: float = 0.1
    start_temperature: float = 1.0
    end_temperature: float = 0.3
    fit_steps: int = 400
    samples: int = 4
    baseline_decay: float = 0.9
    rounds: int = 3
    fresh: int = 1

    def __post_init__(self) -> None:
        self.kind = ObjectiveKind(self.kind)
        for name in ("sharpness", "anchor"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"objective.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.warm_start < 1:
            raise ValueError(f"objective.warm_start must be in [0, 1), got {self.warm_start}")
        if not 0 < self.end_temperature <= self.start_temperature:
            raise ValueError(
                f"objective.end_temperature must be above 0 and at most start_temperature ({self.start_temperature}), "
                f"got {self.end_temperature}"
            )
        for name in ("fit_steps", "samples", "rounds", "fresh"):
            if getattr(self, name) < 1:
                raise ValueError(f"objective.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.baseline_decay < 1:
            raise ValueError(f"objective.baseline_decay must be in [0, 1), got {self.baseline_decay}")


@dataclass
class Outcomes:
    """Executed outcomes of some tasks, as tensors.

    Attributes:
        features: Encoded task texts ``[T, F]``, float.
        reward: ``[T, W]``, float; 0 where the workflow was not executed on the task.
        known: ``[T, W]``, bool: where it was.
    """

    features: Tensor
    reward: Tensor
    known: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def at(self, index: Tensor) -> Outcomes:
        """The outcomes of some of the tasks."""
        return Outcomes(self.features[index], self.reward[index], self.known[index])


class Objective(ABC):
    """What training minimises; `prepare`, `state` and `restore` are for those that learn something themselves."""

    def __init__(self, config: ObjectiveConfig, sampler: Sampler, plans: Plans) -> None:
        self.config, self.sampler, self.plans = config, sampler, plans

    def prepare(self, outcomes: Outcomes, generator: torch.Generator) -> None:  # noqa: B027 (overriding it is optional)
        """Called once before training, with all training outcomes."""

    def state(self) -> dict[str, Any]:
        """What it has learned so far, for `restore`: tensors and plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 (as above)
        """Go on from the `state` of an equal objective, in place of `prepare`."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Outcomes, generator: torch.Generator, progress: float) -> Tensor:
        """The scalar to minimise.

        Args:
            logits: Edge and answer logits ``[B, E + n]``.
            batch: Outcomes of the same B tasks, at least one workflow known for each.
            generator: Source of noise.
            progress: Share of the training that is over, 0 to 1.
        """


class Worth(Objective):
    """Maximises what the choice is worth, after a warm start by imitation."""

    @abstractmethod
    def value(
        self, logits: Tensor, scores: Tensor, batch: Outcomes, generator: torch.Generator, progress: float
    ) -> Tensor:
        """What each task's choice is worth ``[B]``, differentiable.

        Args:
            logits: As for `Objective.loss`; batch, generator and progress likewise.
            scores: Log-probabilities ``[B, W]``, minus infinity where the workflow was not executed on the task.
            batch: Outcomes.
            generator: Source of noise.
            progress: Share of the training that is over.
        """

    def loss(self, logits: Tensor, batch: Outcomes, generator: torch.Generator, progress: float) -> Tensor:
        """See `Objective.loss`."""
        if progress < self.config.warm_start:
            return imitation_loss(self.plans.log_prob(logits), batch, self.config.sharpness)
        scores = self.plans.log_prob(logits).masked_fill(~batch.known, float("-inf"))
        among = scores.log_softmax(-1).masked_fill(~batch.known, 0.0)
        entropy = -(among.exp() * among).sum(-1)
        value = self.value(logits, scores, batch, generator, progress)
        return -(value + self.config.sharpness * entropy + self.config.anchor * scores.logsumexp(-1)).mean()


def imitation_loss(log_prob: Tensor, batch: Outcomes, sharpness: float) -> Tensor:
    """Negative log-likelihood of the executed workflows, weighted by the softmax of reward / ``sharpness``.

    Args:
        log_prob: ``[B, W]``.
        batch: Outcomes of the same B tasks.
        sharpness: At 0 the best workflow has all the weight (the first of equals).
    """
    reward = batch.reward.masked_fill(~batch.known, float("-inf"))
    if sharpness:
        weights = (reward / sharpness).softmax(-1)
    else:
        weights = nn.functional.one_hot(reward.argmax(-1), reward.shape[-1]).to(reward.dtype)
    return -(weights * log_prob).sum(-1).mean()


class Imitation(Objective):
    """Maximum likelihood of good workflows."""

    def loss(self, logits: Tensor, batch: Outcomes, generator: torch.Generator, progress: float) -> Tensor:
        """See `imitation_loss`."""
        return imitation_loss(self.plans.log_prob(logits), batch, self.config.sharpness)


class Expected(Worth):
    """Mean reward over the executed workflows, each weighted by its probability among them."""

    def value(
        self, logits: Tensor, scores: Tensor, batch: Outcomes, generator: torch.Generator, progress: float
    ) -> Tensor:
        """See `Worth.value`."""
        return (scores.softmax(-1) * batch.reward).sum(-1)


class Modelled(Worth):
    """Looks at workflows that nobody executed too, through a fitted outcome model."""

    def __init__(self, config: ObjectiveConfig, sampler: Sampler, plans: Plans) -> None:
        super().__init__(config, sampler, plans)
        self.model: OutcomeModel | None = None

    def prepare(self, outcomes: Outcomes, generator: torch.Generator) -> None:
        """Fit the outcome model by least squares, and freeze it."""
        self.model = OutcomeModel(outcomes.features.shape[1], self.plans.masks.shape[1])
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=1e-3)
        tasks, workflows = outcomes.known.nonzero(as_tuple=True)
        for _ in range(self.config.fit_steps):
            pick = torch.randint(len(tasks), (256,), generator=generator)
            task, workflow = tasks[pick], workflows[pick]
            told = self.model(outcomes.features[task], self.plans.masks[workflow])
            error = (told - outcomes.reward[task, workflow]).square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
        self.model.requires_grad_(False)

    def state(self) -> dict[str, Any]:
        """The outcome model's weights, once there is one."""
        return {"model": self.model.state_dict()} if self.model else {}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Objective.restore`."""
        weights = state["model"]
        self.model = OutcomeModel(weights["task.weight"].shape[1], weights["mask.weight"].shape[1])
        self.model.load_state_dict(weights)
        self.model.requires_grad_(False)

    def predict(self, features: Tensor, masks: Tensor) -> Tensor:
        """What the outcome model says, ``[B]``, of masks ``[B, E + n]`` for tasks ``[B, F]``.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if self.model is None:
            raise RuntimeError(f"{type(self).__name__}.prepare must be called before its loss")
        return self.model(features, masks)


class Gumbel(Modelled):
    """What the outcome model says about the generator's own workflows, decoded straight-through."""

    def value(
        self, logits: Tensor, scores: Tensor, batch: Outcomes, generator: torch.Generator, progress: float
    ) -> Tensor:
        """See `Worth.value`."""
        start, end = self.config.start_temperature, self.config.end_temperature
        noisy = logits + self.sampler.noise(len(logits), generator)
        return self.predict(batch.features, self.sampler.straight_through(noisy, start * (end / start) ** progress))


class Reinforce(Modelled):
    """Reward of workflows that the generator draws; its gradient by the score function, above a moving baseline.

    The baseline of a step is made of earlier steps alone, so that the estimate stays unbiased.
    """

    def __init__(self, config: ObjectiveConfig, sampler: Sampler, plans: Plans) -> None:
        super().__init__(config, sampler, plans)
        self.baseline = 0.0
        self._steps = 0
        self._columns = {selection: column for column, selection in enumerate(plans.selections)}

    def state(self) -> dict[str, Any]:
        """The outcome model, and the baseline."""
        return {**super().state(), "baseline": self.baseline, "steps": self._steps}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Objective.restore`."""
        super().restore(state)
        self.baseline, self._steps = state["baseline"], state["steps"]

    def value(
        self, logits: Tensor, scores: Tensor, batch: Outcomes, generator: torch.Generator, progress: float
    ) -> Tensor:
        """As `Worth.value`: the gradient is that of the expected reward, the number itself is not that reward."""
        repeated = logits.repeat(self.config.samples, 1)
        drawn = self.sampler.select(repeated + self.sampler.noise(len(repeated), generator))
        reward = self.reward(drawn, batch)
        kinds = {selection: place for place, selection in enumerate(dict.fromkeys(drawn))}
        plans = self.sampler.plans([self.sampler.workflow(selection) for selection in kinds])
        place = torch.tensor([kinds[selection] for selection in drawn])
        log_prob = plans.log_prob(repeated).gather(1, place[:, None])[:, 0]
        value = ((reward - self._above(reward)) * log_prob).view(self.config.samples, -1)
        return value.mean(dim=0)

    @torch.no_grad()
    def reward(self, drawn: Sequence[Selection], batch: Outcomes) -> Tensor:
        """Rewards of drawn workflows, of all tasks in turn and then again: executed, or predicted where it was not."""
        tasks = len(batch)
        masks = torch.stack([self.sampler.mask(selection) for selection in drawn])
        rewards = self.predict(batch.features.repeat(len(drawn) // tasks, 1), masks)
        for row, selection in enumerate(drawn):
            column = self._columns.get(selection)
            if column is not None and batch.known[row % tasks, column]:
                rewards[row] = batch.reward[row % tasks, column]
        return rewards

    def _above(self, reward: Tensor) -> float:
        """The baseline for these rewards, which count from the next step on; an average over steps, not biased to 0."""
        keep = self.config.baseline_decay
        baseline = self.baseline / (1 - keep**self._steps) if self._steps else 0.0
        self.baseline, self._steps = keep * self.baseline + (1 - keep) * float(reward.mean()), self._steps + 1
        return baseline


class OutcomeModel(nn.Module):
    """Predicts the reward of a (relaxed) edge mask for a task: two linear maps, their product, one hidden layer."""

    def __init__(self, features: int, size: int, hidden: int = 64) -> None:
        super().__init__()
        self.task = nn.Linear(features, hidden)
        self.mask = nn.Linear(size, hidden)
        self.out = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        """Predicted reward ``[B]`` of masks ``[B, E + n]`` for tasks ``[B, F]``."""
        task, mask = self.task(features), self.mask(masks)
        return self.out(task + mask + task * mask).squeeze(-1)


def build_objective(config: ObjectiveConfig, sampler: Sampler, plans: Plans) -> Objective:
    """The objective that a config names."""
    match config.kind:
        case ObjectiveKind.IMITATION:
            return Imitation(config, sampler, plans)
        case ObjectiveKind.EXPECTED | ObjectiveKind.BEST:
            return Expected(config, sampler, plans)
        case ObjectiveKind.GUMBEL:
            return Gumbel(config, sampler, plans)
        case ObjectiveKind.REINFORCE:
            return Reinforce(config, sampler, plans)
