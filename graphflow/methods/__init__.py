"""Methods: how a workflow is built for a task. One file a method; `build_method` is the way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphflow.errors import unknown_name
from graphflow.generator.features import Encoder, build_encoder
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.methods.aflow import AFlow
from graphflow.methods.agentkb import AgentKB
from graphflow.methods.autoflow import AutoFlow
from graphflow.methods.base import Method, MethodError
from graphflow.methods.best_fixed import BestFixed
from graphflow.methods.graphflow import GraphFlow
from graphflow.methods.llmcompiler import LLMCompiler, check_replans
from graphflow.methods.metagpt import MetaGPT
from graphflow.methods.random import Random
from graphflow.methods.retrieve_top1 import RetrieveTop1
from graphflow.methods.taskweaver import TaskWeaver
from graphflow.methods.vanilla import PROMPTS, Vanilla, asks_as_vendor
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Workflow

SCRIPTED = ("auto", "yes", "no")
NAMES = (
    *("vanilla", "metagpt", "llmcompiler", "taskweaver", "agentkb", "autoflow", "aflow"),
    *("best_fixed", "retrieve_top1", "random", "graphflow"),
)

__all__ = ["NAMES", "Method", "MethodConfig", "MethodError", "build_method"]


@dataclass
class MethodConfig:
    """Which method.

    Attributes:
        name: One of `NAMES`.
        seed: Of methods that draw (``random``, ``aflow``).
        scripted: Whether scripts write what a method needs of a model besides answers (plans, edits, flows), in the
            model's place: ``yes``, ``no``, or ``auto``, which does so for mini backbones that never saw such texts
            (`BackboneConfig.planner`).
        prompt: How ``vanilla`` asks: ``mini`` by the library's one-call operations, ``vendor`` as vendors evaluate
            their models, ``auto`` by the backbone's turn format.
        max_replans: Plans that ``llmcompiler`` may make for a task, 1 or 2.
        repeats: Repetitions of a validation round of ``aflow``, 1 or more; 5 in the original.

    Raises:
        MethodError: There is no method, or no prompt, of that name, or a number is out of range.
    """

    name: str = "graphflow"
    seed: int = 0
    prompt: str = "auto"
    scripted: str = "auto"
    max_replans: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise MethodError(f"method.name: {unknown_name('method', self.name, NAMES)}")
        if self.prompt not in PROMPTS:
            raise MethodError(f"method.prompt: {unknown_name('prompt', self.prompt, PROMPTS)}")
        if self.scripted not in SCRIPTED:
            raise MethodError(f"method.scripted: {unknown_name('value', self.scripted, SCRIPTED)}")
        check_replans(self.max_replans)
        if self.repeats < 1:
            raise MethodError(f"method.repeats must be 1 or more, got {self.repeats}")

    def scripts(self, turns: str, planner: bool = False) -> bool:
        """Whether scripts write for a backbone of this turn format."""
        return self.scripted == "yes" or (self.scripted == "auto" and turns == "mini" and not planner)


def build_method(
    config: MethodConfig,
    library: Library,
    workflows: Mapping[str, Workflow],
    generator: Generator | None = None,
    generator_config: GeneratorConfig | None = None,
    turns: str = "mini",
    encoder: Encoder | None = None,
    planner: bool = False,
) -> Method:
    """The method that a config names, not fitted yet.

    Args:
        config: Name, seed and prompt.
        library: The operations.
        workflows: The repository's workflows by name.
        generator: A trained generator for ``graphflow``; None trains one in `Method.fit`.
        generator_config: How ``graphflow`` trains one; ``retrieve_top1`` and ``agentkb`` take features from it,
            ``retrieve_top1`` the reward, ``random``, ``autoflow`` and ``aflow`` the limit of language-model calls.
        turns: Name of the backbone's turn format: mini backbones know the library's operations alone, and methods ask
            them by these (``prompt=auto``, the roles of ``metagpt``).
        encoder: What ``retrieve_top1`` and ``agentkb`` compare texts with, in place of a new one as the features say.
        planner: Whether a mini backbone writes plans, edits and flows, for ``scripted=auto``.
    """
    scripted = config.scripts(turns, planner)
    settings = generator_config or (generator.config if generator else GeneratorConfig())
    match config.name:
        case "vanilla":
            return Vanilla(library, workflows, asks_as_vendor(config.prompt, turns))
        case "metagpt":
            return MetaGPT(library, workflows, config.scripts(turns))
        case "llmcompiler":
            return LLMCompiler(library, workflows, scripted, config.max_replans)
        case "taskweaver":
            return TaskWeaver(library, workflows, scripted)
        case "best_fixed":
            return BestFixed(library, workflows)
        case "retrieve_top1":
            return RetrieveTop1(library, workflows, encoder or build_encoder(settings.features), settings.reward)
        case "random":
            return Random(library, workflows, config.seed, settings.max_llm_calls)
        case "agentkb":
            return AgentKB(library, workflows, encoder or build_encoder(settings.features), scripted)
        case "autoflow":
            return AutoFlow(library, workflows, scripted, settings.max_llm_calls)
        case "aflow":
            return AFlow(library, workflows, config.seed, scripted, config.repeats, settings.max_llm_calls)
        case "graphflow":
            return GraphFlow(library, workflows, generator, settings)
        case _:
            raise AssertionError(f"method {config.name!r} is in NAMES but not built")
