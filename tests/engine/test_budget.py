"""Bytes that are reserved, worked out by hand: 512 bytes a token, kept and computed alike."""

import random

import pytest

from graphflow.engine.budget import LEARNED
from graphflow.engine.config import EngineConfig
from graphflow.engine.executor import Executor
from graphflow.engine.job import Job
from graphflow.engine.request import Request
from graphflow.kv import Context, KVConfig, Plan
from tests.engine.serving import CHAIN, JOIN, LIBRARY, TASKS
from tests.tiny import tiny_backbone

PER_TOKEN = 4 * 2 * 2 * 8 * 4  # layers x (K, V) x heads x head_dim x float32


def opened(kv):
    executor = Executor(tiny_backbone(), LIBRARY, kv, EngineConfig(kv_dtype="float32"))
    return executor, {op: len(prompt) for op, prompt in executor.prompts.items()}


def first_request(executor, workflow):
    (root,) = executor.memory.begin([TASKS[0].text])
    job = Job(TASKS[0], workflow, 0.0, 0.0, root.branch, False)
    return executor.calls.request(executor.calls.call(job, job.ready()[0]))


def test_what_a_task_can_come_to_take():
    executor, prompts = opened(KVConfig("stateful"))
    whole = 5 + sum(prompts[op] + 6 for op in ("write", "check", "fix", "check"))
    assert executor.budget.task(5, CHAIN) == (whole * PER_TOKEN, 2 * (whole + 16) * PER_TOKEN)
    # JOIN: three single samples of write, fix and check, and three samples of write
    whole = 5 + prompts["write"] + 6 + prompts["fix"] + 6 + prompts["write"] + 18 + prompts["check"] + 6
    assert executor.budget.task(5, JOIN) == (whole * PER_TOKEN, 2 * 3 * (whole + 16) * PER_TOKEN)


def test_what_a_request_leaves_and_takes_meanwhile():
    """A task of 5 tokens, a prompt of 9 and at most 6 tokens of output, the last one without KV."""
    executor, prompts = opened(KVConfig("stateful"))
    request = first_request(executor, CHAIN)
    assert prompts["write"] == 9
    assert executor.budget.keeps(request) == (9 + 5) * PER_TOKEN
    row, beside = 5 + 9 + 6 + 16, 5 + 9 + 16
    assert executor.budget.caches([], [request]) == (row + beside) * PER_TOKEN
    (flight,) = executor.batch.join([request])
    assert executor.budget.caches([flight], [request]) == (2 * row + beside) * PER_TOKEN
    while executor.batch.flights:
        executor.batch.step()
    assert executor.batch.peak_bytes <= (row + beside) * PER_TOKEN


@pytest.mark.parametrize("chunk", [0, 16])
@pytest.mark.parametrize("attention", ["dense", "shared"])
def test_caches_never_take_more_than_is_reserved(attention, chunk):
    """Rows of 12 to 249 tokens come, end and are cancelled at random; what has ended stays in the batch for a while."""
    executor = Executor(tiny_backbone(attention=attention), LIBRARY, KVConfig(), EngineConfig(prefill_chunk=chunk))
    batch, dice, reserved = executor.batch, random.Random(7), 0
    for _ in range(80):
        if not batch.joining and dice.random() < 0.4:
            joining = [asked(dice) for _ in range(dice.randint(1, 5))]
            reserved = executor.budget.caches(batch.flights, joining, batch.nbytes)
            batch.peak_bytes = 0
            batch.join(joining)
        elif batch.flights and dice.random() < 0.1:
            batch.cancel(dice.choice(batch.flights))
        batch.step()
        assert batch.peak_bytes <= reserved


def asked(dice):
    text = tuple(dice.choices(range(8, 30), k=dice.choice((3, 20, 150, 240))))
    seeds = tuple(range(dice.choice((1, 1, 3))))
    return Request(Context(), text, "write", tuple(range(8, 17)), Plan(), dice.randint(1, 30), 0.0, seeds)


def test_what_the_store_learns_is_reserved():
    """Of the whole prompt: moments in float32, the residual, and its segment in the workspace."""
    executor, _ = opened(KVConfig("differential"))
    request = first_request(executor, CHAIN)
    entries = PER_TOKEN // 4
    assert request.plan.fallback
    assert executor.budget.keeps(request) == (9 + 5) * PER_TOKEN + 9 * (entries * LEARNED + 2 * PER_TOKEN)
