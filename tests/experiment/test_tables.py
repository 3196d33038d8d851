"""Rows by hand, columns exact, CSV there and back."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from graphflow.experiment.paper import paper_value
from graphflow.experiment.report import write_report
from graphflow.experiment.tables import COLUMNS, CellNames, headline, read_csv, summarise, write_csv
from tests.experiment import fakes

EXPECTED = """
artefact backbone benchmark method kv_mode kv_scope n_tasks metric_name scoring metric metric_lo metric_hi
p50_s p90_s p99_s llm_calls prefill_tokens reused_tokens output_tokens retained_op_bytes retained_dynamic_bytes
resident_peak_bytes fallback_rate kl_mean greedy_agreement run_id commit machine paper_value
"""
NAMES = CellNames(
    "main_table", "qwen-mini", "mini-mbpp", "graphflow", "differential", "path", "pass@1", "strict-4", "r", "c", "m"
)


def test_columns_are_exactly_those_of_the_design() -> None:
    assert list(COLUMNS) == EXPECTED.split()


def test_a_row_by_hand() -> None:
    # Each episode (fakes.episode): two LLM steps, one sample each: prefilled 30 + 10, reused 12 + 40, generated 8 + 6;
    # one of the two steps fell back; KL .2 and .4; agreement true and false; 100 bytes of its own operation state and
    # 1000 of dynamic text. The tool step in between counts nowhere.
    episodes = [fakes.episode("a", 1.0, latency=1.0), fakes.episode("b", 0.0, latency=3.0)]
    row = summarise(NAMES, episodes, shared_bytes=5000, peak_bytes=9000)
    assert tuple(row) == COLUMNS
    assert (row["n_tasks"], row["metric"], row["metric_lo"], row["metric_hi"]) == (2, 0.5, 0.0, 1.0)
    assert (row["p50_s"], row["p90_s"]) == (2.0, pytest.approx(2.8))  # between 1 and 3: 1 + .5 x 2, 1 + .9 x 2
    assert (row["llm_calls"], row["prefill_tokens"], row["reused_tokens"], row["output_tokens"]) == (2, 40, 52, 14)
    assert row["retained_op_bytes"] == 5000 + 2 * 100
    assert (row["retained_dynamic_bytes"], row["resident_peak_bytes"]) == (2000, 9000)
    assert row["fallback_rate"] == 0.5
    assert row["kl_mean"] == pytest.approx(0.3)
    assert row["greedy_agreement"] == 0.5
    assert row["paper_value"] == 0.747


def test_what_was_not_measured_is_empty() -> None:
    episode = fakes.episode("a", 1.0)
    for step in episode.steps:
        step.kl = step.agrees = None
    row = summarise(NAMES, [episode], 0, 0)
    assert row["kl_mean"] is None
    assert row["greedy_agreement"] is None


def test_the_papers_figures() -> None:
    assert paper_value("main_table", "qwen-mini", "mini-gsm8k", "graphflow", "differential") == 0.921
    assert paper_value("main_table", "qwen2.5-7b", "gsm8k", "graphflow", "differential") == 0.921
    assert paper_value("main_table", "llama3.1-8b", "math", "aflow", "stateful") == 0.475
    assert paper_value("main_table", "gemma-mini", "mini-mbpp", "graphflow", "differential") == 0.728
    assert paper_value("kv_modes", "qwen-mini", "mini-math", "best_fixed", "stateless") == 0.394
    assert paper_value("main_table", "qwen-mini", "mini-gsm8k", "graphflow", "stateful") is None
    assert paper_value("main_table", "qwen-mini", "mini-gsm8k", "vanilla", "stateful") is None
    assert paper_value("kv_modes", "qwen-mini", "mini-mbpp", "best_fixed", "stateful") is None


def test_csv_there_and_back(tmp_path: Path) -> None:
    rows = fakes.tables()["main_table"].to_dict("records")
    frame = read_csv(write_csv(tmp_path / "deep" / "main_table.csv", rows))
    assert (tmp_path / "deep" / "main_table.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(frame) == 25
    assert frame["run_id"].iloc[0] == "0" * 12
    assert not list(tmp_path.rglob("*.partial"))


def test_a_table_without_scoring_is_read(tmp_path: Path) -> None:
    rows = fakes.tables()["main_table"].to_dict("records")
    file = write_csv(tmp_path / "main_table.csv", rows)
    assert set(read_csv(file)["scoring"]) == {"strict-4"}
    pd.read_csv(file).drop(columns="scoring").to_csv(tmp_path / "old.csv", index=False)
    old = read_csv(tmp_path / "old.csv")
    assert tuple(old.columns) == COLUMNS and old["scoring"].isna().all()
    assert "strict" not in write_report(tmp_path / "old.html", {"main_table": old}, [], "x").read_text()
    assert "strict-4" in write_report(tmp_path / "new.html", {"main_table": read_csv(file)}, [], "x").read_text()


def test_another_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("artefact,other\n1,2\n")
    with pytest.raises(ValueError, match="unknown \\['other'\\]"):
        read_csv(tmp_path / "x.csv")


def test_headline_shows_every_method_and_state(capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=200).print(headline(fakes.tables()["main_table"], "main_table"))
    out = capsys.readouterr().out
    for word in ("vanilla", "differential (path)", "humaneval", "p90 s"):
        assert word in out
