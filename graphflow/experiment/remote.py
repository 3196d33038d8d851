"""Cells on a server's model (``backbone.url``): the executor, and what such a cell cannot have."""

from __future__ import annotations

from graphflow.backbone.server import ChatServer
from graphflow.engine.remote.executor import RemoteExecutor, check_settings
from graphflow.engine.sandbox import Sandbox
from graphflow.engine.tools import ToolBox
from graphflow.experiment.compose import ConfigError
from graphflow.experiment.config import Config
from graphflow.generator.features import FeatureKind
from graphflow.kv.modes import KVConfig
from graphflow.methods import Method
from graphflow.methods.asking import Asking
from graphflow.wgraph.library import Library


def remote_executor(
    library: Library, config: Config, kv: KVConfig, sandbox: Sandbox, method: Method | None = None
) -> RemoteExecutor:
    """An executor that asks the server, for a method's workflows or for those of the wGraph.

    Raises:
        BackboneError: There is no key where the config says, or a setting asks for what a server cannot do.
    """
    toolbox = ToolBox(sandbox=sandbox, tools=method.tools if method else {})
    asking = method.asking if method else Asking()
    return RemoteExecutor(ChatServer(config.backbone), asking.library(library), kv, config.engine, toolbox)


def check_remote(config: Config) -> None:
    """See that a cell on a server asks for nothing that needs the model itself; others pass.

    Raises:
        BackboneError: A setting of the store or the engine does.
        ConfigError: The features do.
    """
    if not config.backbone.url:
        return
    check_settings(config.kv, config.engine)
    kind = config.generator.features.kind
    if kind is FeatureKind.BACKBONE:
        allowed = ", ".join(other.value for other in FeatureKind if other is not kind)
        raise ConfigError(
            f"generator.features.kind must be one of {allowed}, since a server gives no hidden states (backbone.url); "
            f"got {kind.value!r}"
        )
