"""Figures of the experiment on choosing workflows, from its table alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from graphflow.experiment.plots import COLOURS, MARKERS, STYLE, save

REFERENCES = ("best fixed", "retrieve_top1", "random", "oracle")
REWARD = "reward"
"""Factor whose settings are weights of the reward: drawn as a front."""


def draw_generator(frame: Any, folder: Path) -> list[Path]:
    """Score by setting, and accuracy against cost as the weights of the reward move (where they were varied)."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")  # files only, wherever this runs
    means = frame[frame["benchmark"] == "mean"]
    with plt.rc_context(STYLE):
        files = [save(by_setting(means), folder / "generator")]
        if (means["factor"] == REWARD).any():
            files.append(save(front(means[means["split"] == "test"]), folder / "generator_front"))
    return files


def by_setting(means: Any) -> Figure:
    """A panel a factor: score of each setting on test tasks and on held-out structures, with what is to be beaten."""
    factors = [name for name in dict.fromkeys(means["factor"]) if name not in ("reference", REWARD)]
    counts = [means[means["factor"] == name]["setting"].nunique() for name in factors]
    size = (1.6 + 0.8 * sum(counts), 4.2)
    drawn, panels = plt.subplots(
        1, len(factors), figsize=size, squeeze=False, sharey=True, gridspec_kw={"width_ratios": counts}
    )
    for axes, factor in zip(panels[0], factors, strict=True):
        own = means[means["factor"] == factor]
        settings = list(dict.fromkeys(own["setting"]))
        for place, (split, part) in enumerate(own.groupby("split", sort=False)):
            rows = part.set_index("setting").loc[settings]
            error = [rows["metric"] - rows["metric_lo"], rows["metric_hi"] - rows["metric"]]
            options = {"color": COLOURS[place], "marker": MARKERS[place], "label": split, "linestyle": "none"}
            axes.errorbar(np.arange(len(settings)) + 0.16 * (place - 0.5), rows["metric"], yerr=error, **options)
        for place, name in enumerate(REFERENCES):
            row = means[(means["setting"] == name) & (means["factor"] == "reference") & (means["split"] == "test")]
            if len(row):
                style = ("-", "--", ":", "-.")[place]
                axes.axhline(float(row["metric"].iloc[0]), color="#606060", linewidth=1, linestyle=style, label=name)
        axes.set_xticks(range(len(settings)), settings, rotation=30, ha="right")
        axes.set_xlim(-0.6, len(settings) - 0.4)
        axes.set_title(factor)
    panels[0][0].set_ylabel("score, mean over benchmarks and seeds")
    drawn.tight_layout()
    handles, labels = panels[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return drawn


def front(test: Any) -> Figure:
    """Accuracy against P90 latency and against tokens, a point for each weight of the reward."""
    drawn, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), sharey=True)
    for axes, cost, label in ((left, "p90_s", "P90 latency of a task, s"), (right, "tokens", "tokens a task")):
        _front(axes, test, cost)
        axes.set_xlabel(label)
    left.set_ylabel("score, mean over benchmarks")
    drawn.tight_layout()
    handles, labels = right.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return drawn


def _front(axes: Axes, test: Any, cost: str) -> None:
    own = test[test["factor"] == REWARD]
    kinds = own["setting"].str.rsplit("=", n=1).str[0]
    for place, (kind, rows) in enumerate(own.groupby(kinds, sort=False)):
        ordered = rows.sort_values(cost)
        axes.plot(ordered[cost], ordered["metric"], color=COLOURS[place], marker=MARKERS[place], label=f"λ of {kind}")
        span, apart, last = test[cost].max() - test[cost].min(), 0.05, -float("inf")
        for _, row in ordered.iterrows():  # where points lie together, the first says the weight
            if row[cost] - last > apart * span:
                note, last = row["setting"].rpartition("=")[2], row[cost]
                below = {"xytext": (3, -10 - 9 * place), "textcoords": "offset points", "fontsize": 7}
                axes.annotate(note, (row[cost], row["metric"]), color=COLOURS[place], **below)
    for place, name in enumerate(("best fixed", "retrieve_top1", "random")):
        row = test[(test["setting"] == name) & (test["factor"] == "reference")]
        if len(row):
            colour, marker = ("#000000", "#707070", "#B0B0B0")[place], ("*", "X", "P")[place]
            axes.plot(row[cost], row["metric"], color=colour, marker=marker, linestyle="none", label=name)
