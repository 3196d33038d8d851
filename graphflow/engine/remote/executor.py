"""Serves tasks through workflows over a server's model.

Tasks are admitted, steps are ordered, tools run and episodes are recorded as by the executor on a backbone
(`graphflow.engine.executor`). What differs: a language-model step is a request with its whole context as a chat, so
nothing is known of KV (bytes count 0) and nothing of the first token's time; tokens are those that the server counts;
handing over an episode does not stop the clock, since the server goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.backbone.config import BackboneError
from graphflow.backbone.server import ChatServer
from graphflow.engine.config import EngineConfig
from graphflow.engine.engine import Engine
from graphflow.engine.episode import Task
from graphflow.engine.gate import Build
from graphflow.engine.growth import Grow
from graphflow.engine.remote.dialogue import extend
from graphflow.engine.remote.serving import RemoteServing
from graphflow.engine.schedule import Schedule
from graphflow.engine.tools import ToolBox
from graphflow.kv import KVConfig, StateMode, StoreBytes, Weighting
from graphflow.wgraph.library import Library


class RemoteExecutor(Engine):
    """Serves tasks through workflows, asking a server for every language-model step.

    Attributes:
        server: Whom it asks.
        greeted: True once the server has answered a greeting.

    Args:
        server: Whom to ask.
        library: Operations.
        kv: How operation state is kept: ``stateful``, the only mode without a say in it.
        config: Settings. ``concurrency`` bounds tasks in flight and open requests; what is about the running batch
            (``max_batch``, ``gather``, ``kv_dtype``) has no meaning here.
        toolbox: What tools use; made from ``config.sandbox`` where None.

    Raises:
        BackboneError: A setting asks for what only a model that is loaded here can do.
    """

    def __init__(
        self, server: ChatServer, library: Library, kv: KVConfig, config: EngineConfig, toolbox: ToolBox | None = None
    ) -> None:
        check_settings(kv, config)
        super().__init__(library, config, toolbox, extend)
        self.server, self.greeted = server, False

    def store_bytes(self) -> StoreBytes:
        """Nothing: what is kept is the server's."""
        return StoreBytes(0, 0, 0, 0)

    def _open(self, tasks: Sequence[Task], build: Build, grow: Grow | None) -> RemoteServing:
        return RemoteServing(self, tasks, build, grow)


def check_settings(kv: KVConfig, config: EngineConfig) -> None:
    """See that settings ask for nothing that a server cannot do.

    Raises:
        BackboneError: One does.
    """
    local = "a server keeps its own state (backbone.url)"
    demands = (
        ("kv.mode", kv.mode.value, StateMode.STATEFUL.value),
        ("kv.dynamic_codec", kv.dynamic_codec, "none"),
        ("kv.saliency", kv.saliency.value, Weighting.NONE.value),
        ("engine.fidelity", config.fidelity, 0),
        ("engine.memory_bytes", config.memory_bytes, 0),
        ("engine.prefill_chunk", config.prefill_chunk, 0),
        ("engine.prefetch", config.prefetch, 0),
    )
    for name, given, allowed in demands:
        if given != allowed:
            raise BackboneError(f"{name} must be {allowed}, since {local}; got {given!r}")
    if config.scheduler == Schedule.RESIDENT_FIRST.value:
        known = [kind.value for kind in Schedule if kind is not Schedule.RESIDENT_FIRST]
        raise BackboneError(f"engine.scheduler must be {', '.join(known)}, since {local}; got {config.scheduler!r}")
