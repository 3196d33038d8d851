"""The folder of real rows: $GRAPHFLOW_DATA_DIR, or ../shared/data beside the repository."""

import os
from pathlib import Path

import pytest

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.paths import ROOT


@pytest.fixture
def data_dir() -> Path:
    folder = Path(os.environ.get("GRAPHFLOW_DATA_DIR") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real rows: {folder} does not exist (set GRAPHFLOW_DATA_DIR)")
    return folder


@pytest.fixture
def real_benchmark(data_dir):
    def build(name, **fields):
        return build_benchmark(BenchmarkConfig(name=name, data_dir=str(data_dir), **fields))

    return build
