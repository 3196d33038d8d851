"""Which backbone: a model that is loaded here, or one that a server has."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ATTENTIONS = ("dense", "shared", "residual")
SERVER = ("url", "model", "key_env", "timeout_s", "retries", "backoff_s")
"""Settings of a server; the others are of a model that is loaded here."""
SERVER_TURNS = ("chat", "mini")


class BackboneError(ValueError):
    """A backbone that cannot be loaded, or asked, as configured."""


@dataclass
class BackboneConfig:
    """Which model to load.

    Attributes:
        name: Name in tables; also the folder in the package's assets where neither path nor hub id is given.
        path: Local folder in Hugging Face format.
        hub_id: Repository on the hub.
        revision: Commit or tag on the hub.
        dtype: float32, bfloat16 or float16: what the model computes in.
        device: Torch device, where ``device_map`` is empty.
        device_map: Given to accelerate, for example ``auto``.
        turns: Turn format: mini, qwen, llama or gemma. A server writes turns itself: there ``chat``, or ``mini`` where
            methods are to ask as they ask the mini backbones (short operations, scripts for plans).
        planner: Whether a model of turn format mini was taught to write what methods ask besides answers: plans, flows,
            edits of workflows. For those that were not, scripts write them (`MethodConfig.scripted`).
        attention: ``dense`` builds every context of a batch in full; ``shared`` holds a segment that several contexts
            of the batch have once, and reads it once for all of them; ``residual`` does that and reads what is kept as
            base and sparse residual without reconstructing it, by a Triton kernel on CUDA and a layer at a time
            elsewhere (with ``kv.workspace_items=0`` the store does not decode either).
        random: Random weights of the architecture (for memory and latency, where values do not matter).
        seed: Seed of random weights.
        url: An OpenAI-compatible server, for example ``http://127.0.0.1:8000/v1``, that is asked in place of a model
            that is loaded here; empty for none. Of the settings above it knows ``name``, ``turns`` and
            ``planner`` alone.
        model: Name that the server knows the model by.
        key_env: Name of the environment variable with the server's key; empty sends none. The key is no setting.
        timeout_s: Seconds that one try of a request may take.
        retries: Further tries of a request that was not answered, or by status 408, 409, 429 or 5xx.
        backoff_s: Seconds before the first of them, doubled for each further one; the server may ask for more.

    Raises:
        ValueError: A field out of range; the message names field, allowed values and value.
    """

    name: str = "qwen-mini"
    path: str = ""
    hub_id: str = ""
    revision: str = ""
    dtype: str = "float32"
    device: str = "cpu"
    device_map: str = ""
    turns: str = "mini"
    planner: bool = False
    attention: str = "dense"
    random: bool = False
    seed: int = 0
    url: str = ""
    model: str = ""
    key_env: str = ""
    timeout_s: float = 300.0
    retries: int = 5
    backoff_s: float = 0.5

    def __post_init__(self) -> None:
        for name, known in (("dtype", DTYPES), ("attention", ATTENTIONS)):
            if getattr(self, name) not in known:
                raise ValueError(f"backbone.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if not self.timeout_s > 0:
            raise ValueError(f"backbone.timeout_s must be above 0, got {self.timeout_s}")
        for name in ("retries", "backoff_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"backbone.{name} must be 0 or more, got {getattr(self, name)}")
        if self.key_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_env):
            raise ValueError(
                "backbone.key_env must be the name of an environment variable (capitals, digits and underscores), "
                "never a key; what was given is not shown"
            )
        if self.url:
            self._check_server()
        elif self.model or self.key_env:
            name = "model" if self.model else "key_env"
            raise ValueError(f"backbone.{name} must be '' without backbone.url, got {getattr(self, name)!r}")

    def _check_server(self) -> None:
        if set("@?#") & set(self.url):
            raise ValueError(
                "backbone.url must hold no user, password, query or fragment (backbone.key_env names where a key is); "
                "what was given is not shown"
            )
        if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+)(:[0-9]{1,5})?(/\S*)?", self.url):
            raise ValueError(f"backbone.url must be of the form http://host:port/v1, got {self.url!r}")
        if not self.model:
            raise ValueError("backbone.model must be the name that the server at backbone.url knows a model by, got ''")
        if self.turns not in SERVER_TURNS:
            allowed = " or ".join(SERVER_TURNS)
            raise ValueError(f"backbone.turns must be {allowed} with backbone.url, got {self.turns!r}")
        for name, none in (("path", ""), ("hub_id", ""), ("random", False), ("attention", "dense")):
            if getattr(self, name) != none:
                raise ValueError(f"backbone.{name} must be {none!r} with backbone.url, got {getattr(self, name)!r}")

    def identity(self) -> dict[str, Any]:
        """The settings that answers hang on: which model; how often and how long a server is asked is none of them."""
        here = [field.name for field in fields(self) if field.name not in SERVER]
        return {name: getattr(self, name) for name in (("name", "turns", "url", "model") if self.url else here)}
