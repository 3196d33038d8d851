"""What every codec costs and loses, on real residuals of the shipped backbone and at the shape of a real one.

python scripts/bench_codecs.py --out results/kv/codecs_speed.csv

Cases: ``path`` (mean of a path minus the base, the core of the prompt as the store keeps it), ``request`` (one unseen
request minus the base), ``dynamic`` (KV of task texts against zero), ``7B`` (random, 28 layers, 4 heads, 100 tokens).
Errors are relative, pooled over the residuals of a case; ``weighted`` counts by saliency (keys and values half each)
and encodes by it too. Times are the least of some repetitions; decoding includes adding the base and rounding to its
dtype; ``of prefill`` is that over prefilling as many tokens (for 7B a lower bound: the projections alone).
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphflow.backbone.cache import ResidualCache
from graphflow.backbone.load import Backbone, BackboneConfig, load_backbone
from graphflow.backbone.saliency import Saliency, gather
from graphflow.benchmarks.mini.traces import Role, make_trace
from graphflow.benchmarks.mini.writing import TraceWriter
from graphflow.kv.accounting import tensor_bytes
from graphflow.kv.allocation import sparse_densities
from graphflow.kv.codecs import (
    Codec,
    DenseCodec,
    IntegerCodec,
    LowRankCodec,
    MeanShiftCodec,
    RowsCodec,
    Share,
    SparseCodec,
)
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations

KINDS = ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp")
HEAD, TAIL = 1, 1  # tokens of a prompt that always run (defaults of the store)
COLUMNS = ("case", "codec", "setting", "bytes", "of bf16", "error", "weighted", "encode ms", "decode ms", "of prefill")
DENSITIES = (0.05, 0.1, 0.25, 0.5)
LEVELS = (0.5, 0.3, 0.2, 0.1)


@dataclass
class Case:
    """Residuals that are measured together, with their weights and the time to prefill their tokens, all together."""

    name: str
    residuals: list[Tensor]
    weights: list[Tensor | None]
    prefill_s: float


@dataclass
class Setting:
    """A codec as configured; ``build`` sees the residual and its weight, for settings that are allocated."""

    codec: str
    name: str
    build: Callable[[Tensor, Tensor | None], Codec]


def settings() -> list[Setting]:
    """Every codec at a few settings."""

    def fixed(codec: str, name: str, built: Codec) -> Setting:
        return Setting(codec, name, lambda residual, weight: built)

    def filled(density: float, shift: bool) -> Setting:
        """The bytes of an even density, shared by layers and sides where they save most."""

        def build(residual: Tensor, weight: Tensor | None) -> Codec:
            nbytes = SparseCodec(density, 8).encode(residual).nbytes
            rest = residual - residual.mean(dim=3, keepdim=True) if shift else residual
            table = sparse_densities([rest], [weight], 8, nbytes=nbytes)[0]
            return MeanShiftCodec(table, 8) if shift else SparseCodec(table, 8)

        return Setting("mean8 filled" if shift else "sparse8 filled", f"{density}", build)

    rows = [fixed("dense", "16 bit", DenseCodec(16))]
    rows += [fixed(f"int{bits}", f"group {group}", IntegerCodec(bits, group)) for bits in (8, 4) for group in (32, 128)]
    for density in DENSITIES:
        name = f"{density}"
        rows += [
            fixed("sparse16", name, SparseCodec(density)),
            fixed("sparse8", name, SparseCodec(density, 8)),
            filled(density, False),
            filled(density, True),
            fixed("mean_shift8", name, MeanShiftCodec(density, 8)),
            *(fixed(f"rows8 {share.value}", name, RowsCodec(density, 8, share=share)) for share in Share),
            fixed("low_rank", name, LowRankCodec(density)),
        ]
    rows.append(fixed("mean_shift8", "0", MeanShiftCodec(0, 8)))
    return sorted(rows, key=lambda row: row.codec)


def best_of(repeats: int, work: Callable[[], object]) -> float:
    """Least seconds of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(case: Case, setting: Setting, repeats: int) -> dict[str, str | int | float]:
    """One row of the table."""
    nbytes = dense = 0
    encode_s = decode_s = missed = whole = weighted = 0.0
    for residual, weight in zip(case.residuals, case.weights, strict=True):
        codec = setting.build(residual, weight)
        encoded = codec.encode(residual, weight)
        nbytes += encoded.nbytes
        dense += tensor_bytes(residual.to(torch.bfloat16))
        encode_s += best_of(max(1, repeats // 3), lambda codec=codec, x=residual, w=weight: codec.encode(x, w))
        base = residual.to(torch.bfloat16)
        decode_s += best_of(
            repeats, lambda codec=codec, e=encoded, base=base: (base.float() + codec.decode(e)).bfloat16()
        )
        blind = setting.build(residual, None)
        missed += float((blind.decode(blind.encode(residual)) - residual).square().sum())
        whole += float(residual.square().sum())
        if weight is not None:
            weighted += float(((codec.decode(encoded) - residual).square() * weight).sum())
    row = (case.name, setting.codec, setting.name, nbytes, nbytes / dense, (missed / whole) ** 0.5)
    share = (weighted / len(case.residuals)) ** 0.5 if case.weights[0] is not None else float("nan")
    return dict(zip(COLUMNS, (*row, share, 1000 * encode_s, 1000 * decode_s, decode_s / case.prefill_s), strict=True))


def balanced(saliency: Saliency, residual: Tensor) -> Tensor:
    """Weights under which the energy of the keys is one half and that of the values the other."""
    weights = saliency.weights()
    return weights / (2 * (weights * residual.square()).sum(dim=(0, 2, 3, 4), keepdim=True))


@torch.inference_mode()
def prefill(backbone: Backbone, tokens: Sequence[int]) -> ResidualCache:
    """A cache that holds these tokens."""
    cache = ResidualCache([()], backbone.rope, backbone.shape(torch.float32), backbone.dtype, backbone.device)
    backbone.forward(torch.tensor([list(tokens)]), torch.arange(len(tokens))[None], cache)
    return cache


def contexts_by_path(writer: TraceWriter, want: int, paths: int, seed: int) -> dict[str, list]:
    """Contexts (token ids, span of the prompt) of the most frequent (operation, path) pairs, one an operation."""
    found, rng = defaultdict(list), random.Random(seed)
    for index in range(40 * want):
        trace = make_trace(KINDS[index % len(KINDS)], rng)
        root = writer.ids(writer.root(trace))
        for branch in trace.branches:
            ids, path, open_at = list(root), (), None
            for turn in branch:
                start = len(ids)
                ids += [id for piece in writer.pieces([turn]) for id in piece.ids]
                if turn.role is Role.OPERATION:
                    path, open_at = (*path, turn.text), (start, len(ids))
                elif open_at and turn.role in (Role.OUTPUT, Role.DRAFT):
                    if len(ids) <= 1024:
                        found[path].append((list(ids), open_at))
                    open_at = None
    chosen: dict[str, list] = {}
    for path, contexts in sorted(found.items(), key=lambda item: -len(item[1])):
        operations = {name.rpartition(" > ")[2] for name in chosen}
        if len(contexts) >= want and path[-1] not in operations and len(chosen) < paths:
            chosen[" > ".join(path)] = contexts[:want]
    return chosen


def mini_cases(want: int, paths: int, repeats: int, seed: int) -> list[Case]:
    """Residuals of the shipped backbone."""
    backbone = load_backbone(BackboneConfig())
    prompts = {op.name: op.prompt for op in load_operations(CONF / "operations").operations.values()}
    writer = TraceWriter(backbone.tokenizer, backbone.turns, prompts)
    cases = [Case(name, [], [], 0.0) for name in ("path", "request", "dynamic")]
    f32 = torch.float32
    for name, contexts in contexts_by_path(writer, want, paths, seed).items():
        ids, (start, stop) = contexts[-1]
        prompt = ids[start:stop]
        bare = prefill(backbone, prompt)
        base = bare.take(0, HEAD, len(prompt) - TAIL, HEAD, backbone.rope, f32)
        exact = []
        for tokens, (first, last) in contexts:
            cache = prefill(backbone, tokens[:last])
            exact.append(cache.take(0, first + HEAD, last - TAIL, first + HEAD, backbone.rope, f32))
        saliency = gather(backbone, contexts[:-1], TAIL).cut(HEAD, len(prompt) - TAIL)
        seconds = best_of(repeats, lambda core=prompt[HEAD:-TAIL]: prefill(backbone, core))
        task = gather(backbone, [(ids, (0, start))])
        text = prefill(backbone, ids[:start]).take(0, 0, start, 0, backbone.rope, f32)
        text_s = best_of(repeats, lambda head=ids[:start]: prefill(backbone, head))
        mean = torch.stack(exact[:-1]).mean(dim=0) - base
        rows = ((mean, saliency, seconds), (exact[-1] - base, saliency, seconds), (text, task, text_s))
        for case, (residual, own, spent) in zip(cases, rows, strict=True):
            case.residuals.append(residual)
            case.weights.append(balanced(own, residual))
            case.prefill_s += spent
        norms = [float(x.norm() / base.norm()) for x in (mean, exact[-1] - base)]
        print(f"{name}: {base.shape[3]} tokens, path residual {norms[0]:.2f} of the base, request {norms[1]:.2f}")
    return cases


def random_case(repeats: int) -> Case:
    """A path of 100 tokens at the shape of Qwen2.5-7B."""
    residual = torch.randn((28, 2, 4, 100, 128), generator=torch.Generator().manual_seed(0))
    shapes = ((3584, 3584), (3584, 512), (3584, 512), (3584, 3584), (3584, 18944), (3584, 18944), (18944, 3584))
    layer_s = 0.0
    for inner, outer in shapes:
        matrix, hidden = torch.zeros(inner, outer), torch.zeros(100, inner)
        layer_s += best_of(repeats, lambda hidden=hidden, matrix=matrix: hidden @ matrix)
    return Case("7B", [residual], [None], 28 * layer_s)


def bytes_at(rows: list[dict], level: float) -> float:
    """Share of the dense bytes at a weighted error, between settings on a line of logarithms; NaN outside them."""
    points = sorted((float(row["weighted"]), float(row["of bf16"])) for row in rows)
    for (less, high), (more, low) in zip(points, points[1:], strict=False):
        if less <= level <= more:
            part = float(torch.tensor(level / less).log() / torch.tensor(more / less).log())
            return high ** (1 - part) * low**part
    return float("nan")


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the command line, prints the table, writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument("--contexts", type=int, default=9, help="contexts a path; the last is the unseen request")
    parser.add_argument("--paths", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-7b", action="store_true")
    arguments = parser.parse_args(argv)
    cases = mini_cases(arguments.contexts, arguments.paths, arguments.repeats, arguments.seed)
    if not arguments.skip_7b:
        cases.append(random_case(arguments.repeats))
    table = []
    print(f"\n{COLUMNS[0]:8} {COLUMNS[1]:15} {COLUMNS[2]:>9} " + " ".join(f"{name:>10}" for name in COLUMNS[3:]))
    for case in cases:
        for setting in settings():
            row = measure(case, setting, arguments.repeats if case.name != "7B" else 3)
            table.append(row)
            numbers = " ".join(f"{row[name]:10.3f}" for name in COLUMNS[4:])
            print(f"{case.name:8} {row['codec']:15} {row['setting']:>9} {row['bytes']:>10} {numbers}", flush=True)
    print(f"\nshare of the dense bytes at a weighted error of {LEVELS}, where the settings reach it")
    for case in cases[:3]:
        for codec in sorted({row["codec"] for row in table}):
            own = [row for row in table if (row["case"], row["codec"]) == (case.name, codec)]
            print(f"{case.name:8} {codec:15} " + " ".join(f"{bytes_at(own, level):8.3f}" for level in LEVELS))
    if arguments.out:
        with arguments.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
