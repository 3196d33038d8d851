"""`similarity`: how far exact KV of a prompt is from its base, before and after keys share a frame (paper: figure 3).

A change is measured against the root mean square of the base's entries in the same layer, keys and values apart; the
paper does not name its threshold, so shares are given for several.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from graphflow.engine.decode import Decoder
from graphflow.engine.executor import Executor
from graphflow.engine.request import Reply, Request
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.config import Config
from graphflow.experiment.kv.contexts import use
from graphflow.experiment.kv.figures import draw_similarity
from graphflow.experiment.kv.fixed import dealt, open_executor
from graphflow.experiment.kv.study import Study, backbone_of
from graphflow.experiment.progress import Unit, work_progress
from graphflow.experiment.serve import use_threads
from graphflow.experiment.stats import bootstrap
from graphflow.kv import Moments, SegmentKind, to_absolute
from graphflow.kv.paths import Key

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
BELOW = [f"below_{threshold:g}" for threshold in THRESHOLDS]
SIDES = ("K", "V")
FRAMES = ("in place", "moved")
ALL = "all"
PAPER = {"K": 0.75, "V": 0.70}
POSITIONS = 48
ROUNDING = 1e-4
"""A residual below this share of the base is none."""


class Similarity:
    """Running sums over exact prompts, for both frames; every tensor is (layers, 2, ...), keys first."""

    def __init__(self, layers: int) -> None:
        self.shares: dict[str, list[Tensor]] = {frame: [] for frame in FRAMES}
        self.norms: dict[str, list[Tensor]] = {frame: [] for frame in FRAMES}
        self.positions = torch.zeros(2, POSITIONS)
        self.moments: dict[Key, Moments] = {}
        self.layers = layers
        self.tasks: list[Hashable] = []

    def add(self, task: Hashable, key: Key, base: Tensor, exact: Tensor, in_place: Tensor) -> None:
        """One prompt of one request.

        Args:
            task: Whose request: intervals are over tasks, each the mean of its prompts.
            key: Operation and path.
            base: Bare KV, (layers, 2, kv_heads, L, head_dim), at positions 0..L-1.
            exact: The request's, keys moved to the same positions.
            in_place: The request's, keys where they were.
        """
        rms = base.square().mean(dim=(2, 3, 4)).sqrt().clamp_min(1e-12)
        energy = base.square().sum(dim=(2, 3, 4)).clamp_min(1e-12)
        for frame, kv in zip(FRAMES, (in_place, exact), strict=True):
            change = (kv - base).abs() / rms[:, :, None, None, None]
            shares = [(change < threshold).float().mean(dim=(2, 3, 4)) for threshold in THRESHOLDS]
            self.shares[frame].append(torch.stack(shares, dim=-1))
            self.norms[frame].append(((kv - base).square().sum(dim=(2, 3, 4)) / energy).sqrt())
        by_token = ((exact - base) / rms[:, :, None, None, None]).square().sum(dim=(0, 2, 4))
        count = min(by_token.shape[-1], POSITIONS)
        self.positions[:, :count] += by_token[:, :count] / by_token.sum(dim=-1, keepdim=True).clamp_min(1e-12)
        self.moments.setdefault(key, Moments(base)).update(exact)
        self.tasks.append(task)

    @property
    def count(self) -> int:
        """Prompts that were seen."""
        return len(self.norms[FRAMES[0]])

    def energies(self) -> tuple[Tensor, Tensor, int]:
        """Energy of the moved residual that the means of paths leave, and all of it, over paths seen twice or more.

        Returns:
            Two (layers, 2) tensors, and how many prompts they are from. Corrected for what a mean of few fits by
            chance: the variance about the mean is taken over count - 1.
        """
        left, whole, count = torch.zeros(self.layers, 2), torch.zeros(self.layers, 2), 0
        for moments in self.moments.values():
            if moments.count > 1:
                around, about = moments.energies()
                left += moments.count * around * moments.count / (moments.count - 1)
                whole += moments.count * about
                count += moments.count
        return left, whole, count

    def explained(self, layers: slice, side: int) -> float | None:
        """Share of that energy that the means explain; None where there is no residual but rounding."""
        left, whole, count = self.energies()
        if not count or float(torch.stack(self.norms[FRAMES[1]])[:, layers, side].max()) < ROUNDING:
            return None
        return float(1 - left[layers, side].sum() / whole[layers, side].sum())

    def _by_task(self, values: Tensor) -> list[float]:
        """Means of what is given for every prompt, a mean a task."""
        of: dict[Hashable, list[float]] = {}
        for task, value in zip(self.tasks, values.tolist(), strict=True):
            of.setdefault(task, []).append(value)
        return [sum(own) / len(own) for own in of.values()]

    def rows(self) -> list[dict[str, Any]]:
        """A row a frame, side and layer, and one over all layers."""
        found, seen = [], self.energies()[2]
        for frame in FRAMES:
            norms, shares = torch.stack(self.norms[frame]), torch.stack(self.shares[frame])
            for side, name in enumerate(SIDES):
                for layer in (*range(self.layers), ALL):
                    chosen = slice(None) if layer == ALL else slice(int(layer), int(layer) + 1)
                    norm = bootstrap(self._by_task(norms[:, chosen, side].mean(dim=1)))
                    mean = shares[:, chosen, side].mean(dim=(0, 1)).tolist()
                    moved = frame == FRAMES[1]
                    found.append(
                        {
                            "frame": frame,
                            "side": name,
                            "layer": layer,
                            "n_prompts": self.count,
                            "relative_norm": norm.mean,
                            "relative_lo": norm.low,
                            "relative_hi": norm.high,
                            **dict(zip(BELOW, mean, strict=True)),
                            "paper_share": PAPER[name],
                            "explained_by_path_mean": self.explained(chosen, side) if moved else None,
                            "n_explained": seen if moved else 0,
                        }
                    )
        return found


class Watcher(Decoder):
    """Generates as ever and compares every prompt's exact KV with its base."""

    def __init__(self, like: Decoder, found: Similarity) -> None:
        super().__init__(like.backbone, like.store, like.clock)
        self.found = found
        self._bases: dict[str, Tensor] = {}

    def generate(self, requests: Sequence[Request], keep_logits: bool = False) -> list[Reply]:
        """See `Decoder.generate`; the store must be stateful, so that prompts are kept exactly."""
        replies = super().generate(requests, keep_logits)
        for request, reply in zip(requests, replies, strict=True):
            placed = [pair for pair in reply.contexts[0].pieces if pair[0].kind is SegmentKind.OPERATION]
            piece, offset = placed[-1]
            if request.op not in self._bases:
                self._bases[request.op] = self.bare(request.prompt)
            exact = piece.tensor()
            in_place = to_absolute(exact, offset, self.backbone.rope)
            task, key = reply.contexts[0].pieces[0][0].tokens, (request.op, request.context.path)
            self.found.add(task, key, self._bases[request.op], exact, in_place)
        return replies


def similarity(study: Study) -> pd.DataFrame:
    """Serve tasks exactly and compare; write ``similarity.csv``, ``similarity_positions.csv`` and the figure."""
    rows, positions = [], []
    planned = list(study.cells())
    units = [Unit(cell.label, config.benchmark.limit, config.benchmark.name) for cell, config in planned]
    founds: dict[str, Similarity] = {}
    served: dict[str, int] = {}
    with work_progress(units, study.console) as progress:
        for (_, config), unit in zip(planned, units, strict=True):
            with progress.working_on(unit):
                name = backbone_of(config)
                shape = study.house.backbone(config).shape(torch.float32)
                found = founds.setdefault(name, Similarity(shape.layers))
                for _ in _watched(study, config, found):
                    progress.advance()
                    served[name] = served.get(name, 0) + 1
    for name, found in founds.items():
        own = {"backbone": name, "n_tasks": served[name]}
        rows += [{**own, **row} for row in found.rows()]
        whole = found.positions / found.count
        positions += [
            {**own, "side": side, "position": place, "energy_share": float(whole[index, place])}
            for index, side in enumerate(SIDES)
            for place in range(POSITIONS)
        ]
    frame, tokens = study.write("similarity", rows), study.write("similarity_positions", positions)
    study.say(*draw_similarity(frame, tokens, BELOW, study.figures))
    shown = ("backbone", "frame", "side", "layer", "relative_norm", *BELOW[2:5], "explained_by_path_mean")
    study.show(frame[frame["layer"] == ALL], shown, "Exact KV of operation prompts against their bases")
    return frame


def _watched(study: Study, config: Config, found: Similarity) -> Any:
    """Episodes of a cell, watched."""
    use_threads(config)
    flows = dealt(study.house)
    executor: Executor = open_executor(study.house, config, Sandbox(config.engine.sandbox))
    use(executor, Watcher(executor.decoder, found))
    return executor.run([example.task for example in study.house.examples(config)], flows.build)
