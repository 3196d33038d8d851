"""Shared-segment attention against materialised contexts: time and bytes of a decode step, whole model included.

python scripts/bench_shared_attention.py --batches 1 8 32 --repeats 9

A context is a task, then four times an operation's prompt and an output; the texts of a context have 200 tokens
together, cut differently in each, so that prompts lie at different offsets. ``one workflow`` means that all contexts
hold the same four prompts, ``pool of 12`` that each holds four drawn from twelve; ``uneven`` prompts have 100 to 160
tokens, others 130.

Three ways are run in turn in every repeat: ``dense`` (`ResidualCache`, the model's own attention), ``shared``
(`SharedBatch`), and ``unshared``: the code of ``shared`` over copies, of which no two contexts hold the same, so that
what sharing gives can be told from what growing in place gives. A ratio is the median of the paired ratios of all
repeats, its quartiles behind it; under 1 the first is faster. Times are CPU time on a CPU, wall time on a GPU. Weights
and KV are random: values do not matter here.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from graphflow.backbone.cache import Placed, ResidualCache
from graphflow.backbone.compat import attention_for
from graphflow.backbone.load import DTYPES, Backbone, BackboneConfig, load_backbone
from graphflow.backbone.shared_batch import SharedBatch
from graphflow.kv import Context, Segment, SegmentKind
from graphflow.paths import ASSETS

PROMPT, TEXT, OPERATIONS, POOL = 130, 200, 4, 12
SHAPES = {
    "tiny": {"hidden_size": 32, "intermediate_size": 48, "head_dim": 8, "vocab_size": 64},
    "qwen-mini": {},
}
CASES = {"one workflow": (OPERATIONS, 0), "pool of 12": (POOL, 0), "pool of 12, uneven": (POOL, 30)}


def build(shape: str, dtype: str, device: str, shared: bool) -> Backbone:
    """A random model of a shape."""
    like = load_backbone(BackboneConfig())
    config = AutoConfig.from_pretrained(ASSETS / "qwen-mini")
    config.update(SHAPES[shape])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype], attn_implementation=attention_for(config))
    attention = "shared" if shared else "dense"
    return Backbone(shape, model.to(device), like.tokenizer, like.turns, attention=attention)


def segment(backbone: Backbone, length: int, kind: SegmentKind) -> Segment:
    """A piece of random KV."""
    kv = torch.randn(backbone.shape(backbone.dtype).of(length), dtype=backbone.dtype, device=backbone.device)
    return Segment((0,) * length, kv, kind, shared=kind is SegmentKind.OPERATION)


def contexts(backbone: Backbone, batch: int, pool: int, uneven: int, seed: int) -> list[Placed]:
    """Rows of a batch."""
    rng = random.Random(seed)
    prompts = [segment(backbone, PROMPT + rng.randint(-uneven, uneven), SegmentKind.OPERATION) for _ in range(pool)]
    rows = []
    for _ in range(batch):
        cuts = sorted(rng.sample(range(1, TEXT), OPERATIONS))
        texts = [stop - start for start, stop in zip([0, *cuts], [*cuts, TEXT], strict=True)]
        context = Context().append(segment(backbone, texts[0], SegmentKind.DYNAMIC))
        for prompt, text in zip(rng.sample(prompts, OPERATIONS), texts[1:], strict=True):
            context = context.append(prompt).append(segment(backbone, text, SegmentKind.DYNAMIC))
        rows.append(context.pieces)
    return rows


def copied(rows: Sequence[Placed]) -> list[Placed]:
    """The same rows over pieces of their own."""
    return [tuple((replace(piece), offset) for piece, offset in row) for row in rows]  # type: ignore[type-var]


def seconds(backbone: Backbone, cache: ResidualCache, positions: torch.Tensor, steps: int) -> float:
    """Time of some decode steps."""
    gpu, clock = (
        backbone.device.type == "cuda",
        time.perf_counter if backbone.device.type == "cuda" else time.process_time,
    )
    ids = torch.zeros_like(positions)
    if gpu:
        torch.cuda.synchronize()
    start = clock()
    for step in range(steps):
        backbone.logits(backbone.forward(ids, positions + step, cache)[:, -1])
    if gpu:
        torch.cuda.synchronize()
    return clock() - start


def ratio(first: Sequence[float], second: Sequence[float]) -> str:
    """Median and quartiles of paired ratios."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(first, second, strict=True)], n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def measure(dense: Backbone, shared: Backbone, case: str, batch: int, repeats: int, steps: int) -> str:
    """One line of the table."""
    rows = contexts(dense, batch, *CASES[case], seed=batch)
    shape = dense.shape(dense.dtype)
    runs: dict[str, tuple[Backbone, ResidualCache]] = {}
    built: dict[str, float] = {}
    for name, backbone, kind, placed in (
        ("dense", dense, ResidualCache, rows),
        ("shared", shared, SharedBatch, rows),
        ("unshared", shared, SharedBatch, copied(rows)),
    ):
        start = time.process_time()
        runs[name] = backbone, kind(placed, backbone.rope, shape, backbone.dtype, backbone.device)
        built[name] = time.process_time() - start
    positions = torch.tensor([[row[-1][1] + row[-1][0].length] for row in rows], device=dense.device)
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):  # the first warms up
        for name in sorted(runs, key=lambda name: (repeat + list(runs).index(name)) % len(runs)):
            taken = seconds(*runs[name], positions + repeat * steps, steps)
            if repeat:
                spent[name].append(taken)
    times = " ".join(f"{1000 * statistics.median(values) / steps:9.2f}" for values in spent.values())
    builds = " ".join(f"{1000 * built[name]:7.1f}" for name in ("dense", "shared"))
    size = " ".join(f"{runs[name][1].nbytes / 1e6:7.2f}" for name in ("dense", "shared"))
    return (
        f"{dense.name:9} {case:19} {batch:5} {times} {ratio(spent['shared'], spent['dense']):>19} "
        f"{ratio(spent['shared'], spent['unshared']):>19} {builds} {size}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(
        f"{'':35} {'ms a step':>29} {'ratio of times':>39} {'ms to build':>15} {'MB held':>15}\n"
        f"{'shape':9} {'case':19} batch {'dense':>9} {'shared':>9} {'unshared':>9} {'shared/dense':>19} "
        f"{'shared/unshared':>19} {'dense':>7} {'shared':>7} {'dense':>7} {'shared':>7}"
    )
    for shape in arguments.shapes:
        dense, shared = (build(shape, arguments.dtype, arguments.device, own) for own in (False, True))
        for case in arguments.cases:
            for batch in arguments.batches:
                print(measure(dense, shared, case, batch, arguments.repeats, arguments.steps), flush=True)


if __name__ == "__main__":
    main()
