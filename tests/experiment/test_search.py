"""`graphflow fit`: methods that search are fitted once, resume, are capped, and runs read what was found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import graphflow.experiment.search as search_module
from graphflow.cli import OK, WRONG, main
from graphflow.experiment.compose import compose
from graphflow.experiment.experiments import settings
from graphflow.experiment.plan import SEARCHING, cells
from graphflow.experiment.search import JOURNAL, Search
from graphflow.experiment.serve import House
from graphflow.methods.agentkb import AgentKB
from graphflow.methods.found import Found
from graphflow.paths import ROOT
from tests.experiment.small import SMALL
from tests.test_repository import load
from tests.tiny import tiny_backbone

WORDS = ("benchmark=mini-gsm8k", "method=autoflow", "trials.tasks=2", "benchmark.limit=2", "kv=stateful")


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A search over two validation tasks on a tiny random model."""
    tiny = tiny_backbone()
    monkeypatch.setattr(House, "backbone", lambda self, config: tiny)
    return [*SMALL, *WORDS, f"machine.runs_dir={tmp_path}"]


def search(words: list[str]) -> Search:
    return Search(House(), compose(words))


def test_a_search_is_made_once_and_runs_read_it(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", *words]) == OK
    said = capsys.readouterr().out
    found = search(words)
    assert found.done and str(found.run_dir.path.name) in said
    kept = json.loads((found.folder / "mini-gsm8k.about.json").read_text())
    history = json.loads((found.folder / "mini-gsm8k.json").read_text())
    assert kept["spent"]["tasks"] == 2 and len(history) == 11, "the first flow and ten epochs"
    journal = (found.run_dir.path / JOURNAL).read_bytes()
    lines = [json.loads(line) for line in journal.splitlines()]
    tried = {(line["fingerprint"], line["task"]) for line in lines if "fingerprint" in line}
    assert kept["spent"]["executions"] == len(tried) and kept["spent"]["proposals"] == len(lines) - len(tried) == 10
    assert main(words) == OK
    assert (found.run_dir.path / JOURNAL).read_bytes() == journal, "nothing is tried twice"
    house = House()
    method = house.method(compose(words))
    assert isinstance(method, Found)
    episodes = house.job(compose(words)).run_dir.episodes()
    assert {episode.fingerprint for episode in episodes} == {method.best["mini-gsm8k"].fingerprint}
    done = house.job(compose(words)).run_dir.done or {}
    assert done["fitting"] == kept["spent"] and done["scripted"] == ["autoflow_flow"]


def test_a_stopped_search_goes_on(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search(words)
    served: list[str] = []

    def stop(episode) -> None:
        served.append(episode.task_id)
        if len(served) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        House().method(compose(words), stop)
    lines = (whole.run_dir.path / JOURNAL).read_text().splitlines()
    tried = [line for line in lines if "fingerprint" in line]
    assert not whole.done and len(tried) == 4, "the fifth was cut off before it was scored"
    again: list[str] = []
    House().method(compose(words), lambda episode: again.append(episode.task_id))
    spent = json.loads((whole.folder / "mini-gsm8k.about.json").read_text())["spent"]
    assert len(tried) + len(again) == spent["executions"]


def test_what_makes_another_search(words: list[str]) -> None:
    own = search(words).identity
    assert search([*words, "kv=differential", "fit.train_tasks=9", "warmup=0"]).identity == own
    for word in ("trials.tasks=1", "trials.llm_calls=9", "method.name=aflow", "benchmark=mini-math", "engine.seed=1"):
        assert search([*words, word]).identity != own, word


def test_the_run_of_a_method_that_does_not_search_has_no_budget() -> None:
    house = House()
    ids = [house.job(compose(["method=vanilla", *more])).run_id for more in ([], ["trials.tasks=3"])]
    assert ids[0] == ids[1]


def test_what_comes_with_the_package_is_read(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["fit", *words]) == OK
    found = search(words)
    script, own = load(ROOT / "scripts" / "fit_searches.py"), ["--set", *[w for w in words if w not in WORDS[:2]]]
    chosen = ["--backbones", "qwen-mini", "--benchmarks", "mini-gsm8k", "--methods", "autoflow"]
    assert script.main([*chosen, "--out", str(tmp_path / "shipped"), *own]) == 0
    folder = tmp_path / "shipped" / "qwen-mini" / "autoflow"
    assert {file.suffix for file in folder.iterdir()} == {".yaml", ".json"} and found.done
    monkeypatch.setattr(search_module, "SHIPPED", tmp_path / "shipped")
    elsewhere = [*words, f"machine.runs_dir={tmp_path / 'empty'}"]
    assert search(elsewhere).shipped == folder and search(elsewhere).identity.startswith("shipped ")
    assert House().search_left(compose(elsewhere)) == 0
    method = House().method(compose(elsewhere))
    assert isinstance(method, Found) and list(method.best) == ["mini-gsm8k"]
    assert not (tmp_path / "empty").exists(), "nothing was searched"
    assert search([*elsewhere, "trials.refit=true"]).shipped is None
    assert search([*elsewhere, "trials.tasks=1"]).shipped is None, "that is another search"
    monkeypatch.setattr(search_module, "VERSION", search_module.VERSION + 1)
    assert search(elsewhere).shipped is None, "that code finds something else"


SHIPPED = sorted(search_module.SHIPPED.glob("*/*/*.about.json"))


@pytest.fixture(scope="module")
def house() -> House:
    """One for all that is shipped: it digests weights once."""
    return House()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: "/".join(file.parts[-3:]).removesuffix(".about.json"))
def test_what_is_shipped_is_of_the_weights_and_code_that_are(file: Path, house: House) -> None:
    backbone, method, name = file.parts[-3:]
    words = [f"backbone={backbone}", f"method={method}", f"benchmark={name.removesuffix('.about.json')}"]
    own = Search(house, compose([*words, "trials.refit=false"]))
    assert own.shipped == file.parent and json.loads(file.read_text())["about"] == own.about
    assert json.loads(file.read_text())["commit"].isalnum(), "made by a commit, not by a dirty tree"


def test_the_main_table_searches_nothing(house: House) -> None:
    config = settings("main_table", [])
    made = [cell for cell in cells(config.experiment) if "kv=stateful" in cell.overrides]  # searches have their own
    searching = [cell for cell in made if any(f"method={name}" in cell.overrides for name in SEARCHING)]
    assert len(searching) == 3 * 5 * 2
    assert all(house.search_left(compose(cell.overrides)) == 0 for cell in searching)


def test_methods_that_learn_from_outcomes_are_fitted_too(words: list[str], capsys: pytest.CaptureFixture) -> None:
    learning = ["method=best_fixed", "fit.benchmarks=[mini-gsm8k]", "fit.train_tasks=5", "benchmark.train_size=5"]
    assert main(["fit", *words, *learning]) == OK
    table = House().outcomes(compose([*words, *learning]))
    spent = House().method(compose([*words, *learning])).spent
    assert spent.executions == len(table) and spent.llm_calls == table.frame["llm_calls"].sum()
    assert str(spent.llm_calls) in capsys.readouterr().out


def test_a_knowledge_base_is_made_once_and_runs_read_it(words: list[str]) -> None:
    own = ["method=agentkb", "fit.benchmarks=[mini-gsm8k]", "fit.train_tasks=5", "benchmark.train_size=5"]
    assert main(["fit", *words, *own]) == OK
    house, config = House(), compose([*words, *own])
    (file,) = house.fit_dir(config).path.glob("knowledge-*/knowledge_base.json")
    content = json.loads(file.read_text())
    assert len(content["entries"]) == 5
    content["entries"][0]["query"] = "what only the file says"
    file.write_text(json.dumps(content))
    method = house.method(config)
    assert isinstance(method, AgentKB) and method.entries[0].query == "what only the file says"
    assert method.spent.executions == len(house.outcomes(config))


def test_bad_input_is_said(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", *words, "method=vanilla"]) == WRONG
    assert "vanilla learns nothing" in capsys.readouterr().err
    assert main(["fit", *words, "trials.tasks=0"]) == WRONG
    assert "trials.tasks must be an integer of 1 or more, got 0" in capsys.readouterr().err
    assert main(["fit", *words, "trials.llm_calls=1"]) == WRONG
    said = capsys.readouterr().err
    assert "'autoflow'" in said and "trials.llm_calls is 1" in said
