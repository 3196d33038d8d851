"""Merge workflows into the wGraph, print what is in it, and write it as JSON (node-link form of networkx).

python scripts/build_wgraph.py --out results/wgraph.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import networkx as nx

from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=Path, default=CONF / "operations", help="folder of operation files")
    parser.add_argument("--workflows", type=Path, default=CONF / "workflows", help="folder of workflow files")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    library = load_operations(args.operations)
    wgraph = merge(load_workflows(args.workflows, library), library)
    print(wgraph.describe())
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        graph = nx.node_link_data(wgraph.to_networkx(), edges="edges")
        args.out.write_text(json.dumps(graph, indent=1) + "\n", encoding="utf-8")
        print(f"written: {args.out}")


if __name__ == "__main__":
    main()
