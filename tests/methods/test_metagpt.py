"""MetaGPT's procedure: the roles in order, a review that stops at approval, tests that the model wrote itself."""

from __future__ import annotations

import pytest

from graphflow.methods import MethodConfig, MethodError, build_method
from graphflow.methods.metagpt import MetaGPT
from graphflow.wgraph.workflow import validate
from tests.methods.served import KINDS, REPOSITORY, WORKFLOWS, Said, isolated, ran, serve, task

DOCUMENTS = {"metagpt_requirements": ["r"], "metagpt_design": ["d"], "metagpt_tasks": ["t"]}
GOOD = "def f(x):\n    return 2 * x"
BAD = "def f(x):\n    return x"


@pytest.mark.parametrize("mini", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_procedure_is_valid(kind: str, mini: bool) -> None:
    method = MetaGPT(REPOSITORY, WORKFLOWS, mini)
    validate(method.build(task(kind)), method.asking.library(REPOSITORY))
    assert not method.scripted


def test_roles_go_by_the_turn_format() -> None:
    def first(turns: str, scripted: str = "auto") -> str:
        method = build_method(MethodConfig("metagpt", scripted=scripted), REPOSITORY, WORKFLOWS, turns=turns)
        return method.build(task("gsm8k")).steps[0].op

    assert (first("mini"), first("qwen")) == ("decompose", "metagpt_requirements")
    assert (first("mini", scripted="no"), first("qwen", scripted="yes")) == ("metagpt_requirements", "decompose")
    with pytest.raises(MethodError, match="has procedures for .*, not for the kind 'poems'"):
        MetaGPT(REPOSITORY, WORKFLOWS).build(task("poems"))


REVIEWS = [
    (["LGTM"], ["review"], "first"),
    (["LBTM: wrong", "LGTM, thanks"], ["review", "revise", "review_2"], "second"),
    (["LBTM: wrong", "LBTM: still wrong"], ["review", "revise", "review_2", "revise_2"], "third"),
]


@pytest.mark.parametrize(("kind", "first", "again"), [("hotpotqa", "reply", "revise"), ("mbpp", "code", "rewrite")])
@pytest.mark.parametrize(("reviews", "steps", "answer"), REVIEWS)
def test_the_review_ends_when_it_approves(
    reviews: list[str], steps: list[str], answer: str, kind: str, first: str, again: str
) -> None:
    method, later = MetaGPT(REPOSITORY, WORKFLOWS), ["second", "third"]
    said = Said({
        **DOCUMENTS, "metagpt_reply": ["first"], "metagpt_implement": ["first"], "metagpt_review": reviews,
        "revise": later, "metagpt_rewrite": later, "metagpt_tests": ["there are none"],
    })  # fmt: skip
    episode = serve(method, task(kind), said)
    steps = [step.replace("revise", again) for step in steps]
    assert ran(episode)[: len(steps) + 5] == ["requirements", "design", "tasks", first, *steps, "reviewed"]
    assert not episode.error and episode.answer == answer
    assert said.read["metagpt_review"] == [["first"], ["second"]][: len(reviews)]


@pytest.mark.parametrize(("reviews", "steps", "answer"), REVIEWS)
def test_the_review_of_a_mini_backbone_too(reviews: list[str], steps: list[str], answer: str) -> None:
    """Its program fails to compile, so that the reviewed solution is the answer."""
    reviews = ["ok" if text.startswith("LGTM") else "issues: 2 + 2 = 5" for text in reviews]
    said = Said({
        "decompose": ["p"], "generate_cot": ["first"], "review": reviews, "revise": ["second", "third"],
        "program": ["?"], "ensemble_select": ["A"],
    })  # fmt: skip
    episode = serve(MetaGPT(REPOSITORY, WORKFLOWS, mini=True), task("gsm8k"), said)
    assert [step for step in ran(episode) if step[:6] in ("review", "revise") and step != "reviewed"] == steps
    assert not episode.error and episode.answer == answer and "select" not in ran(episode)


@isolated
def test_own_tests_are_run_and_what_fails_is_repaired() -> None:
    tests = "```python\nassert f(1) == 2\nassert f(4) == 8\n```"
    said = Said({
        **DOCUMENTS, "metagpt_implement": [BAD], "metagpt_review": ["LGTM"], "metagpt_tests": [tests],
        "metagpt_debug": ["def f(x):\n    return x + 1", f"```python\n{GOOD}\n```"],
    })  # fmt: skip
    episode = serve(MetaGPT(REPOSITORY, WORKFLOWS), task("mbpp", entry_point="f"), said)
    assert ran(episode)[-6:] == ["tests", "run", "debug", "run_2", "debug_2", "tested"]
    assert said.read["metagpt_tests"] == [[BAD]]
    assert [given[-1] for given in said.read["metagpt_debug"]] == [
        "failed: f(1) gave 1, expected 2",
        "failed: f(4) gave 5, expected 8",
    ]
    assert not episode.error and episode.answer == GOOD


@isolated
@pytest.mark.parametrize("tests", ["assert f(1) == 2", "these are tests, honestly", "no", ""])
def test_nothing_is_repaired_where_no_test_fails(tests: str) -> None:
    said = Said({
        **DOCUMENTS, "metagpt_implement": [GOOD], "metagpt_review": ["LGTM"], "metagpt_tests": [tests],
        "metagpt_debug": [BAD],
    })  # fmt: skip
    episode = serve(MetaGPT(REPOSITORY, WORKFLOWS), task("mbpp", entry_point="f"), said)
    assert ran(episode)[-3:] == ["tests", "run", "tested"] and episode.answer == GOOD


@isolated
def test_code_of_a_mini_backbone_is_reviewed_by_the_examples() -> None:
    said = Said({"code_generate": [BAD], "reflect": ["it must double"], "fix_program": [BAD, BAD, BAD, GOOD]})
    asked = task("mbpp", entry_point="f", visible_tests=("assert f(1) == 2",))
    episode = serve(MetaGPT(REPOSITORY, WORKFLOWS, mini=True), asked, said)
    assert [step for step in ran(episode) if step[:6] not in ("check", "check_")] == [
        "code", "review", "rewrite", "review_2", "rewrite_2", "reviewed", "tests", "debug", "tests_2", "debug_2",
        "tested",
    ]  # fmt: skip
    assert episode.answer == GOOD


@isolated
@pytest.mark.parametrize("mini", [True, False])
@pytest.mark.parametrize("kind", ["gsm8k", "hotpotqa", "mbpp"])
def test_garbage_ends_without_an_error(kind: str, mini: bool) -> None:
    method, asked = MetaGPT(REPOSITORY, WORKFLOWS, mini), task(kind, entry_point="f", visible_tests=("assert f(1)",))
    episode = serve(method, asked)
    assert not episode.error and ran(episode)[-1] == method.build(asked).answer
    assert episode.llm_calls > 1
