"""The repository itself: scripts import, the Makefile explains itself, pins agree, modules stay small."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from graphflow.paths import ROOT

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
MODULES = sorted(path for folder in ("graphflow", "scripts") for path in (ROOT / folder).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TARGETS = ("help", "setup", "reproduce", "test", "test-kernel", "check", "bench", "clean")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"scripts_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_imports_and_has_a_main(path: Path) -> None:
    assert callable(load(path).main)


def test_the_wandb_report_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("wandb_workspaces"):
        pytest.skip("the extra wandb-report is installed: nothing is missing")
    assert load(ROOT / "scripts" / "report.py").main(["--entity", "me"]) == 2
    assert "pip install '.[wandb-report]'" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_every_target() -> None:
    run = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    described = re.findall(r"^  ([a-z-]+) +\S", run.stdout, flags=re.MULTILINE)
    assert tuple(described) == TARGETS
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony is not None and tuple(phony.group(1).split()) == TARGETS


def test_every_pin_is_exact_and_agrees_with_the_constraints() -> None:
    project = PROJECT["project"]
    pins = [*project["dependencies"], *(pin for extra in project["optional-dependencies"].values() for pin in extra)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for pin in pins:
        found = re.fullmatch(r"([\w-]+)(\[\w+\])?==([\w.]+)", pin)
        assert found, f"{pin} is not an exact pin"
        name, version = found.group(1), found.group(3)
        known = {key.lower().replace("_", "-"): value for key, value in constraints.items()}
        assert known.get(name.lower(), version) == version


def test_the_conda_environment_installs_by_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]


def test_citation_names_the_paper_and_the_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert "arXiv:2605.22566" in str(citation["preferred-citation"])
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_no_module_is_two_ideas() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in MODULES if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.stat().st_size and not path.read_text().startswith(('"""', 'r"""'))
    ]
    assert not silent


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in MODULES if path.is_relative_to(ROOT / "graphflow")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_ci_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-2:] == ["make check", "make test"]
