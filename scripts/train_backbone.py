"""Trains a mini backbone on operation traces: the whole recipe, deterministic by seed, resumable.

    python scripts/train_backbone.py --name qwen-mini --tokens 40_000_000 --out runs/qwen-mini

Ends with a folder that `transformers` loads (bf16 safetensors, tokenizer, config) and `training.json`, the record.
The first part of the tokens shows operation prompts cut to their first words, the rest shows them whole (our choice, it
spends the early steps on outputs instead of on prompts).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from graphflow.backbone.packing import Document, Rows, pack
from graphflow.backbone.turns import MINI
from graphflow.benchmarks.mini.traces import make_trace
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.experiment.record import commit, machine_name
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations

SPECIAL = ["<|pad|>", "<|bos|>", "<|task|>", "<|op|>", "<|out|>", "<|tool|>", "<|given|>", "<|end|>"]


@dataclass
class Recipe:
    """Everything that decides the weights; defaults are those of the shipped ones."""

    name: str = "qwen-mini"
    tokens: int = 14_000_000
    short_share: float = 0.75
    growth_share: float = 0.5
    text_weight: float = 0.3
    rows: int = 8
    length: int = 512
    vocabulary: int = 1536
    layers: int = 4
    hidden: int = 256
    intermediate: int = 768
    heads: int = 8
    kv_heads: int = 2
    muon_lr: float = 0.01
    adam_lr: float = 0.003
    warmup_steps: int = 50
    decay_share: float = 0.9
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps in the budget."""
        return self.tokens // (self.rows * self.length)


WEIGHTS = {"gsm8k": 1.0, "math": 1.1, "hotpotqa": 1.1, "humaneval": 0.9, "mbpp": 0.8}


def prompts() -> dict[str, str]:
    """Static prompt of every operation that calls the model."""
    operations = load_operations(CONF / "operations").operations.values()
    return {op.name: op.prompt for op in operations if op.prompt}


def train_tokenizer(size: int, seed: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on traces and prompts; every digit is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer/{seed}")
    texts = [*prompts().values()] * 400
    for _ in range(12_000):
        trace = make_trace(rng.choice(list(WEIGHTS)), rng)
        texts += [trace.root, *(turn.text for branch in trace.branches for turn in branch)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIAL,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|bos|>", eos_token="<|end|>", pad_token="<|pad|>"
    )


class Batches(Dataset[Rows]):
    """Batch number i, made from the seed and i alone, so that a resumed run sees the same ones."""

    def __init__(self, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, split: str = "train"):
        self.recipe, self.writer, self.split = (
            recipe,
            TraceWriter(tokenizer, MINI, prompts(), recipe.text_weight),
            split,
        )

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, index: int) -> Rows:
        rng = random.Random(f"{self.split}/{self.recipe.seed}/{index}")
        short = index < self.recipe.short_share * len(self)
        growth = min(1.0, index / max(1.0, self.recipe.growth_share * len(self)))
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())

        def draw() -> Iterator[Document]:
            trace = make_trace(rng.choices(kinds, weights)[0], rng, growth)
            return self.writer.write(trace, self.recipe.length, short)

        return pack(draw, self.recipe.rows, self.recipe.length)


def build_model(recipe: Recipe, tokenizer: Any) -> Any:
    """The architecture with random weights."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")


def learning_rate(step: int, recipe: Recipe) -> float:
    """Share of the full rate: linear warm-up, constant, linear decay to a fiftieth."""
    start = (1 - recipe.decay_share) * recipe.steps
    decay = 1.0 if step < start else 1 - 0.98 * (step - start) / max(1.0, recipe.steps - start)
    return min(1.0, (step + 1) / recipe.warmup_steps) * decay


def loss_of(model: Any, body: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted loss, and mean cross-entropy and accuracy of the outputs; ``body`` is the model without its head."""
    mask = {"full_attention": rows.mask()}
    hidden = body(
        input_ids=rows.ids, position_ids=rows.positions, attention_mask=mask, use_cache=False
    ).last_hidden_state
    keep = rows.labels >= 0
    logits = model.lm_head(hidden[keep]).float()
    labels = rows.labels[keep]
    weights = rows.weights[keep]
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    outputs = weights == 1
    right = (logits.argmax(-1) == labels)[outputs].float().mean()
    return (losses * weights).sum() / outputs.sum(), losses[outputs].mean().detach(), right


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and "layers." in name]
    other = [p for name, p in named.items() if p.ndim != 2 or "layers." not in name]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=0.01),
        torch.optim.AdamW(other, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(recipe: Recipe, out: Path, resume: bool, compile_model: bool) -> None:
    """Runs the recipe and writes the backbone's folder to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    state_file, log_file = out / "state.pt", out / "log.jsonl"
    if resume and state_file.exists():
        state = torch.load(state_file, weights_only=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    else:
        state, tokenizer = None, train_tokenizer(recipe.vocabulary, recipe.seed)
        tokenizer.save_pretrained(out)
        log_file.unlink(missing_ok=True)
    model = build_model(recipe, tokenizer)
    optims, first = optimisers(model, recipe), 0
    if state:
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optimisers"], strict=True):
            optim.load_state_dict(saved)
        first = state["step"]
    rates = [[group["lr"] for group in optim.param_groups] for optim in optims] if not state else state["rates"]
    runs = list(state["runs"]) if state else []
    if first < recipe.steps:
        runs.append({"first_step": first, "recipe": asdict(recipe)})
    body = torch.compile(model.model, dynamic=False) if compile_model else model.model
    loader = DataLoader(
        torch.utils.data.Subset(Batches(recipe, tokenizer), range(first, recipe.steps)),
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
    )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{recipe.name}: {parameters / 1e6:.2f} M parameters, {recipe.steps} steps from {first}", flush=True)
    started, since, running = time.time(), time.time(), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, log_file.open("a") as log:
        bar = progress.add_task(recipe.name, total=recipe.steps, completed=first)
        for step, rows in enumerate(loader, first):
            for optim, base in zip(optims, rates, strict=True):
                for group, rate in zip(optim.param_groups, base, strict=True):
                    group["lr"] = rate * learning_rate(step, recipe)
            with torch.autocast("cpu", torch.bfloat16):
                loss, output_loss, accuracy = loss_of(model, body, rows)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optim in optims:
                optim.step()
                optim.zero_grad(set_to_none=True)
            if not math.isfinite(loss.item()):
                raise RuntimeError(f"training of {recipe.name} diverged at step {step}: loss {loss.item()}")
            running.append((output_loss.item(), accuracy.item(), rows.filled))
            progress.update(bar, completed=step + 1, description=f"loss {running[-1][0]:.3f}")
            if (step + 1) % 50 == 0:
                mean = [sum(column) / len(running) for column in zip(*running, strict=True)]
                rate = 50 * recipe.rows * recipe.length / (time.time() - since)
                row = {"step": step + 1, "tokens": (step + 1) * recipe.rows * recipe.length, "loss": round(mean[0], 4)}
                row |= {"accuracy": round(mean[1], 4), "filled": round(mean[2], 3), "tokens_per_s": round(rate)}
                log.write(json.dumps(row) + "\n")
                log.flush()
                since, running = time.time(), []
            if (step + 1) % 300 == 0 or step + 1 == recipe.steps:
                saved = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in optims]}
                torch.save(saved | {"step": step + 1, "rates": rates, "runs": runs}, out / "state.tmp")
                (out / "state.tmp").replace(state_file)
                save(model, runs, out, step + 1, parameters, time.time() - started)
    save(model, runs, out, recipe.steps, parameters, time.time() - started)


def save(model: Any, runs: list[dict[str, Any]], out: Path, step: int, parameters: int, seconds: float) -> None:
    """Writes weights in bf16 and the training record."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    curve = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    record: dict[str, Any] = {
        "runs": runs,
        "parameters": parameters,
        "steps": step,
        "seconds_of_last_run": round(seconds),
    }
    record |= {"torch": torch.__version__, "machine": machine_name(), "commit": commit()}
    record["curve"] = curve[:: max(1, len(curve) // 60)]
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--out", type=Path, default=Path("runs/qwen-mini"))
    parser.add_argument("--fresh", action="store_true", help="do not resume from OUT/state.pt")
    parser.add_argument("--no-compile", action="store_true")
    arguments = vars(parser.parse_args())
    out, fresh, plain = (arguments.pop(name) for name in ("out", "fresh", "no_compile"))
    train(Recipe(**arguments), out, not fresh, not plain)


if __name__ == "__main__":
    main()
