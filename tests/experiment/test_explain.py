"""`graphflow explain` on a tiny backbone, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphflow.cli import OK, WRONG, main
from graphflow.experiment.serve import House
from tests.experiment.small import SMALL
from tests.tiny import tiny_backbone


def test_a_choice_is_printed_and_drawn(tmp_path: Path, monkeypatch, capsys) -> None:
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    picture = tmp_path / "why.png"
    words = [
        *SMALL,
        f"machine.runs_dir={tmp_path / 'runs'}",
        "fit.benchmarks=[mini-gsm8k]",
        "fit.train_tasks=5",
        "generator.epochs=1",
        "benchmark.test_size=4",
        f"path={picture}",
    ]
    assert main(["explain", "task=1", *words]) == OK
    said = capsys.readouterr().out
    for part in (
        "task mini-gsm8k/test/1:",
        "picked:",
        "reward on 5 like it",
        "the answer",
        "training tasks most like it",
    ):
        assert part in said
    assert picture.stat().st_size > 10_000
    assert main(["explain", "text=Find x if x + 3 = 9.", *words]) == OK
    assert "task text: Find x if x + 3 = 9." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "explain needs task=NUMBER, task=ID or text='...', one of them"),
        (["task=1", "text=what"], "explain needs task=NUMBER, task=ID or text='...', one of them"),
        (["task=500"], "task must be a number from 0 to 499 or an id such as 'mini-gsm8k/test/0', got '500'"),
        (["task=1", "path=why.pdf"], "path must end in .png or .svg, got 'why.pdf'"),
    ],
)
def test_what_is_refused(words: list[str], said: str, capsys) -> None:
    assert main(["explain", *words]) == WRONG
    assert said in capsys.readouterr().err
