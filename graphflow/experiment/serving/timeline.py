"""A picture of one run: rows are tasks, bars are steps, colour is operation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from graphflow.engine.episode import Episode, StepRecord
from graphflow.experiment.plots import COLOURS, STYLE, save

WAITING = "#D8D8D8"
TEXT = "task"
LIGHTER = ("#7FB8D8", "#EAAF80", "#80CFB9", "#E5BCD3", "#F2CF80", "#AADAF4", "#808080", "#C5C580")
"""As `COLOURS`, for more operations than there are of those."""


def draw_timeline(episodes: Sequence[Episode], ended: Mapping[str, float], most: int, title: str, folder: Path) -> Path:
    """Draw the first tasks of a run as PNG and SVG.

    Steps of a task that run at the same time share its row, one below the other.

    Args:
        episodes: All of the run.
        ended: Seconds from the start of the run at which every task ended, by task.
        most: Tasks that are drawn.
        title: Above the picture.
        folder: Where it goes.

    Returns:
        The PNG.
    """
    began = {episode.task_id: ended[episode.task_id] - episode.latency_s for episode in episodes}
    shown = sorted(episodes, key=lambda episode: (began[episode.task_id], ended[episode.task_id]))[:most]
    colours = palette([step for episode in shown for step in episode.steps])
    folder.mkdir(parents=True, exist_ok=True)
    plt.switch_backend("Agg")  # files only, wherever this runs
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 1.4 + 0.17 * len(shown)))
        for row, episode in enumerate(shown):
            _draw_task(axes, row, episode, began[episode.task_id], colours)
        axes.set(xlabel="seconds", ylabel="tasks in order of arrival", ylim=(len(shown) - 0.3, -0.7))
        axes.set_xlim(left=0)
        axes.set_title(title, pad=10)
        axes.grid(axis="y", visible=False)
        axes.set_yticks([])
        handles = [Patch(color=WAITING, label="waits, or its text is read")]
        handles += [Patch(color=colour, label=op.replace("_", " ")) for op, colour in colours.items()]
        axes.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            fontsize=8,
            title="operation",
            alignment="left",
        )
        return save(figure, folder / "timeline")


def palette(steps: Sequence[StepRecord]) -> dict[str, str]:
    """A colour for every operation, the strongest for those that take the most time; more than 16 take turns."""
    seconds: dict[str, float] = {}
    for step in steps:
        if step.op != TEXT:
            seconds[step.op] = seconds.get(step.op, 0.0) + step.end_s - step.start_s
    every = (*COLOURS, *LIGHTER)
    longest = sorted(seconds, key=lambda op: (-seconds[op], op))
    return {op: every[place % len(every)] for place, op in enumerate(longest)}


def lanes(steps: Sequence[StepRecord]) -> list[int]:
    """A lane for every step, so that steps of one lane do not overlap in time; as few lanes as there can be."""
    free: list[float] = []
    found = [0] * len(steps)
    for place in sorted(range(len(steps)), key=lambda place: steps[place].start_s):
        step = steps[place]
        lane = next((index for index, until in enumerate(free) if until <= step.start_s), len(free))
        free[lane : lane + 1] = [step.end_s]
        found[place] = lane
    return found


def _draw_task(axes: Axes, row: int, episode: Episode, began: float, colours: Mapping[str, str]) -> None:
    """One row: grey from arrival to answer, and the steps upon it."""
    axes.barh(row, episode.latency_s, height=0.25, left=began, color=WAITING, linewidth=0)
    steps = [step for step in episode.steps if step.op != TEXT]
    taken = lanes(steps)
    height = 0.8 / (max(taken, default=0) + 1)
    for step, lane in zip(steps, taken, strict=True):
        axes.barh(
            row - 0.4 + (lane + 0.5) * height,
            step.end_s - step.start_s,
            height=height,
            left=began + step.start_s,
            color=colours[step.op],
            linewidth=0,
        )
