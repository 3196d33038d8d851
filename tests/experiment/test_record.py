"""Run directories: resume after a real kill, one process at a time, the record before compute, the done-marker last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphflow.experiment import record
from graphflow.experiment.record import (
    RunDir,
    RunLockedError,
    digest,
    file_digest,
    provenance,
    weights_digest,
    write_json,
)
from graphflow.paths import ROOT
from tests.experiment import fakes

WORKER = [sys.executable, "-m", "tests.experiment.worker"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*WORKER, str(folder), *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_lines(file: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if file.exists() and file.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"{file} did not grow to {count} lines")


def test_a_killed_run_resumes_with_no_episode_lost_or_doubled(tmp_path: Path) -> None:
    first = start(tmp_path, "12", "0.1")
    folder = Path(first.stdout.readline().strip())  # type: ignore[union-attr]
    wait_for_lines(folder / "episodes.jsonl", 3)

    # while it works, nobody else may
    with (
        pytest.raises(RunLockedError, match=f"run {folder.name} is being worked on"),
        RunDir(tmp_path, folder.name).locked(),
    ):
        pass

    first.send_signal(signal.SIGKILL)
    first.wait()
    left = (folder / "episodes.jsonl").read_bytes()
    assert 3 <= left.count(b"\n") < 12
    assert not (folder / "done.json").exists()
    (folder / "episodes.jsonl").write_bytes(left + b'{"episode": {"task_id": "tor')  # killed in the middle of a line

    second = start(tmp_path, "12", "0")
    out, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    whole = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert sorted(line["episode"]["task_id"] for line in whole) == sorted(f"t{i}" for i in range(12))
    assert (folder / "episodes.jsonl").read_bytes().startswith(left)  # what was there was left alone
    done = json.loads((folder / "done.json").read_text())
    assert done["resumed_episodes"] == left.count(b"\n")
    assert "served" in out.splitlines()[-1]
    assert int(out.split()[-1]) == 12 - left.count(b"\n")  # only what was missing was served


def test_append_and_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "abc")
    with run.locked():
        assert run.begin({"a": 1}) == []
        run.append(fakes.episode("t0"), 10, 20)
    assert run.record == {"a": 1}
    assert run.episodes()[0].score is None
    run.finish({"scores": {"t0": 0.25}})
    assert run.episodes()[0].score == 0.25


def test_the_first_record_stays(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "abc")
    with run.locked():
        run.begin({"commit": "one"})
        run.begin({"commit": "two"})
    assert run.record == {"commit": "one"}


def test_a_torn_line_alone_is_cut_off(tmp_path: Path) -> None:
    run = RunDir(tmp_path, "abc")
    with run.locked():
        (run.path / "episodes.jsonl").write_text('{"epis')
        assert run.lines() == []
        assert run.begin({}) == []
    assert (run.path / "episodes.jsonl").read_text() == ""


def test_results_make_no_code_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("graphflow/code.py", "results/table.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("1")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "one")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "ROOT", tmp_path / "graphflow")
    (tmp_path / "results/table.csv").write_text("2")
    assert provenance()["dirty"] is False
    (tmp_path / "graphflow/code.py").write_text("2")
    assert provenance()["dirty"] is True


def test_provenance_names_what_ran_it() -> None:
    known = provenance()
    assert known["packages"]["torch"].startswith("2.")
    assert known["machine"]["cores"] >= 1
    assert set(known) == {"commit", "dirty", "python", "packages", "machine"}


def test_digests(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    (tmp_path / "x").write_text("1")
    before = file_digest(tmp_path)
    (tmp_path / "x").rename(tmp_path / "y")
    assert file_digest(tmp_path) != before  # a name is content too


def test_a_card_is_no_weight(tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json", "README.md", "training.json"):
        (tmp_path / name).write_text("1")
    before = weights_digest(tmp_path)
    (tmp_path / "README.md").write_text("2")
    (tmp_path / "training.json").unlink()
    assert weights_digest(tmp_path) == before
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("2")
        assert weights_digest(tmp_path) != before, name
        before = weights_digest(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.gguf").write_text("1")
    before = weights_digest(tmp_path / "other")
    (tmp_path / "other" / "model.gguf").write_text("2")
    assert weights_digest(tmp_path / "other") != before, "a format that is not known counts as a whole"


def test_write_json_leaves_no_partial(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1]})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
