"""Executors on a chat server in the test's hands, and what it says."""

from __future__ import annotations

from dataclasses import replace

from graphflow.engine.config import EngineConfig
from graphflow.engine.remote.executor import RemoteExecutor
from graphflow.kv import KVConfig
from graphflow.wgraph.workflow import Step, Workflow
from tests.chat import client
from tests.engine.serving import LIBRARY, TASKS

PROMPTS = {op.name: op.prompt for op in LIBRARY.values() if op.prompt}
ONE = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")
TWO = Workflow("two", ("gsm8k",), (*ONE.steps, Step("check", "check", ("write",))), "check")
MANY = [replace(TASKS[0], id=f"t{i:02}", text=f"solve {i}") for i in range(12)]
STATEFUL = KVConfig("stateful")


def speak(body):
    """Writes the operation's name and how many messages it has read."""
    last = body["messages"][-1]["content"]
    op = next(name for name, prompt in PROMPTS.items() if last.endswith(prompt))
    return f"{op} {len(body['messages'])}"


def task_of(body):
    return body["messages"][0]["content"].split("\n\n")[0]


class Jumping(RemoteExecutor):
    """Its clock jumps when a test says so."""

    jumped = 0.0

    def clock(self):
        return super().clock() + self.jumped


def executor(chat, library=None, naps=None, server=None, **config):
    engine = EngineConfig(**config)
    return Jumping(client(chat, naps, **(server or {})), library or LIBRARY, STATEFUL, engine)


def run(chat, workflow, tasks=TASKS, grow=None, **more):
    own = executor(chat, **more)
    return sorted(own.run(tasks, lambda arriving: [workflow] * len(arriving), grow), key=lambda e: e.task_id)


def user(*texts):
    return {"role": "user", "content": "\n\n".join(texts)}


def model(text):
    return {"role": "assistant", "content": text}
