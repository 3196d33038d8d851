"""The embedded suite: five generated benchmarks that the mini backbones can really solve, with nothing to download."""

from graphflow.benchmarks.mini.suite import MiniBenchmark, build_mini

__all__ = ["MiniBenchmark", "build_mini"]
