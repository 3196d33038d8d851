"""Builds a wandb report from tracked runs: the same tables and figures as results/report.html, on wandb's own pages.

    graphflow reproduce profile=default tracking=online
    python scripts/report.py --entity my-team --project graphflow

Needs the extra ``wandb-report`` and an account; without them results/report.html says the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from graphflow.experiment.report import CAPTIONS, DEVIATION, LEAD, TITLE

MISSING = (
    "wandb-workspaces is not installed: pip install '.[wandb-report]'; results/report.html shows the same without it"
)


def main(argv: list[str] | None = None) -> int:
    """Build and save the report; the exit status."""
    options = parser().parse_args(argv)
    if importlib.util.find_spec("wandb_workspaces") is None:
        print(f"report: {MISSING}", file=sys.stderr)
        return 2
    print(build(options.entity, options.project, options.group).save().url)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog=Path(__file__).name, description="Build a wandb report from tracked runs.")
    found.add_argument("--entity", required=True, help="wandb user or team")
    found.add_argument("--project", default="graphflow", help="wandb project (tracking.project)")
    found.add_argument("--group", default="default", help="profile whose runs are shown (tracking.group)")
    return found


def build(entity: str, project: str, group: str) -> Any:
    """The report, not saved yet.

    Args:
        entity: wandb user or team.
        project: wandb project.
        group: Runs of this group are shown.
    """
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    runs = wr.Runset(entity=entity, project=project, name=f"cells of {group}", filters=f"Group == '{group}'")
    profile = wr.Runset(entity=entity, project=project, name="profile", filters=f"Name == 'profile {group}'")
    metrics = [
        wr.BarPlot(title=title, metrics=[metric], groupby="config.config.method.name")
        for title, metric in (
            ("metric", "metric"),
            ("P90 latency, s", "p90_s"),
            ("operation state, bytes", "retained_op_bytes"),
        )
    ]
    figures = [wr.MediaBrowser(title=caption, media_keys=[f"figures/{name}"]) for name, caption in CAPTIONS.items()]
    tables = [wr.WeavePanelSummaryTable(table_name=name) for name in ("main_table", "kv_modes")]
    return wr.Report(
        entity=entity,
        project=project,
        title=TITLE,
        description=LEAD,
        blocks=[
            wr.P(text=DEVIATION),
            wr.H2(text="Cells"),
            wr.PanelGrid(runsets=[runs], panels=metrics),
            wr.H2(text="Tables and figures"),
            wr.PanelGrid(runsets=[profile], panels=[*tables, *figures]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
