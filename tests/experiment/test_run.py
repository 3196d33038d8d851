"""One cell from job to row, with a server that needs no model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphflow.experiment.compose import compose
from graphflow.experiment.run import Job, run_cell, table_row
from graphflow.experiment.serve import House
from tests.experiment import fakes
from tests.experiment.worker import job


def test_a_cell_runs_once_and_gives_a_row(tmp_path: Path) -> None:
    served: list[str] = []
    work, seen = job(str(tmp_path), 4, 0.0, served), []
    run_cell(work, seen.append)
    assert served == ["t3", "t2", "t1", "t0"]
    assert [episode.task_id for episode in seen] == served
    row = table_row(work, "main_table")
    assert (row["n_tasks"], row["metric"], row["metric_name"], row["scoring"]) == (4, 1.0, "pass@1", "strict-4")
    assert row["retained_op_bytes"] == 104 + 4 * 100  # the store after the fourth task, and each request's own
    assert row["run_id"] == work.run_id

    run_cell(work)
    assert len(served) == 4  # a finished run is left alone


def test_the_record_is_there_before_anything_is_computed(tmp_path: Path) -> None:
    work = job(str(tmp_path), 2, 0.0, [])
    opened = work.open

    def open_server() -> object:
        record = work.run_dir.record
        assert record["config"]["kv"]["mode"] == "differential"
        assert record["facts"] == {"repository": "r", "benchmark_version": 4}
        assert record["scoring"] == "strict-4"
        assert record["seeds"] == {"engine": 0, "benchmark": 42}
        assert record["packages"]["transformers"]
        assert not (work.run_dir.path / "episodes.jsonl").exists()
        return opened()

    run_cell(replace(work, open=open_server))
    assert work.run_dir.done


def test_a_row_needs_a_finished_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not finished"):
        table_row(job(str(tmp_path), 2, 0.0, []), "x")


def test_a_lost_episode_is_noticed(tmp_path: Path) -> None:
    work = job(str(tmp_path), 3, 0.0, [])

    def open_server() -> object:
        server = work.open()
        return replace(server, run=lambda tasks: iter([fakes.episode(tasks[0].id)]))

    with pytest.raises(RuntimeError, match="no episode for 2 tasks, the first is 't1'"):
        run_cell(replace(work, open=open_server))
    assert not work.run_dir.done


def test_warmup_is_served_and_not_counted(tmp_path: Path) -> None:
    served: list[str] = []
    work = job(str(tmp_path), 2, 0.0, served)

    def open_server() -> object:
        server = work.open()
        return replace(server, warmup=[example.task for example in server.examples])

    run_cell(replace(work, open=open_server))
    assert served == ["warmup/t1", "warmup/t0", "t1", "t0"]
    assert len(work.run_dir.lines()) == 2


def test_what_makes_another_run() -> None:
    def run_id(*words: str) -> str:
        return Job(compose(list(words)), {}, lambda: None, "accuracy").run_id  # type: ignore[arg-type, return-value]

    base = run_id()
    assert run_id("machine.runs_dir=elsewhere", "tracking=none", "experiment=smoke") == base
    assert len({base, run_id("kv=stateful"), run_id("engine.seed=1"), run_id("fit.train_tasks=9")}) == 4
    assert run_id("method=vanilla") == run_id("method=vanilla", "fit.train_tasks=9")  # it learns nothing


def write_rows(folder: Path, *answers: int) -> None:
    (folder / "gsm8k").mkdir(exist_ok=True)
    for split in ("train", "test"):
        rows = [json.dumps({"question": f"Q{i}?", "answer": f"#### {answer}"}) for i, answer in enumerate(answers)]
        (folder / "gsm8k" / f"{split}.jsonl").write_text("\n".join(rows))


def real(folder: Path, *words: str) -> Job:
    return House().job(compose(["benchmark=gsm8k", f"benchmark.data_dir={folder}", "warmup=0", *words]))


def test_other_rows_in_the_same_folder_make_another_run(tmp_path: Path) -> None:
    write_rows(tmp_path, *range(20))
    job = real(tmp_path, "method=vanilla")
    assert set(job.facts["data"]) == {"gsm8k test"}
    assert real(tmp_path, "method=vanilla").run_id == job.run_id
    learning = ["method=best_fixed", "fit.benchmarks=[gsm8k]"]
    taught = real(tmp_path, *learning)
    assert set(taught.facts["data"]) == {"gsm8k test", "gsm8k training"}
    table = House().fit_dir(taught.config).path
    write_rows(tmp_path, *range(19, -1, -1))  # the same questions and other answers, in both files
    assert real(tmp_path, "method=vanilla").run_id != job.run_id
    other = real(tmp_path, *learning)
    assert other.facts["data"]["gsm8k training"] != taught.facts["data"]["gsm8k training"]
    assert House().fit_dir(other.config).path != table


def test_rows_that_code_makes_need_no_digest() -> None:
    assert "data" not in House().job(compose(["benchmark=mini-gsm8k", "method=vanilla"])).facts


def test_the_record_says_whether_programs_were_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for problem in ("", "bwrap is broken"):
        monkeypatch.setattr("graphflow.experiment.serve.bubblewrap_problem", lambda bwrap, problem=problem: problem)
        words = ["benchmark=mini-mbpp", "method=vanilla", "engine.sandbox.allow_unisolated=true", "tracking=none"]
        made = House().job(compose([*words, f"machine.runs_dir={tmp_path}"]))
        served = replace(made, open=job(str(tmp_path), 1, 0.0, []).open)
        record = run_cell(served).record
        assert record["facts"]["sandbox_isolated"] is (not problem)
        assert record["config"]["engine"]["sandbox"]["allow_unisolated"] is True
        ids.append(served.run_id)
    assert ids[0] != ids[1]


def test_what_scoring_counts_is_kept_with_the_scores(tmp_path: Path) -> None:
    counts = {"comparisons": 5, "timeouts": 1}  # an earlier run of this process
    work = job(str(tmp_path), 2, 0.0, [])

    def open_server() -> object:
        server = work.open()

        def score(asked: object, answers: object) -> list[float]:
            counts.update(comparisons=7, timeouts=2)
            return server.score(asked, answers)  # type: ignore[arg-type]

        return replace(server, score=score, statistics=lambda: dict(counts))

    done = run_cell(replace(work, open=open_server)).done
    assert done is not None and done["scoring"] == {"comparisons": 2, "timeouts": 1}
