"""`transformers serve` with a mini backbone, started here on loopback: the same answers as the engine's own.

The shipped tokenizers have no chat template. The copy that is served has one that writes the mini turn format: a
conversation's first part is the task, a message's last part the operation's prompt, and what is between them a tool's
result or another branch's output. `transformers serve` reads the text of a Qwen2 model by Qwen2's own rules
(`graphflow.backbone.load.load_tokenizer`), which cut code otherwise: tasks with code are asked of llama-mini.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from rich.console import Console
from transformers.utils.import_utils import is_serve_available

from graphflow.backbone.config import BackboneError
from graphflow.engine.episode import Episode
from graphflow.engine.sandbox import Sandbox
from graphflow.experiment.compose import compose
from graphflow.experiment.record import RunDir
from graphflow.experiment.run import run_cell
from graphflow.experiment.search import Search
from graphflow.experiment.serve import House
from graphflow.experiment.single import run_single
from graphflow.paths import ASSETS
from tests.methods.served import isolated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not is_serve_available(), reason="transformers serve needs fastapi, uvicorn and openai (the extra dev)"
    ),
]
TEMPLATE = """
{{- '<|bos|>' -}}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    {{- message.content + '<|end|>' -}}
  {%- else -%}
    {%- set first = loop.first -%}
    {%- for part in message.content.split('\\n\\n') -%}
      {%- if loop.last -%}{{- '<|op|>' + part + '<|out|>' -}}
      {%- elif first and loop.first -%}{{- '<|task|>' + part + '<|end|>' -}}
      {%- elif part.startswith('Result:\\n') -%}{{- '<|tool|>' + part[8:] + '<|end|>' -}}
      {%- else -%}{{- '<|given|>' + part + '<|end|>' -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endfor -%}
"""
ANSWER = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|out|>",
    "fields": {"content": {"close_pattern": r"<\|end\|>", "content": "text"}},
}
SERVE = "from transformers.cli.transformers import main; main()"
SMALL = ("tracking=none", "kv=stateful", "engine.kv_dtype=float32", "engine.concurrency=4", "warmup=0")
LLAMA = pytest.mark.parametrize("served", ["llama-mini"], indirect=True)
BOTH = pytest.mark.parametrize("served", ["qwen-mini", "llama-mini"], indirect=True)


class Served:
    """A server in a process of its own, at one address however often it is started."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.model, self.url = str(folder), f"http://127.0.0.1:{self.port}/v1"
        self.local = (f"backbone={folder.name}",)
        self.log = (folder.parent / "serve.log").open("w+")

    def start(self, seconds: float = 300.0) -> None:
        """Starts it, and waits until it answers."""
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu", "--dtype", "float32"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", self.model, *where],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        until, client = time.monotonic() + seconds, httpx2.Client(timeout=5)
        while time.monotonic() < until:
            try:
                if client.get(self.url.replace("/v1", "/health")).status_code == 200:
                    return
            except httpx2.RequestError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.3)
        self.stop()
        self.log.seek(0)
        pytest.fail(f"the server did not start: {self.log.read()[-2000:]}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def words(self) -> tuple[str, ...]:
        server = (f"backbone.url={self.url}", f"backbone.model={self.model}", "backbone.turns=mini")
        return ("backbone=openai", *server, "backbone.retries=1", "backbone.backoff_s=0.1")


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / request.param
    shutil.copytree(ASSETS / request.param, folder)
    settings = folder / "tokenizer_config.json"
    own = json.loads(settings.read_text())
    settings.write_text(json.dumps({**own, "chat_template": TEMPLATE.strip(), "response_template": ANSWER}))
    server = Served(folder)
    server.start()
    yield server
    server.stop()


def run(words: tuple[str, ...], runs: Path, *more: str) -> list[Episode]:
    """A cell, run by the command's own function; its episodes by task."""
    row = run_single(compose([*words, *SMALL, f"machine.runs_dir={runs}", *more]), Console(file=io.StringIO()))
    return sorted(RunDir(runs, row["run_id"]).episodes(), key=lambda episode: episode.task_id)


def alike(theirs: list[Episode], ours: list[Episode]) -> None:
    """The same steps with the same texts, and contexts of as many tokens."""
    assert len(theirs) == len(ours) > 0
    for there, here in zip(theirs, ours, strict=True):
        assert not there.error and not here.error
        assert there.answer == here.answer
        steps = {step.step: step for step in here.steps}
        assert {step.step for step in there.steps} == set(steps)
        for step in there.steps:
            own = steps[step.step]
            assert (step.texts, step.path) == (own.texts, own.path), (there.task_id, step.step)
            if own.output_tokens:
                assert step.prefill_tokens == own.prefill_tokens + own.reused_tokens, (there.task_id, step.step)
                assert step.output_tokens == own.output_tokens


@BOTH
@pytest.mark.parametrize("benchmark", ["mini-gsm8k", "mini-hotpotqa"])
def test_one_call_answers_as_the_engine_does(served: Served, benchmark: str, tmp_path: Path) -> None:
    cell = ("method=vanilla", f"benchmark={benchmark}", "benchmark.limit=6")
    alike(run(served.words, tmp_path, *cell), run(served.local, tmp_path, *cell))


@LLAMA
@isolated
@pytest.mark.parametrize(("method", "benchmark"), [("taskweaver", "mini-gsm8k"), ("metagpt", "mini-mbpp")])
def test_methods_with_tools_answer_as_on_the_engine(
    served: Served, method: str, benchmark: str, tmp_path: Path
) -> None:
    """Cells that run, tests that fail and are repaired: what a tool says decides what is called next."""
    cell = (f"method={method}", f"benchmark={benchmark}", "benchmark.limit=5")
    theirs = run(served.words, tmp_path, *cell)
    alike(theirs, run(served.local, tmp_path, *cell))
    assert {"run_python", "run_tests", "taskweaver_run"} & {step.op for own in theirs for step in own.steps}


@LLAMA
@isolated
@pytest.mark.parametrize(
    ("name", "benchmark"), [("code_tests_fix", "mini-mbpp"), ("program_cot_ensemble", "mini-gsm8k")]
)
def test_guards_joins_and_selections_are_the_engine_s(
    served: Served, name: str, benchmark: str, tmp_path: Path
) -> None:
    house, ways = House(), set()
    workflow = house.workflows[name]
    episodes = []
    for words in (served.words, served.local):
        config = compose([*words, *SMALL, f"benchmark={benchmark}", "benchmark.limit=12"])
        executor = house.executor(config, config.kv, Sandbox(config.engine.sandbox))
        tasks = [example.task for example in house.examples(config)]
        found = executor.run(tasks, lambda arriving: [workflow] * len(arriving))
        episodes.append(sorted(found, key=lambda episode: episode.task_id))
        ways = {tuple(sorted(step.step for step in own.steps)) for own in episodes[-1]}
    alike(*episodes)
    assert len(ways) == (2 if name == "code_tests_fix" else 1), "some tasks pass their tests, some do not"


PLANNER = pytest.mark.parametrize("served", ["llama-mini-planner"], indirect=True)


@PLANNER
@isolated
def test_a_plan_that_the_model_writes_is_the_engine_s(served: Served, tmp_path: Path) -> None:
    cell = ("method=llmcompiler", "method.scripted=no", "benchmark=mini-gsm8k", "benchmark.limit=4")
    theirs = run(served.words, tmp_path, *cell)
    alike(theirs, run(served.local, tmp_path, *cell))
    assert {"llmcompiler_plan", "llmcompiler_finish", "program"} <= {step.op for own in theirs for step in own.steps}


@PLANNER
@isolated
@pytest.mark.parametrize("method", ["aflow", "autoflow"])
def test_a_search_by_what_the_model_writes(served: Served, method: str, tmp_path: Path) -> None:
    """A small budget: it ends when it is spent, with the best so far."""
    cell = (f"method={method}", "method.scripted=no", "benchmark=mini-mbpp", "benchmark.limit=2")
    words = [*served.words, *SMALL, *cell, "trials.tasks=2", "trials.llm_calls=24", f"machine.runs_dir={tmp_path}"]
    found = Search(House(), compose(words))
    episodes = run(served.words, tmp_path, *cell, "trials.tasks=2", "trials.llm_calls=24")
    tried = json.loads((found.folder / "mini-mbpp.json").read_text())
    assert len(tried) > 1 and all(not own.error for own in episodes)
    assert method == "aflow" or any(not attempt["error"] for attempt in tried[1:])


@LLAMA
def test_what_the_server_refuses_is_said(served: Served, tmp_path: Path) -> None:
    cell = ("method=vanilla", "benchmark.limit=2", "backbone.model=another")
    with pytest.raises(BackboneError, match="answered 400 .Server is pinned to .*; requested 'another'"):
        run(served.words, tmp_path, *cell)


@LLAMA
def test_a_server_that_is_killed_and_started_again(served: Served, tmp_path: Path) -> None:
    """After the second episode the process is killed; with another one in its place the same command goes on."""
    cell = ("method=vanilla", "benchmark=mini-math", "benchmark.limit=6", "engine.concurrency=1")
    job = House().job(compose([*served.words, *SMALL, f"machine.runs_dir={tmp_path}", *cell]))
    found: list[Episode] = []

    def note(episode: Episode) -> None:
        found.append(episode)
        if len(found) == 2:
            served.stop()

    with pytest.raises(BackboneError, match="could not be reached .*; every finished episode is kept"):
        run_cell(job, note)
    assert len(job.run_dir.lines()) == 2 and job.run_dir.done is None
    served.start()
    episodes = run(served.words, tmp_path, *cell)
    assert len(episodes) == 6 and not any(episode.error for episode in episodes)
    assert job.run_dir.done and job.run_dir.done["resumed_episodes"] == 2
