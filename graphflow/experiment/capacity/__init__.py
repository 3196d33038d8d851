"""The capacity planner: what KV a workload needs on any backbone, from tokens and paths alone (paper section 5).

`traffic` says what requests bring, in tokens: read from a run's episodes, or from a dry walk through workflows (`dry`).
`replay` serves that traffic to an operation store without a model and counts bytes, in the `order` in which the engine
would. `shapes` and `tokenizers` stand for backbones that are not here. `report` is the command, `table` and `figures`
show what it found, `check` sets it beside what the engine keeps.
"""
