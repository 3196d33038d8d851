"""The generator as it serves: task texts in, valid workflows out (paper section 3.1).

A generator belongs to one wGraph. It can be put on a grown one (`Generator.on`), because everything it knows about an
operation it reads from the operation's texts and place in the graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from graphflow.engine.episode import Task
from graphflow.generator.features import Encoder, FeatureConfig, build_encoder, operation_text
from graphflow.generator.model import GeneratorModel, GraphTensors, ModelConfig
from graphflow.generator.objectives import ObjectiveConfig
from graphflow.generator.outcomes import RewardConfig
from graphflow.generator.sampling import Sampler, Selection
from graphflow.wgraph.wgraph import WGraph
from graphflow.wgraph.workflow import Workflow


class DecodeKind(Enum):
    """How a workflow is read off the logits."""

    GREEDY = "greedy"
    LIKELIEST = "likeliest"


Select = Callable[[Sampler, Tensor], list[Selection]]
BATCH, EDGES = 64, 80_000
"""Tasks that are composed for at once at most, and edges of all their copies of the graph: what caches hold."""
FORMAT = 1


@dataclass
class GeneratorConfig:
    """Everything about a generator and its training.

    Attributes:
        features: How texts become vectors.
        model: The network.
        objective: What it is trained for.
        reward: What a workflow is worth on a task.
        max_llm_calls: Language-model calls a composed workflow may take at most, samples counted; 1 to 64.
        decode: ``greedy``, the best choice at every point, as in the paper; or ``likeliest``, the most probable of the
            greedy workflow, the merged ones and the executed ones.
        mask_kind: Use only edges of workflows made for the task's kind. Off by default: the text must say it.
        shrinkage: Weight of a workflow's mean reward on the benchmark against its reward on the one task, in
            executions, at least 0. One execution is a noisy witness; 0 believes it.
        epochs: Passes over the training tasks at most, 1 or more.
        patience: Epochs without a better validation reward before training stops, 1 or more; they count from the end of
            the warm start, and with the objective ``best`` from its last round.
        batch: Tasks a gradient step, 1 or more.
        learning_rate: Of AdamW, positive.
        weight_decay: Of AdamW, at least 0.
        validation: Share of the tasks kept for early stopping, above 0 and below 1.
        seed: Of initialisation, split, order and noise.
    """

    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    max_llm_calls: int = 8
    decode: DecodeKind = DecodeKind.LIKELIEST
    mask_kind: bool = False
    shrinkage: float = 3.0
    epochs: int = 100
    patience: int = 25
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        self.decode = DecodeKind(self.decode)
        if not 1 <= self.max_llm_calls <= 64:
            raise ValueError(f"generator.max_llm_calls must be between 1 and 64, got {self.max_llm_calls}")
        for name in ("epochs", "patience", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"generator.{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"generator.learning_rate must be positive, got {self.learning_rate}")
        for name in ("weight_decay", "shrinkage"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"generator.{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.validation < 1:
            raise ValueError(f"generator.validation must be above 0 and below 1, got {self.validation}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """The inverse of `plain`."""
        parts = {"features": FeatureConfig, "model": ModelConfig, "objective": ObjectiveConfig, "reward": RewardConfig}
        return cls(**{name: parts[name](**value) if name in parts else value for name, value in values.items()})


class GeneratorError(ValueError):
    """A saved generator that does not belong to the wGraph or the code it is loaded with."""


class Generator:
    """A trained network on a wGraph.

    Attributes:
        config: How it was made.
        wgraph: The graph it composes from.
        model: The network.
        sampler: Decodes its logits.
        executed: Workflows of the outcome table it was trained on.
        report: What training measured (see `graphflow.generator.training`); empty for an untrained one.
    """

    def __init__(
        self,
        config: GeneratorConfig,
        wgraph: WGraph,
        model: GeneratorModel | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        """Put a network on a graph; without one, a new one is made from the global random state."""
        self.config, self.wgraph = config, wgraph
        self.encoder = encoder or build_encoder(config.features)
        self.model = model or GeneratorModel(config.model, self.encoder.dim)
        self.graph = GraphTensors.of(wgraph, self.encoder)
        self.sampler = Sampler(wgraph, config.max_llm_calls)
        self.executed: list[Workflow] = []
        self.report: dict[str, Any] = {}
        self._by_kind: dict[str, Sampler] = {}

    def compose(self, tasks: Sequence[Task]) -> list[Workflow]:
        """The workflow for each task, as `GeneratorConfig.decode` says; the same task always gets the same one."""
        return self._decode(tasks, self._best)

    def sample(self, tasks: Sequence[Task], generator: torch.Generator, temperature: float = 1.0) -> list[Workflow]:
        """A random workflow for each task, for exploration: the hotter, the less the network's opinion counts."""
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}; compose is the limit at 0")
        return self._decode(
            tasks,
            lambda sampler, logits: sampler.select(logits / temperature + sampler.noise(len(logits), generator)),
        )

    def logits(self, features: Tensor) -> Tensor:
        """Edge and answer logits ``[B, E + n]`` for encoded tasks ``[B, F]``."""
        return Sampler.join(*self.model(self.graph, features))

    @torch.no_grad()
    def choose(self, features: Tensor, kinds: Sequence[str]) -> list[Workflow]:
        """As `compose`, for tasks that are encoded already."""
        return self._walk(features, kinds, self._best)

    def on(self, wgraph: WGraph) -> Generator:
        """The same network on another (grown) graph."""
        moved = Generator(self.config, wgraph, self.model, self.encoder)
        moved.report = dict(self.report)
        moved.remember(self.executed)
        return moved

    def remember(self, workflows: Iterable[Workflow]) -> None:
        """Take note of executed workflows, so that ``likeliest`` considers those that were not merged too."""
        self.executed = list({workflow.fingerprint: workflow for workflow in (*self.executed, *workflows)}.values())
        self.sampler.remember(self.executed)
        self._by_kind.clear()

    def save(self, folder: str | Path) -> None:
        """Write ``generator.json`` and ``generator.safetensors``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, _weights(folder))
        about = {
            "format": FORMAT,
            "wgraph": wgraph_fingerprint(self.wgraph),
            "workflows": [workflow.name for workflow in self.wgraph.workflows],
            "executed": [workflow.to_dict() for workflow in self.executed],
            "config": plain(asdict(self.config)),
            "report": self.report,
        }
        partial = folder / "generator.json.partial"
        partial.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / "generator.json")

    @classmethod
    def load(cls, folder: str | Path, wgraph: WGraph, grown: bool = False, encoder: Encoder | None = None) -> Generator:
        """Read a saved generator.

        Args:
            folder: Where `save` wrote.
            wgraph: The graph to compose from.
            grown: Accept another graph than the one it was trained on.
            encoder: What encodes texts, in place of a new one as its configuration says.

        Raises:
            GeneratorError: The folder holds another format, or ``wgraph`` is not the graph it was trained on.
        """
        folder = Path(folder)
        about = json.loads((folder / "generator.json").read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise GeneratorError(f"{folder} has format {about['format']}; this version reads {FORMAT}")
        given = wgraph_fingerprint(wgraph)
        if about["wgraph"] != given and not grown:
            names = {workflow.name for workflow in wgraph.workflows}
            gone, new = sorted(set(about["workflows"]) - names), sorted(names - set(about["workflows"]))
            raise GeneratorError(
                f"{folder} was trained on wGraph {about['wgraph']}, but was given wGraph {given} "
                f"(workflows only there: {', '.join(gone) or 'none'}; only here: {', '.join(new) or 'none'}); "
                "train again, or load with grown=True"
            )
        loaded = cls(GeneratorConfig.from_dict(about["config"]), wgraph, encoder=encoder)
        loaded.model.load_state_dict(load_file(_weights(folder)))
        loaded.report = about["report"]
        loaded.remember(map(Workflow.from_dict, about["executed"]))
        return loaded

    def _best(self, sampler: Sampler, logits: Tensor) -> list[Selection]:
        greedy = self.config.decode is DecodeKind.GREEDY
        return sampler.select(logits) if greedy else sampler.select_likeliest(logits)

    @torch.no_grad()
    def _decode(self, tasks: Sequence[Task], select: Select) -> list[Workflow]:
        features = self.encoder.encode([task.text for task in tasks])
        return self._walk(features, [task.kind for task in tasks], select)

    def _walk(self, features: Tensor, kinds: Sequence[str], select: Select) -> list[Workflow]:
        self.model.eval()
        workflows, step = [], max(1, min(BATCH, EDGES // max(1, len(self.wgraph.edges))))
        for start in range(0, len(features), step):
            logits = self.logits(features[start : start + step])
            if not self.config.mask_kind:
                workflows += [self.sampler.workflow(selection) for selection in select(self.sampler, logits)]
                continue
            for row, kind in enumerate(kinds[start : start + step]):
                sampler = self.sampler_for(kind)
                workflows.append(sampler.workflow(select(sampler, logits[row : row + 1])[0]))
        return workflows

    def sampler_for(self, kind: str) -> Sampler:
        """What decodes tasks of a kind: with ``mask_kind`` over the edges of the workflows made for it alone."""
        if not self.config.mask_kind:
            return self.sampler
        if kind not in self._by_kind:
            self._by_kind[kind] = Sampler.of_kind(self.wgraph, kind, self.config.max_llm_calls)
            self._by_kind[kind].remember(self.executed)
        return self._by_kind[kind]


def wgraph_fingerprint(wgraph: WGraph) -> str:
    """First 12 hex digits of the SHA-256 of what the network sees: nodes, edges, guards, operation texts."""
    operations = sorted({node.op for node in wgraph.nodes[1:]})
    content = [
        [node.id for node in wgraph.nodes],
        [[edge.source, edge.target, edge.guard, edge.count] for edge in wgraph.edges],
        [operation_text(wgraph.library[name]) for name in operations],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def plain(value: Any) -> Any:
    """Enums by their values, through dictionaries, ready for JSON."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


def _weights(folder: Path) -> Path:
    return folder / "generator.safetensors"
