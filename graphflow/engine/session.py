"""From a model to numbers in ten lines: operations of your own, in any state mode (`docs/operation_state.md`)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from graphflow.backbone.load import Backbone, BackboneConfig, load_backbone, load_tokenizer
from graphflow.backbone.turns import FORMATS
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import Episode, Task
from graphflow.engine.executor import Executor
from graphflow.kv import KVConfig, StoreBytes
from graphflow.wgraph.library import Library
from graphflow.wgraph.operation import Kind, Operation
from graphflow.wgraph.workflow import TASK, Step, Workflow


@dataclass(frozen=True)
class Run:
    """What serving some texts cost, and how close it was to exact state.

    Attributes:
        episodes: One a text, in the order of the texts, with a record of every step.
        shared: Bytes of what all texts share, after the run, by category.
    """

    episodes: Sequence[Episode]
    shared: StoreBytes

    @property
    def operation_bytes(self) -> int:
        """Bytes of operation state: bases and residuals once, and what each text keeps of its own."""
        return self.shared.base + self.shared.residual + sum(episode.op_bytes for episode in self.episodes)

    @property
    def text_bytes(self) -> int:
        """Bytes of the KV of tasks and outputs."""
        return sum(episode.dynamic_bytes for episode in self.episodes)

    @property
    def prefilled(self) -> int:
        """Tokens of texts and prompts that ran through the model."""
        return sum(episode.total("prefill_tokens") for episode in self.episodes)

    @property
    def reused(self) -> int:
        """Tokens of contexts and prompts whose KV was there when a step began."""
        return sum(episode.total("reused_tokens") for episode in self.episodes)

    @property
    def kl(self) -> float | None:
        """Mean KL(exact || used) of next-token distributions over all steps, nats; None if it was not measured."""
        return self._mean("kl")

    @property
    def agreement(self) -> float | None:
        """Share of steps for which exact state has the same greedy output; None if it was not measured."""
        return self._mean("agrees")

    def _mean(self, name: str) -> float | None:
        steps = [step for episode in self.episodes for step in episode.steps if step.kl is not None]
        return sum(getattr(step, name) for step in steps) / len(steps) if steps else None


class Session:
    """A model, operations and their state (``executor.store``); what a run teaches it stays for the next one.

    Args:
        model: From `load`.
        operations: Prompts by name; they decode greedily.
        kv: How operation state is kept: a state mode, or all settings. With ``KVConfig(..., store=...)`` a store saved
            there is loaded, and saved again after every run.
        max_tokens: Tokens that an operation writes at most.
        engine: Settings of the engine; by default KV is kept in the model's dtype.

    Raises:
        ValueError: A mode or a setting out of range; a model whose keys cannot be moved; a saved store that is of
            another model, tokenizer, prompt or setting.
    """

    def __init__(
        self,
        model: Backbone,
        operations: Mapping[str, str],
        kv: KVConfig | str = "differential",
        max_tokens: int = 32,
        engine: EngineConfig | None = None,
    ) -> None:
        library = Library(
            Operation(name, Kind.LLM, ("task", "answer"), "answer", prompt=prompt, max_tokens=max_tokens)
            for name, prompt in operations.items()
        )
        config = kv if isinstance(kv, KVConfig) else KVConfig(kv)  # type: ignore[arg-type]
        engine = engine or EngineConfig(kv_dtype=str(model.dtype).removeprefix("torch."))
        self.executor = Executor(model, library, config, engine)

    def run(self, texts: Sequence[str], path: Sequence[str], measure: bool = True) -> Run:
        """Serves every text, in a context of its own, by operations one after the other.

        Args:
            texts: The tasks.
            path: Names of operations in order, at least one.
            measure: Compare every step with exact state, which costs one more forward pass.

        Raises:
            UnknownNameError: The session has no such operation.
            ValueError: A single string in place of a list, or an empty path.
        """
        for name, given in (("texts", texts), ("path", path)):
            if isinstance(given, str):
                raise ValueError(f"{name} must be a list of strings, got {given!r}")
        if not path:
            raise ValueError("path must name at least one operation, got none")
        executor = self.executor
        ops = [executor.library[name].name for name in path]
        steps = tuple(Step(f"s{i}", op, (f"s{i - 1}" if i else TASK,)) for i, op in enumerate(ops))
        workflow = Workflow(">".join(ops), (), steps, steps[-1].id)
        executor.config = replace(executor.config, fidelity=len(texts) if measure else 0)
        tasks = [Task(str(place), "session", "session", text) for place, text in enumerate(texts)]
        episodes = executor.run(tasks, lambda arriving: [workflow] * len(arriving))
        return Run(sorted(episodes, key=lambda episode: int(episode.task_id)), executor.store_bytes())

    def unexplained(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """By operation and path: the share of the residual's energy that the mean over requests leaves, in [0, 1].

        Taken when a path's mean was stored; near 1 where requests have nothing in common, and path scope no point.
        """
        return self.executor.store.unexplained()

    def save(self, location: str | os.PathLike[str]) -> None:
        """Saves bases, residuals and what is being learned to a folder or fsspec URL.

        Raises:
            ValueError: The mode has no bases: there is nothing to save.
        """
        store = self.executor.store
        if not store.config.has_bases:
            raise ValueError(f"mode must be one with bases to be saved, got {store.config.mode.value}")
        store.save(location)


def load(folder: str | os.PathLike[str], turns: str = "", dtype: str = "float32", device: str = "cpu") -> Backbone:
    """Loads a model of the families Qwen 2, Llama 3 and Gemma 2 from a local folder in Hugging Face format.

    Args:
        folder: Where ``config.json``, weights and tokenizer are.
        turns: Turn format: mini, qwen, llama or gemma; empty for the one whose marks the tokenizer has.
        dtype: What the model computes in: float32, bfloat16 or float16.
        device: A torch device.

    Raises:
        BackboneError: No model there.
        UnknownNameError: No such turn format, or a tokenizer that has the marks of none.
    """
    place = Path(folder)
    if not turns and (place / "config.json").exists():  # without one, loading says what is missing
        known = load_tokenizer(str(place)).get_vocab()
        turns = next((name for name, turn in FORMATS.items() if turn.stop in known), "")
    return load_backbone(BackboneConfig(place.resolve().name, str(place), dtype=dtype, device=device, turns=turns))
