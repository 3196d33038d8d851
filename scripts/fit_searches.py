"""Fit methods that search, for backbones whose searches come with the package, and put what they found into it.

    python scripts/fit_searches.py                                           # all that `main_table` needs
    python scripts/fit_searches.py --backbones qwen-mini-planner --methods aflow

All of it took 17 minutes in two processes of one thread each (commit 8f3eda1). A search that is kept under the runs
folder is not made again; one that was stopped goes on.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from graphflow.experiment.compose import compose
from graphflow.experiment.fit import MINI
from graphflow.experiment.plan import SEARCHING
from graphflow.experiment.search import SHIPPED, Search
from graphflow.experiment.serve import House
from graphflow.methods.found import Found

BACKBONES = ("qwen-mini-planner", "llama-mini-planner", "gemma-mini-planner")


def main(argv: list[str] | None = None) -> int:
    """Fit and copy; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=list(SEARCHING), choices=SEARCHING)
    parser.add_argument("--benchmarks", nargs="+", default=list(MINI), metavar="NAME")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides for every search")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of shipped searches")
    given, house, console = parser.parse_args(argv), House(), Console()
    for backbone in given.backbones:
        for benchmark in given.benchmarks:
            for method in given.methods:
                words = [f"backbone={backbone}", f"benchmark={benchmark}", f"method={method}", *given.set]
                folder = ship(house, [*words, "trials.refit=true"], given.out / backbone / method)
                console.print(f"{backbone} {benchmark} {method}: {folder}", highlight=False)
    return 0


def ship(house: House, words: list[str], folder: Path) -> Path:
    """Make a search, if it is not kept yet, and copy what it found."""
    config = compose(words)
    method, search = house.method(config), Search(house, config)
    assert isinstance(method, Found), f"{config.method.name} does not search"
    folder.mkdir(parents=True, exist_ok=True)
    for file in search.folder.glob(f"{config.benchmark.name}.*"):
        shutil.copyfile(file, folder / file.name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
