"""Where an interrupted training goes on: one file with its state, and with what it was a training of.

The file is a line that names the format, the SHA-256 of the rest, and the rest, written by `torch.save` (our choice: a
flipped bit in a tensor would load without a word otherwise).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from graphflow.generator.generator import Generator, GeneratorConfig, plain, wgraph_fingerprint
from graphflow.generator.outcomes import OutcomeTable
from graphflow.wgraph.wgraph import WGraph

HEAD = b"graphflow generator checkpoint 1\n"
DIGEST = hashlib.sha256().digest_size


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that is one of another training."""


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file (temp file, then rename); the state holds tensors, plain values, lists and dictionaries."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(HEAD + hashlib.sha256(content.getvalue()).digest() + content.getvalue())
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    """The state that `write` was given.

    Raises:
        CheckpointError: The file is no checkpoint of this format, or it is damaged.
    """
    raw = path.read_bytes()
    if not raw.startswith(HEAD):
        raise CheckpointError(f"{path} does not begin as a checkpoint of a generator does ({HEAD.decode().strip()!r})")
    digest, content = raw[len(HEAD) :][:DIGEST], raw[len(HEAD) + DIGEST :]
    if hashlib.sha256(content).digest() != digest:
        raise CheckpointError(f"{path} is damaged: its content is not what was written; delete it to train anew")
    return torch.load(io.BytesIO(content), weights_only=True)


def identity(config: GeneratorConfig, wgraph: WGraph, table: OutcomeTable, start: Generator | None) -> dict[str, str]:
    """What a training is one of, by name: every setting, and digests of the graph, the outcomes and first weights."""
    weights = "new" if start is None else _digest(*(value.numpy().tobytes() for value in _weights(start)))
    return {
        **dict(_settings("generator", plain(asdict(config)))),
        "wGraph": wgraph_fingerprint(wgraph),
        "outcomes": f"{len(table)} rows {_digest(table.frame.to_csv(index=False).encode())}",
        "first weights": weights,
    }


def check(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """See that a checkpoint is one of the training that is to go on.

    Args:
        path: Where it was read.
        found: The `identity` that was stored with it.
        wanted: That of this training.

    Raises:
        CheckpointError: They differ; the message says in what.
    """
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        pairs = "; ".join(f"{name} is {found.get(name)} there and {wanted.get(name)} here" for name in names)
        raise CheckpointError(f"{path} is the checkpoint of another training: {pairs}; delete it, or name another file")


def _settings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _settings(f"{name}.{key}", item)
    else:
        yield name, str(value)


def _weights(start: Generator) -> Iterator[torch.Tensor]:
    return (value.detach().cpu().contiguous() for value in start.model.state_dict().values())


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:12]
