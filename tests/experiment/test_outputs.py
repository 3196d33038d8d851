"""Figures, report and tracking: files that are there, whole, and say what they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphflow.experiment.plots import draw_all
from graphflow.experiment.report import Difference, write_report
from graphflow.experiment.reproduce import read_tables, write_pictures
from graphflow.experiment.stats import Interval
from graphflow.experiment.tables import write_csv
from graphflow.experiment.tracking import NoTracker, TrackingConfig, TrackingMode, track
from tests.experiment import fakes


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for name, frame in fakes.tables().items():
        write_csv(folder / f"{name}.csv", frame.to_dict("records"))
    return folder


def test_figures_and_report_come_from_the_tables_alone(results: Path) -> None:
    files = write_pictures(results, "graphflow reproduce profile=default")
    names = ["accuracy_by_method", "kv_against_accuracy", "kept_by_mode", "p90_by_mode", "concurrency"]
    assert [file.stem for file in files] == names
    for file in files:
        assert file.stat().st_size > 10_000
        assert file.with_suffix(".svg").read_text().startswith("<?xml")
    html = (results / "report.html").read_text()
    assert html.count("data:image/png;base64,") == len(files)
    assert not re.search(r'(src|href)="(?!data:)', html)  # self-contained: nothing is fetched
    for word in (
        "graphflow reproduce profile=default",
        "abcdef012345",
        "some CPU",
        "0.921",
        "4.95",
        "no pruning (path)",
    ):
        assert word in html


def test_the_main_table_comes_first(results: Path) -> None:
    assert next(iter(read_tables(results))) == "main_table"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no result tables"):
        read_tables(tmp_path)


def test_differences_are_shown(tmp_path: Path) -> None:
    item = Difference("graphflow", "best_fixed", 200, Interval(0.05, -0.01, 0.11))
    write_report(tmp_path / "r.html", {"main_table": fakes.tables()["main_table"]}, [], "x", [item])
    assert "+0.050" in (tmp_path / "r.html").read_text()
    assert "-0.010 to +0.110" in (tmp_path / "r.html").read_text()


def test_one_benchmark_and_one_method_draw_too(tmp_path: Path) -> None:
    frame = fakes.tables()["main_table"].iloc[:1]
    assert len(draw_all({"main_table": frame, "kv_modes": frame}, tmp_path)) == 4


def test_wandb_offline_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    rows = fakes.tables()["main_table"].to_dict("records")
    pictures = write_pictures(results, "x")
    with track(TrackingConfig(), tmp_path, "test", {"kv": {"mode": "stateful"}}) as tracker:
        tracker.episode(fakes.episode("a", 1.0))
        tracker.summary(rows[0])
        tracker.table("main_table", rows)
        tracker.figures(pictures[:1])
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_no_tracking_writes_nothing(tmp_path: Path) -> None:
    with track(TrackingConfig(mode=TrackingMode.NONE), tmp_path, "test", {}) as tracker:
        assert isinstance(tracker, NoTracker)
        tracker.episode(fakes.episode("a", 1.0))
    assert not list(tmp_path.iterdir())
