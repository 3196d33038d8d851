"""The paper's own figures, to stand beside ours (its main table and its KV ablation; percent as fractions).

They were measured on 7-9 billion parameter models and the full benchmarks: a row of the embedded suite shows the figure
of the benchmark it imitates, and its deviation says how far a small model on generated tasks is from it, not an error.
"""

from __future__ import annotations

GRAPHFLOW = {
    ("qwen2.5-7b", "gsm8k"): 0.921,
    ("qwen2.5-7b", "math"): 0.764,
    ("qwen2.5-7b", "humaneval"): 0.862,
    ("qwen2.5-7b", "mbpp"): 0.747,
    ("qwen2.5-7b", "hotpotqa"): 0.704,
    ("llama3.1-8b", "humaneval"): 0.766,
    ("llama3.1-8b", "math"): 0.526,
    ("gemma2-9b", "humaneval"): 0.825,
    ("gemma2-9b", "mbpp"): 0.728,
}

AFLOW = {
    ("qwen2.5-7b", "gsm8k"): 0.892,
    ("qwen2.5-7b", "math"): 0.721,
    ("qwen2.5-7b", "humaneval"): 0.781,
    ("qwen2.5-7b", "mbpp"): 0.684,
    ("qwen2.5-7b", "hotpotqa"): 0.675,
    ("llama3.1-8b", "humaneval"): 0.722,
    ("llama3.1-8b", "math"): 0.475,
    ("gemma2-9b", "humaneval"): 0.754,
    ("gemma2-9b", "mbpp"): 0.661,
}

# Seconds, over the five benchmarks together, on Qwen2.5-7B.
P90_S = {("qwen2.5-7b", "aflow"): 14.06, ("qwen2.5-7b", "graphflow"): 12.25}

# The KV ablation names no backbone; MATH 52.6 is the main table's Llama-3.1-8B figure, so that is most likely it.
KV_MODES = {
    ("stateful", "math"): 0.538,
    ("differential", "math"): 0.526,
    ("stateless", "math"): 0.394,
    ("stateless", "hotpotqa"): 0.586,
}

# Statements of the paper that the report quotes as they are.
CLAIMS = (
    ("Mean gain over AFlow, percentage points", "4.95"),
    ("P90 latency over five benchmarks, Qwen2.5-7B, AFlow to GraphFlow", "14.06 s to 12.25 s"),
    ("Retained KV on GSM8K: stateful, differential + pruning, stateless", "about 50 GB, 11 GB, 8-17 GB"),
    ("Retained KV on HotpotQA: stateful, differential + pruning", "about 85 GB, 25 GB"),
    ("KV at concurrency 10 to 50: stateful, GraphFlow", "0.8 to 2.4 GB, under 0.5 GB"),
    ("Entries that change by less than a small threshold: K, V", "over 75 %, over 70 %"),
)

FAMILY = {"qwen": "qwen2.5-7b", "llama": "llama3.1-8b", "gemma": "gemma2-9b"}


def paper_value(artefact: str, backbone: str, benchmark: str, method: str, kv_mode: str) -> float | None:
    """The paper's figure that this row stands beside; None where the paper has none.

    Args:
        artefact: ``kv_modes`` rows stand beside the ablation, all others beside the main table.
        backbone: Name of ours; ``qwen-mini`` stands beside the paper's Qwen model, and so on.
        benchmark: Name of ours; ``mini-gsm8k`` stands beside GSM8K, and so on.
        method: graphflow and aflow are in the main table.
        kv_mode: State mode; the main table is GraphFlow's differential state.
    """
    kind = benchmark.removeprefix("mini-")
    if artefact == "kv_modes":
        return KV_MODES.get((kv_mode, kind))
    model = paper_backbone(backbone)
    if method == "graphflow" and kv_mode == "differential":
        return GRAPHFLOW.get((model, kind))
    return AFLOW.get((model, kind)) if method == "aflow" else None


def paper_backbone(backbone: str) -> str:
    """The paper's backbone that one of ours stands beside; our own name where there is none."""
    return FAMILY.get(backbone.split("-")[0].rstrip("0123456789."), backbone)
