"""Backbones: a Hugging Face causal language model with its tokenizer, turn format and rotary embedding."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from graphflow.backbone.cache import Placed, ResidualCache
from graphflow.backbone.checksums import check_checksums
from graphflow.backbone.compat import attention_for, body, check_family, logits_of, rope_of
from graphflow.backbone.config import DTYPES, BackboneConfig, BackboneError
from graphflow.backbone.grouped_attention import use_grouped_attention
from graphflow.backbone.lanes import Lanes
from graphflow.backbone.shared_attention import use_shared_attention
from graphflow.backbone.shared_batch import ResidualBatch, SharedBatch
from graphflow.backbone.turns import TurnFormat, Written, turn_format
from graphflow.kv.accounting import KVShape
from graphflow.kv.rope import Rope
from graphflow.kv.snapshot import ModelIdentity
from graphflow.paths import ASSETS
from graphflow.wgraph.operation import Operation

BATCHES = {"dense": ResidualCache, "shared": SharedBatch, "residual": ResidualBatch}
READ_BY_ATTENTION = (
    *("sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "attn_logit_softcapping"),
    *("query_pre_attn_scalar", "rms_norm_eps", "hidden_act", "hidden_activation"),
)
"""What a model's KV hangs on besides its weights and its rotary embedding."""


class Backbone:
    """A model that contexts run on.

    Attributes:
        name: Name in tables.
        model: The causal language model, in eval mode.
        tokenizer: Its tokenizer.
        turns: Its turn format.
        revision: Commit or tag on the hub, for messages.
        rope: Its rotary embedding.
        stops: Ids that end an output, the one that a context holds first.
        fingerprint: Hash of the weights' shapes, a sample of their values, and what else attention reads: whose state
            a store holds.

    Args:
        attention: How contexts of a batch are held, see `BackboneConfig`; the model is changed to attend accordingly.

    Raises:
        UnsupportedModelError: If the family is not known.
        UnsupportedRopeError: If keys of this model cannot be moved.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Any,
        turns: TurnFormat,
        revision: str = "",
        attention: str = "dense",
    ):
        check_family(model.config)
        self._batch = BATCHES[attention]
        # Grouped attention is the fused one's; where scores are soft-capped, the shared one does without segments.
        grouped = attention == "dense" and attention_for(model.config) == "sdpa"
        (use_grouped_attention if grouped else use_shared_attention)(model)
        self.revision = revision
        self.name, self.model, self.tokenizer, self.turns = name, model.eval(), tokenizer, turns
        self.rope: Rope = rope_of(model)
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.device: torch.device = next(model.parameters()).device
        self.stops = stop_ids(tokenizer, turns)
        self.fingerprint = _fingerprint(model)

    def shape(self, dtype: torch.dtype) -> KVShape:
        """Shape of the model's KV, kept in ``dtype``."""
        config: Any = self.model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return KVShape(config.num_hidden_layers, config.num_key_value_heads, head_dim, dtype)

    @cached_property
    def identity(self) -> ModelIdentity:
        """Whose KV a store holds."""
        tokenizer = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        return ModelIdentity(self.name, self.fingerprint, tokenizer, self.revision)

    @property
    def stop(self) -> int:
        """The token that ends an output and that a context holds; once it is set, no other token ends outputs."""
        return self.stops[0]

    @stop.setter
    def stop(self, token: int) -> None:
        self.stops = (token,)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Finds names of special tokens."""
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        return re.compile("|".join(re.escape(token.content) for token in added if token.special) or "(?!)")

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer with no special tokens: their names are text."""
        plain = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        plain.encode_special_tokens = True
        return plain

    def encode(self, text: str) -> list[int]:
        """Token ids of a whole segment; special tokens are those that the turn format wrote, see `Written`."""
        if not isinstance(text, Written) or not self._special.search(text.given):
            return self.tokenizer(text, add_special_tokens=False)["input_ids"]
        begins = max((mark.end() for mark in self._special.finditer(text.before)), default=0)
        mark = self._special.search(text.after)
        ends = mark.start() if mark else len(text.after)
        plain = text.before[begins:] + text.given + text.after[:ends]
        ids = self._plain.encode(plain, add_special_tokens=False).ids
        return [*self.encode(text.before[:begins]), *ids, *self.encode(text.after[ends:])]

    def has_room(self, operation: Operation, text: str) -> bool:
        """Whether a context has room for a task of this text, the operation's prompt and all that it may write."""
        read = [self.turns.write_task(text), self.turns.write_operation(operation.prompt)]
        config: Any = self.model.config
        return sum(len(self.encode(one)) for one in read) + operation.max_tokens <= config.max_position_embeddings

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an output, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def batch(self, rows: Sequence[Placed], shape: KVShape) -> ResidualCache:
        """A cache that begins with the pieces of some contexts (`ResidualCache`), shared ones once if so configured.

        Args:
            rows: For every context its pieces and their offsets.
            shape: Shape of the KV, see `shape`.
        """
        return self._batch(rows, self.rope, shape, self.dtype, self.device)

    def lanes(self, shape: KVShape) -> Lanes:
        """An empty batch whose rows come and go.

        Args:
            shape: Shape of the KV, see `shape`.
        """
        return Lanes(lambda: self.batch((), shape))

    @torch.inference_mode()
    def forward(self, ids: Tensor, positions: Tensor, cache: ResidualCache | Lanes) -> Tensor:
        """Runs new tokens and appends their KV to the cache.

        Args:
            ids: int64 (batch, new).
            positions: int64 (batch, new), -1 where a row has no token.
            cache: What came before.

        Returns:
            (batch, new, hidden) final hidden states.
        """
        hidden = body(self.model)(
            input_ids=ids,
            position_ids=positions.clamp(min=0),
            attention_mask=cache.masks(self.model.config, positions, self.dtype),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        cache.advance(positions)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits, float32 (..., vocabulary)."""
        return logits_of(self.model, hidden)


def stop_ids(tokenizer: Any, turns: TurnFormat) -> tuple[int, ...]:
    """Ids of the tokens that end an output, as far as the tokenizer has them; the first is that of ``turns.stop``."""
    there = tokenizer.get_vocab()
    others = (there[token] for token in turns.ends if token in there)
    return tuple(dict.fromkeys((tokenizer.convert_tokens_to_ids(turns.stop), *others)))


def check_device(name: str, device: str) -> None:
    """Refuses a device that torch does not know or does not find.

    Args:
        name: What it is called in the message.
        device: For example ``cpu`` or ``cuda:0``.

    Raises:
        ValueError: Names the field, what was given and what is allowed.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"{name} must be a torch device such as cpu or cuda:0, got {device!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name} must be cpu on this machine (torch finds no GPU), got {device!r}")


def _fingerprint(model: nn.Module) -> str:
    config: Any = model.config
    read = {name: getattr(config, name, None) for name in READ_BY_ATTENTION}
    digest = hashlib.sha256(json.dumps(read, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 64)].float().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:12]


def load_backbone(config: BackboneConfig) -> Backbone:
    """Loads the model, its tokenizer and its turn format.

    Raises:
        BackboneError: If the folder or the hub's repository cannot be read, or the model is a server's; the message
            names the ways out.
        ChecksumError: If the folder has a ``SHA256SUMS`` and a file differs from it.
        ValueError: For a device that is not there.
    """
    if config.url:
        raise BackboneError(
            f"backbone.url must be empty where the model itself is needed, its states or its tokens, got {config.url!r}"
        )
    if not config.device_map:
        check_device("device", config.device)
    source = config.path or config.hub_id or str(ASSETS / config.name)
    if not config.hub_id and not (Path(source) / "config.json").exists():
        shipped = sorted(p.parent.name for p in ASSETS.glob("*/config.json"))
        raise BackboneError(
            f"backbone.path: no model in {source}; shipped backbones are {', '.join(shipped) or 'none'}, "
            "or set backbone.path to a local folder or backbone.hub_id to a hub repository"
        )
    if Path(source).is_dir():
        check_checksums(Path(source))
    extra: dict[str, Any] = {"revision": config.revision} if config.revision and not config.path else {}
    try:
        tokenizer = load_tokenizer(source, **extra)
        declared = AutoConfig.from_pretrained(source, **extra)
        how: dict[str, Any] = {"dtype": DTYPES[config.dtype], "attn_implementation": attention_for(declared)}
        if config.random:
            torch.manual_seed(config.seed)
            model = AutoModelForCausalLM.from_config(declared, **how)
        else:
            placed = {"device_map": config.device_map} if config.device_map else {}
            model = AutoModelForCausalLM.from_pretrained(source, **how, **placed, **extra)
    except OSError as error:
        raise BackboneError(
            f"backbone {config.name!r}: {source} could not be read ({str(error).splitlines()[0]}); "
            "set backbone.path to a local folder, or give this machine access to the hub"
        ) from error
    if not config.device_map:
        model = model.to(config.device)  # type: ignore[arg-type]
    turns = turn_format(config.turns)
    return Backbone(config.name, model, tokenizer, turns, config.revision, config.attention)


def load_tokenizer(source: str, **extra: Any) -> Any:
    """The tokenizer that a folder or repository declares.

    `AutoTokenizer` takes Qwen2's own class for every Qwen2 model, and that cuts words by Qwen2's rules whatever
    ``tokenizer.json`` says; a tokenizer that declares the general class is loaded as it is.

    Args:
        source: Folder or hub id.
        extra: Further arguments of ``from_pretrained``, for example ``revision``.
    """
    declared = get_tokenizer_config(source, **extra).get("tokenizer_class")
    general = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if general else AutoTokenizer).from_pretrained(source, **extra)


def training_record(name: str) -> dict[str, Any]:
    """The training record of a shipped backbone; empty where there is none."""
    file = ASSETS / name / "training.json"
    return json.loads(file.read_text()) if file.exists() else {}
