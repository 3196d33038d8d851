"""Operation state of your own operations, in every state mode, on any local model of a supported family.

    python examples/operation_state.py                     # the backbone that comes with the package
    python examples/operation_state.py path/to/model       # a folder in Hugging Face format

Serves the same texts by the same two operations in each mode and prints what is kept, what runs through the model and
how close that is to exact state; then saves a store, loads it again, and shows that nothing has to be learned twice.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from graphflow.engine.config import EngineConfig
from graphflow.engine.session import Session, load
from graphflow.kv import KVConfig
from graphflow.paths import ASSETS

OPERATIONS = {
    "draft": "Solve the task above step by step. Write each calculation with its result and finish with the answer.",
    "check": "Read the answer above again and look for a mistake in it. Say which step is wrong, or that none is.",
}
TEXTS = [
    "Ada has 3 boxes with 12 pens in each. She gives away 5 pens. How many pens does she have?",
    "A train has 8 wagons of 40 seats. 17 seats are taken. How many seats are free?",
    "Ben reads 14 pages a day for 6 days. The book has 120 pages. How many pages are left?",
    "Five shelves hold 9 jars each and 4 jars stand on the table. How many jars are there?",
    "Eve buys 7 apples and twice as many plums. How many pieces of fruit does she buy?",
    "A rope of 96 metres is cut into 8 equal parts. How long are 3 of them?",
]
LEARNING = {"min_observations": 2}
"""Exact runs of a path before its residual is kept; the default is 8."""
MODES = {
    "stateful": KVConfig("stateful"),
    "stateful_int8": KVConfig("stateful_int8"),
    "stateful_int4": KVConfig("stateful_int4"),
    "prefix": KVConfig("prefix"),
    "operation_first": KVConfig("operation_first"),
    "stateless": KVConfig("stateless", exact_head=0),
    "blend": KVConfig("blend", exact_head=0, **LEARNING),
    "no_pruning": KVConfig("no_pruning", **LEARNING),
    "differential, path": KVConfig("differential", "path", **LEARNING),
    "differential, request": KVConfig("differential", "request", **LEARNING),
}
COLUMNS = "{:22} {:>12} {:>12} {:>10} {:>9} {:>9}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table of modes, then save and load a store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ASSETS / "qwen-mini")
    model = load(parser.parse_args(argv).folder)

    def session(kv: KVConfig) -> Session:
        """Two texts at a time: what the first ones teach serves the others."""
        return Session(model, OPERATIONS, kv, max_tokens=8, engine=EngineConfig(concurrency=2, kv_dtype="float32"))

    print(COLUMNS.format("mode", "operation B", "text B", "prefilled", "KL, nats", "agreement"))
    for name, kv in MODES.items():
        run = session(kv).run(TEXTS, ["draft", "check"])
        kept = (f"{run.operation_bytes:,}", f"{run.text_bytes:,}", f"{run.prefilled:,}")
        print(COLUMNS.format(name, *kept, f"{max(run.kl or 0.0, 0.0):.2g}", f"{run.agreement:.2f}"))

    with tempfile.TemporaryDirectory() as folder:
        first = session(MODES["differential, path"])
        runs = {"first run": first.run(TEXTS, ["draft", "check"])}
        first.save(folder)
        again = session(KVConfig("differential", "path", store=folder, **LEARNING))
        runs["from the saved store"] = again.run(TEXTS, ["draft", "check"])
    for name, run in runs.items():
        reused = [episode.total("operation_reused") for episode in run.episodes]
        print(f"{name}: prompt tokens reused, text by text: {', '.join(map(str, reused))}")


if __name__ == "__main__":
    main()
