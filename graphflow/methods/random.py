"""random: a random valid subgraph of the wGraph (a control of ours: what structure alone is worth).

Every choice of the generator's sampler is uniform; only edges of workflows made for the task's kind are used, because
a program as the answer to a question would make the control too weak to say anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch

from graphflow.engine.episode import Task
from graphflow.generator.sampling import Sampler
from graphflow.methods.base import Method
from graphflow.wgraph.library import Library
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import Workflow


class Random(Method):
    """Draws a workflow by the task's id and a seed: the same task always gets the same workflow."""

    name = "random"

    def __init__(
        self, library: Library, workflows: Mapping[str, Workflow], seed: int = 0, max_llm_calls: int = 8
    ) -> None:
        super().__init__(library, workflows)
        self.seed, self.max_llm_calls = seed, max_llm_calls
        self.wgraph = merge(self.workflows, library)
        self._samplers: dict[str, Sampler] = {}

    def build(self, task: Task) -> Workflow:
        """See `Method.build`."""
        if task.kind not in self._samplers:
            self._samplers[task.kind] = Sampler.of_kind(self.wgraph, task.kind, self.max_llm_calls)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed}:{task.id}".encode()))
        edges, nodes = torch.zeros(1, len(self.wgraph.edges)), torch.zeros(1, len(self.wgraph.nodes))
        return self._samplers[task.kind].sample(edges, nodes, generator)[0]
