from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from graphflow.engine.episode import Episode, StepRecord, Task
from graphflow.generator.outcomes import COLUMNS, OutcomeTable, RewardConfig, best_fixed, collect, summary
from graphflow.wgraph.workflow import Workflow
from tests.generator.small import COT, FIX, RUN, VOTE, row

TASKS = [Task(f"t{i}", "b", "gsm8k", f"text {i}") for i in range(4)]


def test_reward_by_hand() -> None:
    frame = pd.DataFrame([row(TASKS[0], COT, 1.0, tokens=500, latency=2.0)])
    # 1 - 0.1 * 2 s - 3 * 0.001 MB - 0.2 * 0.5 thousand tokens
    assert RewardConfig(latency=0.1, kv=3.0, tokens=0.2).of(frame)[0] == pytest.approx(1 - 0.2 - 0.003 - 0.1)
    with pytest.raises(ValueError, match="reward.kv must be at least 0, got -1"):
        RewardConfig(kv=-1)


def test_a_triple_is_added_once() -> None:
    table = OutcomeTable()
    table.add(row(TASKS[0], COT, 1.0), COT)
    table.add(row(TASKS[0], COT, 0.0, seed=1), COT)
    with pytest.raises(ValueError, match="is in the table already"):
        table.add(row(TASKS[0], COT, 0.5), COT)
    assert len(table) == 2 and (TASKS[0].id, COT.fingerprint, 1) in table
    assert table.means()["metric"].tolist() == [0.5]


def test_parts_of_a_table() -> None:
    table, part = OutcomeTable(), OutcomeTable()
    for task, made, seed in ((0, COT, 0), (1, RUN, 0), (0, VOTE, 0), (1, RUN, 1)):
        table.add(row(TASKS[task], made, 0.5, seed), made)
    pairs = [(TASKS[0].id, COT.fingerprint), (TASKS[1].id, RUN.fingerprint), (TASKS[0].id, VOTE.fingerprint)]
    assert table.pairs() == set(pairs)
    pd.testing.assert_frame_equal(table.head(3).frame, table.frame.iloc[:3])
    assert list(table.head(2).workflows.values()) == [COT, RUN]
    part.take(table, pairs[:0:-1])  # in the order that was asked for, every seed
    assert part.frame["workflow"].tolist() == ["vote", "run", "run"] and part.frame["seed"].tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=f"the table has no outcome of workflow {COT.fingerprint} on task 't1'"):
        part.take(table, [(TASKS[1].id, COT.fingerprint)])


def test_wrong_rows_are_refused() -> None:
    table, good = OutcomeTable(), row(TASKS[0], COT, 1.0)
    with pytest.raises(ValueError, match=r"missing \['seed'\], unknown \['sed'\]"):
        table.add({("sed" if key == "seed" else key): value for key, value in good.items()}, COT)
    with pytest.raises(ValueError, match=r"metric must be in \[0, 1\], got 1.5"):
        table.add({**good, "metric": 1.5}, COT)
    with pytest.raises(ValueError, match="is not that of workflow 'run'"):
        table.add(good, RUN)


def test_journal_survives_a_kill_and_save_folds_it(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.parquet"
    table = OutcomeTable(path)
    table.add(row(TASKS[0], COT, 1.0), COT)
    table.add(row(TASKS[1], VOTE, 0.0), VOTE)
    assert table.journal is not None and not path.exists()
    with table.journal.open("a") as file:
        file.write('{"row": {"task_id": "t')  # killed in the middle of a line
    again = OutcomeTable(path)
    again.add(row(TASKS[2], COT, 1.0), COT)
    assert len(OutcomeTable(path)) == 3
    again.save()
    assert path.exists() and not table.journal.exists()
    saved = OutcomeTable(path)
    pd.testing.assert_frame_equal(saved.frame, again.frame)
    assert list(saved.frame.columns) == list(COLUMNS)
    assert saved.workflows[VOTE.fingerprint] == VOTE


def test_save_needs_a_path() -> None:
    with pytest.raises(ValueError, match="save needs a path"):
        OutcomeTable().save()


def fake_run(pairs: list[tuple[Task, Workflow]]) -> Iterator[Episode]:
    for task, workflow in reversed(pairs):  # order of completion is not order of arrival
        steps = [StepRecord("s", "cot", prefill_tokens=30, output_tokens=12, texts=("a",))]
        yield Episode(task.id, "b", workflow.name, workflow.fingerprint, workflow.name, steps, 0.5, 0, 100, 11)


def test_collect_skips_what_is_there_and_what_does_not_fit() -> None:
    table, asked = OutcomeTable(), []

    def run(pairs: list[tuple[Task, Workflow]]) -> Iterator[Episode]:
        asked.extend((task.id, workflow.name) for task, workflow in pairs)
        return fake_run(pairs)

    table.add(row(TASKS[0], COT, 0.0), COT)
    added = collect(table, TASKS[:2], [COT, RUN, FIX], run, lambda task, answer: float(answer == "run"), chunk=2)
    assert added == 3 and asked == [("t0", "run"), ("t1", "cot"), ("t1", "run")]  # FIX is for another kind
    assert collect(table, TASKS[:2], [COT, RUN, FIX], run, lambda task, answer: 0.0) == 0
    last = table.frame.iloc[-1]
    assert (last["metric"], last["tokens"], last["kv_bytes"], last["llm_calls"]) == (1.0, 42, 111, 1)


def test_collect_misses_no_episode() -> None:
    with pytest.raises(RuntimeError, match="run returned no episode for .*1 of 2"):
        collect(OutcomeTable(), TASKS[:1], [COT, RUN], lambda pairs: fake_run(pairs[:1]), lambda task, answer: 0.0)


def test_summary_by_hand() -> None:
    # Metric of COT, RUN, VOTE on four tasks; the last pair is missing:
    # 1 0 0 / 1 0 1 / 0 1 0 / 1 0 -    winners: COT, COT+VOTE, RUN, COT: shares 2.5/4, 1/4, 0.5/4
    table = OutcomeTable()
    for task, metrics in zip(TASKS, [(1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 0)], strict=True):
        for workflow, metric in zip((COT, RUN, VOTE), metrics, strict=False):
            table.add(row(task, workflow, metric), workflow)
    line = summary(table).iloc[0]
    assert (line["tasks"], line["workflows"], line["best_fixed"]) == (4, 3, "cot")
    assert line["coverage"] == pytest.approx(11 / 12)
    assert line["entropy"] == pytest.approx(0.625 * 0.678072 + 0.25 * 2 + 0.125 * 3, abs=1e-5)  # log2(1/0.625) = .678
    assert (line["best_fixed_metric"], line["oracle"], line["gap"]) == (0.75, 1.0, 0.25)


def test_best_fixed_ties_and_partial_runs() -> None:
    table = OutcomeTable()
    for task in TASKS[:2]:
        table.add(row(task, COT, 0.5, tokens=200), COT)
        table.add(row(task, RUN, 0.5, tokens=100), RUN)
    table.add(row(TASKS[0], VOTE, 1.0), VOTE)  # run on one task only: does not compete
    assert best_fixed(table) == {"b": RUN.fingerprint}
    assert best_fixed(table, by="kind") == {"gsm8k": RUN.fingerprint}


def test_select_and_tasks() -> None:
    table = OutcomeTable()
    for task in TASKS:
        table.add(row(task, COT, 1.0), COT)
    part = table.select(["t1", "t3"])
    assert [task.id for task in part.tasks()] == ["t1", "t3"]
    assert part.tasks()[0] == TASKS[1]
