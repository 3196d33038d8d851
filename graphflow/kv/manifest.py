"""The manifest of a saved store: sealed by its own checksum, read strictly, compared with the run that loads it.

The layout is our choice; `VERSION` changes with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from enum import Enum
from typing import Any

from graphflow.kv.files import MANIFEST, TENSORS, StoreFormatError
from graphflow.kv.modes import KVConfig
from graphflow.kv.snapshot import Run

FORMAT = "graphflow operation store"
VERSION = 2

# Settings under which what is stored stays what it is. Any other, new ones too, must be as it was.
FREE_SETTINGS = frozenset(
    {
        "mode",
        "scope",
        "min_observations",
        "coverage",
        "decay",
        "hysteresis",
        "judges_exact",
        "prune_every",
        "workspace_items",
        "workspace_bytes",
        "store_bytes",
        "tracked_paths",
        "learning_paths",
        "dynamic_codec",
        "dynamic_density",
        "rerun",
        "exact_rows",
        "store",
    }
)


class StoreMismatchError(ValueError):
    """A saved store that belongs to another run.

    Attributes:
        field: What differs.
        given: What the saved store says.
        expected: What this run needs.
    """

    def __init__(self, location: str, field: str, given: object, expected: object) -> None:
        super().__init__(
            f"operation store at {location} does not fit: {field} is {given} in the store, expected {expected}"
        )
        self.field, self.given, self.expected = field, given, expected


def seal(body: dict[str, Any]) -> bytes:
    """A manifest as bytes, with format, version and checksum."""
    body = {"format": FORMAT, "version": VERSION, **body}
    return json.dumps({**body, "checksum": _digest(body)}, indent=1).encode()


def pointer(manifest: bytes) -> str:
    """Name of the tensor file that a manifest names, before anything else in it is believed.

    Raises:
        StoreFormatError: Not a manifest, or of another format version.
    """
    return str(_read(manifest)["tensor_file"])


def parse(manifest: bytes) -> dict[str, Any]:
    """A manifest whose checksum holds.

    Raises:
        StoreFormatError: Not a manifest, of another format version, or damaged.
    """
    body = _read(manifest)
    said = body.pop("checksum", None)
    if said != (found := _digest(body)):
        raise StoreFormatError(f"{MANIFEST} is damaged: its SHA-256 is {found[:12]}..., it says {str(said)[:12]}...")
    return body


def describe(run: Run, config: KVConfig) -> dict[str, Any]:
    """The part of a manifest that says whose state this is."""
    shape = run.shape
    return {
        "model": dataclasses.asdict(run.model),
        "kv": {
            "layers": shape.layers,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "dtype": str(shape.dtype).removeprefix("torch."),
        },
        "rope": run.rope_digest,
        "config": plain(config),
    }


def plain(config: KVConfig) -> dict[str, Any]:
    """Settings as JSON has them."""
    fields = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return json.loads(json.dumps({name: value.value if isinstance(value, Enum) else value for name, value in fields}))


def check_fit(location: str, body: dict[str, Any], run: Run) -> KVConfig:
    """Refuse a store of another model, shape, prompt or codec.

    Returns:
        The settings to go on with: the run's, or those that were saved where it has none.

    Raises:
        StoreMismatchError: The first difference.
        ValueError: Saved settings that are out of range today.
    """

    def same(field: str, given: object, expected: object) -> None:
        if given != expected:
            raise StoreMismatchError(location, field, given, expected)

    model = body["model"]
    if model["fingerprint"] != run.model.fingerprint:
        given, expected = (
            f"{one['fingerprint']} ({one['name']}{'@' if one['revision'] else ''}{one['revision']})"
            for one in (model, dataclasses.asdict(run.model))
        )
        raise StoreMismatchError(location, "model.fingerprint", given, expected)
    same("model.tokenizer", model["tokenizer"], run.model.tokenizer)
    saved = _known_settings(location, body["config"])
    config = run.config or saved
    wanted = describe(run, config)
    for field in ("dtype", "layers", "kv_heads", "head_dim"):
        same(f"kv.{field}", body["kv"][field], wanted["kv"][field])
    same("rope", body["rope"], wanted["rope"])
    given, expected = plain(saved), plain(config)
    for field in sorted(expected.keys() - FREE_SETTINGS):
        same(f"config.{field}", given[field], expected[field])
    same("config.scope", _scope(saved), _scope(config))
    if run.prompts is not None:
        for operation in body["operations"]:
            name, tokens = operation["name"], operation["tokens"]
            if name not in run.prompts:
                raise StoreMismatchError(location, f"prompt of {name!r}", _tokens(tokens), "no such operation")
            if tokens != list(run.prompts[name]):
                raise StoreMismatchError(location, f"prompt of {name!r}", _tokens(tokens), _tokens(run.prompts[name]))
    return config


def _known_settings(location: str, saved: dict[str, Any]) -> KVConfig:
    """Settings that were saved; what was not a setting yet has its default."""
    unknown = sorted(saved.keys() - {field.name for field in dataclasses.fields(KVConfig)})
    if unknown:
        raise StoreMismatchError(location, f"config.{unknown[0]}", saved[unknown[0]], "no such setting")
    return KVConfig(**saved)


def _scope(config: KVConfig) -> str:
    """What of a prompt is stored."""
    return "request (whole prompts)" if config.per_request else "path (prompts without head and tail)"


def _tokens(tokens: Sequence[int]) -> str:
    return f"{len(tokens)} tokens (SHA-256 {hashlib.sha256(json.dumps(list(tokens)).encode()).hexdigest()[:12]}...)"


def _read(manifest: bytes) -> dict[str, Any]:
    """JSON that is a manifest of this version."""
    if not manifest:
        raise StoreFormatError(f"{MANIFEST} is empty")
    try:
        body = json.loads(manifest)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreFormatError(f"{MANIFEST} is not JSON, or not all of it ({error})") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise StoreFormatError(f'{MANIFEST} is JSON of something else: it has no "format": "{FORMAT}"')
    if body.get("version") != VERSION:
        raise StoreFormatError(f"{MANIFEST}: format version is {body.get('version')}, expected {VERSION}")
    if not TENSORS.fullmatch(str(body.get("tensor_file"))):
        raise StoreFormatError(f"{MANIFEST} names no tensor file of ours, got {body.get('tensor_file')!r}")
    return body


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
