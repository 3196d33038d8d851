"""The embedded suite as benchmarks: generated examples in four disjoint splits, scored like the real ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from graphflow.benchmarks.base import SPLITS, Benchmark, BenchmarkConfig, Example
from graphflow.benchmarks.code import code_scores
from graphflow.benchmarks.gsm8k import gsm8k_score
from graphflow.benchmarks.hotpotqa import hotpot_f1
from graphflow.benchmarks.mini import code, gsm8k, hotpotqa, math
from graphflow.benchmarks.mini.problem import HELD_OUT, Problem, draw
from graphflow.benchmarks.mini.scoring import mini_math_score
from graphflow.engine.episode import Task

SIZES = {"train": 2000, "validation": 200, "test": 500, HELD_OUT: 200}
MAKERS: dict[str, Callable[[random.Random], Problem]] = {
    "gsm8k": gsm8k.make,
    "math": math.make,
    "hotpotqa": hotpotqa.make,
    "humaneval": code.make_humaneval,
    "mbpp": code.make_mbpp,
}
METRICS = {"gsm8k": "accuracy", "math": "accuracy", "hotpotqa": "f1", "humaneval": "pass@1", "mbpp": "pass@1"}


class MiniBenchmark(Benchmark):
    """One benchmark of the embedded suite.

    A split is drawn from a seed and its own name alone, and no text occurs twice in it, so a smaller split is the
    beginning of a larger one. The split ``heldout`` has problem structures that no other split has.
    """

    version = 4
    splits = (*SPLITS, HELD_OUT)

    def __init__(self, kind: str, config: BenchmarkConfig) -> None:
        super().__init__(config)
        self.kind, self.name, self.metric_name = kind, f"mini-{kind}", METRICS[kind]

    def load(self, split: str) -> list[Example]:
        """See `Benchmark.load`."""
        rng = random.Random(f"{self.name}/{split}/{self.config.seed}/{self.version}")
        seen: set[str] = set()
        examples = []
        while len(examples) < (self.config.size(split) or SIZES[split]):
            problem = draw(MAKERS[self.kind], rng, split)
            if problem.text not in seen:
                seen.add(problem.text)
                examples.append(self._example(problem, f"{self.name}/{split}/{len(examples)}"))
        return examples

    def _example(self, problem: Problem, id: str) -> Example:
        task = Task(
            id=id,
            benchmark=self.name,
            kind=self.kind,
            text=problem.text,
            passages=problem.passages,
            entry_point=problem.entry_point,
            visible_tests=problem.visible_tests,
            level=problem.level,
            family=problem.family,
        )
        return Example(task, problem.answer, problem.hidden_tests)

    def score(self, example: Example, answer: str) -> float:
        """See `Benchmark.score`."""
        match self.kind:
            case "gsm8k":
                return gsm8k_score(answer, example.reference)
            case "math":
                return mini_math_score(answer, example.reference)
            case "hotpotqa":
                return hotpot_f1(answer, example.reference)
            case _:
                return code_scores([example], [answer], self.sandbox)[0]

    def score_many(self, examples: Sequence[Example], answers: Sequence[str]) -> list[float]:
        """See `Benchmark.score_many`; programs run as one sandbox batch."""
        if self.kind in ("humaneval", "mbpp"):
            return code_scores(examples, answers, self.sandbox)
        return super().score_many(examples, answers)


def build_mini(config: BenchmarkConfig) -> MiniBenchmark:
    """The benchmark of the suite that ``config.name`` names (``mini-gsm8k`` and so on)."""
    return MiniBenchmark(config.name.removeprefix("mini-"), config)
