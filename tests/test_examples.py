"""The examples run, and print what they say they do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from graphflow.paths import ROOT
from tests.tiny import tiny_model, tiny_tokenizer


def test_operation_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "operation_state.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main([str(tmp_path)])

    lines = capsys.readouterr().out.splitlines()
    rows = {}
    for line in lines[1 : 1 + len(example.MODES)]:
        cells = re.split(r"\s{2,}", line)
        rows[cells[0]] = [float(cell.replace(",", "")) for cell in " ".join(cells[1:]).split()]
    assert list(rows) == list(example.MODES)
    operation, _, prefilled, kl, agreement = range(5)
    for name in ("stateful", "prefix", "operation_first"):
        assert rows[name][kl] < 1e-6 and rows[name][agreement] == 1, name
    assert rows["stateless"][kl] > 1e-4
    assert rows["stateful_int4"][operation] < rows["stateful_int8"][operation] < rows["stateful"][operation]
    assert rows["stateful_int4"][prefilled] == rows["differential, request"][prefilled] == rows["stateful"][prefilled]
    for name in ("stateless", "no_pruning", "differential, path", "operation_first"):
        assert rows[name][operation] < rows["stateful"][operation], name
        assert rows[name][prefilled] < rows["stateful"][prefilled], name

    first, again = ([int(count) for count in line.split(": ")[-1].split(", ")] for line in lines[-2:])
    assert first[0] == 0 < first[-1], "the first text teaches the last"
    assert again == [first[-1]] * len(example.TEXTS), "from the saved store every text reuses, the first one too"


def test_the_page_on_operation_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code runs as it stands, and a store that it saved serves from the first text on."""
    tiny_model("llama").save_pretrained(tmp_path / "path/to/model")
    tiny_tokenizer().save_pretrained(tmp_path / "path/to/model")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/operation_state.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert set(names["session"].unexplained()) == {("draft", ()), ("check", ("draft",))}
    fresh = names["Session"](
        names["model"], names["operations"], names["KVConfig"]("differential", store="store", min_observations=2)
    )
    (episode,) = fresh.run(["one"], ["draft", "check"]).episodes
    assert episode.total("operation_reused") > 0 and not episode.total("fallback")
