"""Settings of experiments on tiny backbones, for tests."""

SMALL = (
    "tracking=none",
    "engine.sandbox.allow_unisolated=true",
    "engine.max_tokens_scale=0.1",
    "engine.kv_dtype=float32",
    "machine.threads=1",
)
