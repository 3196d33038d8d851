"""The notebook runs from top to bottom on a small results folder."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

from graphflow.experiment.tables import write_csv
from graphflow.paths import ROOT
from tests.experiment import fakes


@pytest.mark.slow  # starts a kernel
def test_the_notebook_draws_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("main_table", "kv_modes"):
        write_csv(tmp_path / f"{name}.csv", fakes.tables()[name].to_dict("records"))
    monkeypatch.setenv("GRAPHFLOW_RESULTS", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "notebooks" / "figures.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["kv_modes.csv", "main_table.csv"]  # it only reads


def test_the_committed_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "figures.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
