"""Benchmarks: tasks and their scoring.

`build_benchmark` is the way in; one file a benchmark, its scoring function in the same file.
"""

from __future__ import annotations

import difflib

from graphflow.benchmarks.base import Benchmark, BenchmarkConfig, BenchmarkError, Example
from graphflow.engine.sandbox import Sandbox

NAMES = ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp")
MINI = "mini-"

__all__ = ["NAMES", "Benchmark", "BenchmarkConfig", "BenchmarkError", "Example", "build_benchmark"]


def build_benchmark(config: BenchmarkConfig, sandbox: Sandbox | None = None) -> Benchmark:
    """The benchmark that a config names.

    Args:
        config: Name, source, sizes and scoring.
        sandbox: What code benchmarks score in; None makes one with default limits on first use.

    Raises:
        BenchmarkError: If there is no benchmark of that name.
    """
    base = config.name.removeprefix(MINI)
    if base not in NAMES:
        known = [*NAMES, *(MINI + name for name in NAMES)]
        near = difflib.get_close_matches(config.name, known, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise BenchmarkError(f"benchmark.name must be one of {', '.join(known)}, got {config.name!r}{hint}")
    benchmark = build_mini(config) if config.name.startswith(MINI) else build_original(config)
    if sandbox is not None:
        benchmark.sandbox = sandbox
    return benchmark


def build_mini(config: BenchmarkConfig) -> Benchmark:
    """A benchmark of the embedded suite."""
    from graphflow.benchmarks import mini

    return mini.build_mini(config)


def build_original(config: BenchmarkConfig) -> Benchmark:
    """A benchmark whose rows are read from the original files."""
    from graphflow.benchmarks.gsm8k import GSM8K
    from graphflow.benchmarks.hotpotqa import HotpotQA
    from graphflow.benchmarks.humaneval import HumanEval
    from graphflow.benchmarks.math import MATH
    from graphflow.benchmarks.mbpp import MBPP

    return {kind.name: kind for kind in (GSM8K, MATH, HotpotQA, HumanEval, MBPP)}[config.name](config)
