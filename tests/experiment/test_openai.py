"""Cells on a server: every method, what is refused, what is recorded, and a run whose server dies and comes back."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from graphflow.backbone.config import BackboneError
from graphflow.cli import WRONG, main
from graphflow.experiment.compose import compose
from graphflow.experiment.fit import open_table
from graphflow.experiment.run import Job
from graphflow.experiment.serve import House
from graphflow.experiment.single import run_single
from graphflow.methods import NAMES
from tests.chat import Chat, Reply

SMALL = ("tracking=none", "engine.sandbox.allow_unisolated=true", "machine.threads=1", "kv=stateful", "warmup=0")
FIT = ("fit.benchmarks=[mini-gsm8k]", "fit.train_tasks=5", "generator.epochs=1", "trials.tasks=2")
KEY = "sk-very-secret-0123456789"


def words(chat: Chat, runs: Path, *more: str) -> list[str]:
    """Overrides of a cell on the server; it is not slept between two tries."""
    server = [f"backbone.url={chat.url}", "backbone.model=m", "backbone.retries=1", "backbone.backoff_s=0"]
    return ["backbone=openai", *server, f"machine.runs_dir={runs}", *SMALL, *more]


def say(body: dict) -> str:
    """Something that every operation's output may be."""
    return "ok <answer>4</answer>\n```python\ndef solve():\n    return 4\n```"


def run(overrides: list[str]) -> dict:
    return run_single(compose(overrides), Console(file=io.StringIO()))


def run_dir(overrides: list[str]):
    return House().job(compose(overrides)).run_dir


SCRIPTED = ("metagpt", "llmcompiler", "taskweaver", "agentkb")


@pytest.mark.parametrize(
    ("method", "turns"),
    [*((name, "chat") for name in NAMES), *(pytest.param(name, "mini", marks=pytest.mark.slow) for name in SCRIPTED)],
)
def test_every_method_runs(method: str, turns: str, tmp_path: Path) -> None:
    """As it asks real models; and where scripts write plans, as it asks the mini ones."""
    with Chat(say) as chat:
        overrides = words(chat, tmp_path, f"method={method}", "benchmark.limit=2", f"backbone.turns={turns}", *FIT)
        row = run(overrides)
        assert (row["n_tasks"], row["backbone"], row["kv_mode"]) == (2, "openai", "stateful")
        assert row["llm_calls"] > 0 and row["prefill_tokens"] > 0 and row["retained_op_bytes"] == 0
        episodes = run_dir(overrides).episodes()
        assert not any(episode.error for episode in episodes)
        assert {body["model"] for body in chat.seen} == {"m"}
        before = len(chat.seen)
        run(overrides)
        assert len(chat.seen) == before, "a finished run is not run again"


def test_no_record_holds_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with Chat(say) as chat:
        run(words(chat, tmp_path, "method=vanilla", "benchmark.limit=2", "backbone.key_env=MY_KEY"))
        assert chat.headers["authorization"] == f"Bearer {KEY}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("MY_KEY" in path.read_text() for path in files if path.name == "record.json")
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def dying(chat: Chat, after: int) -> Callable[[dict], Reply | str]:
    """Answers so often, and nothing any more."""

    def answer(body: dict) -> Reply | str:
        if len(chat.seen) <= after:
            return say(body)
        chat.answer = chat.greet = lambda body: Reply("out of memory", status=503)
        return chat.answer(body)

    return answer


def test_a_run_goes_on_where_its_server_died(tmp_path: Path) -> None:
    with Chat(say) as chat:
        overrides = words(chat, tmp_path, "method=vanilla", "benchmark.limit=9", "engine.concurrency=1", "warmup=3")
        chat.answer = dying(chat, after=3 + 4)
        with pytest.raises(BackboneError, match="answered 503 .out of memory., tried 2 times; every finished episode"):
            run(overrides)
        kept = run_dir(overrides)
        assert len(kept.lines()) == 4 and kept.done is None and (kept.path / "record.json").exists()
        chat.answer, chat.greet = say, say
        before = len(chat.seen)
        assert run(overrides)["n_tasks"] == 9
        assert len(chat.seen) == before + 3 + 5
        assert not any(episode.error for episode in kept.episodes())
        assert len({episode.task_id for episode in kept.episodes()}) == 9


def test_a_server_that_is_not_there_leaves_no_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chat(say) as chat:
        overrides = words(chat, tmp_path, "method=vanilla", "benchmark.limit=9")
        chat.die()
        assert main(overrides) == WRONG
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"graphflow: backbone.url: {chat.url} could not be reached" in err
        assert not run_dir(overrides).lines()


def test_what_was_learned_before_a_server_died_is_kept(tmp_path: Path) -> None:
    with Chat(say) as chat:
        overrides = words(chat, tmp_path, "method=best_fixed", "benchmark.limit=2", "engine.concurrency=1", *FIT)
        chat.answer = dying(chat, after=20)
        with pytest.raises(BackboneError):
            run(overrides)
        folder, config = House().fit_dir(compose(overrides)).path, compose(overrides)
        kept = open_table(folder)
        assert len(kept) > 5 and not run_dir(overrides).lines()
        left = House().executions_left(config)["mini-gsm8k"]
        chat.answer, chat.greet = say, say
        run(overrides)
        assert len(open_table(folder)) == len(kept) + left


def test_a_search_goes_on_where_its_server_died(tmp_path: Path) -> None:
    """Of six validation tasks five are tried before; the first round is not tried again."""
    with Chat(say) as chat:
        more = ("method=aflow", "method.scripted=yes", "benchmark.limit=2", "engine.concurrency=1", "trials.tasks=6")
        overrides = words(chat, tmp_path, *more)
        chat.answer = dying(chat, after=5)
        with pytest.raises(BackboneError):
            run(overrides)
        (journal,) = tmp_path.glob("search-*/trials.jsonl")
        kept = journal.read_text()
        assert kept.count("fingerprint") == 5
        chat.answer, chat.greet = say, say
        run(overrides)
        assert journal.read_text().startswith(kept)


WRONG_WORDS = {
    "kv=differential": ["kv.mode must be stateful", "got 'differential'"],
    "kv=stateful_int8": ["kv.mode must be stateful", "got 'stateful_int8'"],
    "kv.dynamic_codec=int4": ["kv.dynamic_codec must be none", "got 'int4'"],
    "engine.fidelity=4": ["engine.fidelity must be 0", "got 4"],
    "generator.features.kind=backbone": ["generator.features.kind must be one of hashing, minilm", "got 'backbone'"],
    "backbone.key_env=NO_SUCH_KEY": ["backbone.key_env names NO_SUCH_KEY, which is not set"],
    "backbone.url=nowhere": ["backbone.url must be of the form http://host:port/v1, got 'nowhere'"],
    "backbone.model=": ["backbone.model must be the name"],
    "backbone.turns=qwen": ["backbone.turns must be chat or mini", "got 'qwen'"],
    "backbone.retries=-1": ["backbone.retries must be 0 or more, got -1"],
}


@pytest.mark.parametrize("word", WRONG_WORDS)
def test_what_is_wrong_ends_in_one_sentence(word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Chat(say) as chat:
        assert main([*words(chat, tmp_path, "method=vanilla", "benchmark.limit=1"), word]) == WRONG
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        for part in WRONG_WORDS[word]:
            assert part in err
        assert not chat.seen and not list(tmp_path.rglob("episodes.jsonl"))


def test_what_needs_the_model_itself_refuses() -> None:
    config = compose(["backbone=openai", "kv=stateful"])
    with pytest.raises(BackboneError, match="backbone.url must be empty where the model itself is needed"):
        House().backbone(config)


def test_what_makes_another_run() -> None:
    def run_id(*words: str) -> str:
        return Job(compose(["backbone=openai", *words]), {}, lambda: None, "accuracy").run_id  # type: ignore[arg-type, return-value]

    base = run_id()
    patience = ("backbone.timeout_s=9", "backbone.retries=0", "backbone.backoff_s=3", "backbone.key_env=K")
    assert run_id(*patience) == base, "how it is asked"
    other = (["backbone.url=http://h/v1"], ["backbone.model=x"], ["backbone.turns=mini"], ["engine.seed=1"])
    assert len({base, *(run_id(*words) for words in other)}) == 5
