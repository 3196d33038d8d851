"""A store on disk: tensors as safetensors, and a JSON manifest that says whose they are and what they must be.

Nothing is unpickled. Every tensor has its SHA-256 in the manifest, so a flipped bit is found and the entry that it
belongs to is named; with ``repair`` that entry alone is left out and learned again from exact runs. The layout is our
choice; `graphflow.kv.files` says how the two files are replaced, `graphflow.kv.manifest` what must fit.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from graphflow.kv.codecs import Encoded
from graphflow.kv.files import Folder, StoreFormatError, content_name
from graphflow.kv.manifest import check_fit, describe, parse, pointer, seal
from graphflow.kv.modes import KVConfig
from graphflow.kv.paths import Key, key_name
from graphflow.kv.snapshot import Run, Snapshot

_T = TypeVar("_T")


@dataclass(frozen=True)
class Loaded:
    """What was read.

    Attributes:
        snapshot: Everything that is whole.
        config: Settings to go on with.
        dropped: A sentence for every damaged entry that was left out; empty without ``repair``.
    """

    snapshot: Snapshot
    config: KVConfig
    dropped: tuple[str, ...]


def save(location: str | os.PathLike[str], snapshot: Snapshot, run: Run, config: KVConfig, wait_s: float) -> None:
    """Write a snapshot; one that is there already is replaced as a whole or not at all.

    Args:
        location: Folder, as a plain path or as any fsspec URL.
        snapshot: What to write.
        run: What it belongs to.
        config: Settings it was made with.
        wait_s: Seconds to wait for another process that is saving to the same place.

    Raises:
        StoreLockedError: The other process took longer.
        OSError: The location cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    body: dict[str, Any] = {"graphflow": _code_version(), "save": uuid.uuid4().hex, **describe(run, config)}
    body["operations"] = []
    for index, (op, (tokens, core)) in enumerate(sorted(snapshot.bases.items())):
        body["operations"].append({"name": op, "tokens": list(tokens), "base": None})
        if core is not None:
            body["operations"][-1]["base"] = f"base.{index}"
            tensors[f"base.{index}"] = core
    body["residuals"] = []
    for index, (key, (encoded, energies)) in enumerate(sorted(snapshot.residuals.items())):
        names = {name: f"residual.{index}.codec.{name}" for name in sorted(encoded.tensors)}
        tensors.update({names[name]: tensor for name, tensor in encoded.tensors.items()})
        tensors[f"residual.{index}.energies"] = torch.stack(energies)
        body["residuals"].append({**_of(key), "codec": names, "energies": f"residual.{index}.energies"})
    body["moments"] = []
    for index, (key, (count, mean, squares)) in enumerate(sorted(snapshot.moments.items())):
        names = {"mean": f"moments.{index}.mean", "squares": f"moments.{index}.squares"}
        tensors.update({names["mean"]: mean, names["squares"]: squares})
        body["moments"].append({**_of(key), "count": count, **names})
    body["deviations"] = []
    for index, (op, (count, sums)) in enumerate(sorted(snapshot.deviations.items())):
        tensors[f"deviations.{index}"] = sums
        body["deviations"].append({"operation": op, "count": count, "sums": f"deviations.{index}"})
    body["statistics"] = {
        "weight": snapshot.weight,
        "until_prune": snapshot.until_prune,
        "traffic": [[*_of(key).values(), value] for key, value in snapshot.traffic],
    }
    tensors = _own(tensors)
    body["tensors"] = {name: _describe(tensor) for name, tensor in tensors.items()}
    data = safetensors.torch.save(tensors)
    body["tensor_file"] = content_name(data)
    Folder(location).publish(data, seal(body), pointer, wait_s)


def load(location: str | os.PathLike[str], run: Run, repair: bool, device: torch.device | str) -> Loaded:
    """Read a snapshot that fits the run.

    Args:
        location: Folder, as a plain path or as any fsspec URL.
        run: What it must belong to.
        repair: Leave damaged entries out instead of refusing the store.
        device: Where the tensors go.

    Raises:
        StoreMismatchError: It belongs to something else; names field, given and expected.
        StoreFormatError: It is not whole, and not to be repaired.
    """
    folder = Folder(location)
    where = f"operation store at {folder.location}"
    try:
        manifest, data = folder.read(pointer)
        body = parse(manifest)
        config = check_fit(folder.location, body, run)
        tensors = safetensors.torch.load(data)
    except StoreFormatError as error:
        raise StoreFormatError(f"{where}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreFormatError(f"{where}: the manifest is not laid out as its version says ({error!r})") from error
    except SafetensorError as error:
        raise StoreFormatError(
            f"{where}: {body['tensor_file']} ({len(data):,} bytes) is not safetensors, or not all of it ({error})"
        ) from error
    reader = _Reader(body["tensors"], tensors, device)
    reader.strangers()
    snapshot = _snapshot(body, reader)
    if reader.damage and not repair:
        raise StoreFormatError(f"{where} is damaged: {'; '.join(reader.damage)} (repair=True leaves such entries out)")
    return Loaded(snapshot, config, tuple(reader.damage))


class _Reader:
    """Hands out tensors that are what the manifest says, and notes those that are not.

    Attributes:
        damage: A sentence for every entry that cannot be used.
    """

    def __init__(self, expected: dict[str, dict[str, Any]], found: dict[str, Tensor], device: torch.device | str):
        self._expected, self._found, self._device = expected, found, device
        self.damage: list[str] = []

    def strangers(self) -> None:
        """Note tensors that the manifest does not know."""
        for name in sorted(self._found.keys() - self._expected.keys()):
            self.damage.append(f"tensor {name!r} is in the file and not in the manifest")

    def entry(self, what: str, names: list[str], build: Callable[..., _T]) -> _T | None:
        """An entry made of some tensors; None, and a note, if one of them is not whole."""
        problems = [problem for name in names if (problem := self._problem(name))]
        if problems:
            self.damage.append(f"{what}: {', '.join(problems)}")
            return None
        return build(*(self._found[name].to(self._device) for name in names))

    def _problem(self, name: str) -> str:
        """What is wrong with a tensor; empty if nothing is."""
        if name not in self._found:
            return f"tensor {name!r} is missing"
        given, expected = _describe(self._found[name]), self._expected.get(name, {})
        for field in ("dtype", "shape"):
            if given[field] != expected.get(field):
                return f"tensor {name!r} has {field} {given[field]}, expected {expected.get(field)}"
        if given["sha256"] != expected["sha256"]:
            return f"tensor {name!r} has SHA-256 {given['sha256'][:12]}..., expected {str(expected['sha256'])[:12]}..."
        return ""


def _snapshot(body: dict[str, Any], reader: _Reader) -> Snapshot:
    """Everything in a manifest that is whole; what belongs to a damaged base goes with it."""
    snapshot = Snapshot(weight=body["statistics"]["weight"], until_prune=body["statistics"]["until_prune"])
    for operation in body["operations"]:
        op, tokens, core = operation["name"], tuple(operation["tokens"]), None
        if operation["base"] is not None:
            core = reader.entry(f"base of {op!r}, with all of its paths", [operation["base"]], lambda kv: kv)
            if core is None:
                continue
        snapshot.bases[op] = (tokens, core)
    for entry in body["residuals"]:
        key, names = _key(entry), entry["codec"]
        _, core = snapshot.bases.get(key[0], ((), None))
        if core is not None:
            shape = tuple(core.shape)
            residual = reader.entry(
                f"residual of {key_name(key)}",
                [entry["energies"], *names.values()],
                lambda energies, *parts, shape=shape, names=names: (
                    Encoded(shape, dict(zip(names, parts, strict=True))),
                    (energies[0], energies[1]),
                ),
            )
            if residual is not None:
                snapshot.residuals[key] = residual
    for entry in body["moments"]:
        key, count = _key(entry), entry["count"]
        if snapshot.bases.get(key[0], ((), None))[1] is not None:
            names = [entry["mean"], entry["squares"]]
            moments = reader.entry(f"moments of {key_name(key)}", names, lambda mean, squares: (mean, squares))
            if moments is not None:
                snapshot.moments[key] = (count, *moments)
    for entry in body["deviations"]:
        op, count = entry["operation"], entry["count"]
        if snapshot.bases.get(op, ((), None))[1] is not None:
            sums = reader.entry(f"deviations of {op!r}", [entry["sums"]], lambda sums: sums)
            if sums is not None:
                snapshot.deviations[op] = (count, sums)
    snapshot.traffic = [((op, tuple(path)), value) for op, path, value in body["statistics"]["traffic"]]
    return snapshot


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, no two of them in one piece of memory."""
    owned, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        owned[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return owned


def _describe(tensor: Tensor) -> dict[str, Any]:
    """Dtype, shape and SHA-256 of the entries in memory order."""
    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(data.data).hexdigest(),
    }


def _of(key: Key) -> dict[str, Any]:
    return {"operation": key[0], "path": list(key[1])}


def _key(entry: dict[str, Any]) -> Key:
    return entry["operation"], tuple(entry["path"])


def _code_version() -> str:
    try:
        return version("graphflow")
    except PackageNotFoundError:
        return "unknown"
