"""Tiny random backbones of the three families: no weights to download, a few thousand parameters each."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from graphflow.backbone.load import Backbone
from graphflow.backbone.turns import MINI

SPECIAL = ["<|pad|>", "<|bos|>", "<|task|>", "<|op|>", "<|out|>", "<|tool|>", "<|given|>", "<|end|>"]
WORDS = "one two three four five six seven eight nine ten solve check fix write answer the code a b c d e f g".split()
COMMON: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "attn_implementation": "eager",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 7,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = ("qwen2", "llama", "gemma2")
WINDOW = 24  # of Gemma's sliding layers: shorter than the contexts that the tests make


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word, unknown words are one token too."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[2:7],
    )


def tiny_model(family: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.nn.Module:
    """A random model; its initialisation is wide enough for attention to matter."""
    torch.manual_seed(seed)
    common = {**COMMON, "initializer_range": 0.3}
    if family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**common))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, rope_parameters=LLAMA3_ROPE))
    else:
        model = Gemma2ForCausalLM(Gemma2Config(**common, sliding_window=WINDOW, query_pre_attn_scalar=8))
    return model.to(dtype).eval()


def tiny_backbone(
    family: str = "qwen2", dtype: torch.dtype = torch.float32, seed: int = 0, shared: bool = False, attention: str = ""
) -> Backbone:
    """A random model with the word tokenizer and the mini turn format."""
    return Backbone(
        f"tiny-{family}",
        tiny_model(family, dtype, seed),
        tiny_tokenizer(),
        MINI,
        attention=attention or ("shared" if shared else "dense"),
    )
