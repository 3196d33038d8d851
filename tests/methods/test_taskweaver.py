"""TaskWeaver: an interpreter whose state lasts, retries with the error, and a planner with a limit of posts."""

from __future__ import annotations

import pytest

from graphflow.engine.episode import StepOutput
from graphflow.engine.tools import ToolBox
from graphflow.methods import MethodConfig, build_method
from graphflow.methods.taskweaver import POSTS, TaskWeaver, run_cell
from tests.methods.served import KINDS, REPOSITORY, WORKFLOWS, Said, isolated, ran, serve, task

PLAN = "1. Find x.\n2. Use it."
FIRST = "x = 20\ndef solve():\n    return x"
SECOND = "def solve():\n    return x + 1"
WRONG = "def solve():\n    return y"


def model(**texts: list[str]) -> Said:
    """What planner and interpreter write; the planner concludes with 21."""
    named = {f"taskweaver_{op}" if op != "fix_program" else op: given for op, given in texts.items()}
    return Said({"taskweaver_plan": [PLAN], "taskweaver_conclude": ["<answer>21</answer>"], **named})


@isolated
def test_state_lasts_from_cell_to_cell() -> None:
    method = TaskWeaver(REPOSITORY, WORKFLOWS)
    observed = ["<next>Add one to x.</next>", "It is done: <answer>21</answer>"]
    said = model(cell=[FIRST, SECOND], observe=observed)
    episode = serve(method, task("gsm8k"), said)
    assert ran(episode) == ["plan", "cell_1_1", "run_1_1", "observe_1", "cell_2_1", "run_2_1", "observe_2"]
    assert said.read["taskweaver_cell"] == [[PLAN], [observed[0]]]
    assert said.read["taskweaver_observe"] == [["20", PLAN], ["21", "20", PLAN]]  # x is still there
    assert method.asking.read(task("gsm8k"), episode.answer) == "21"


@isolated
def test_a_cell_is_tried_again_with_its_error() -> None:
    said = model(cell=[WRONG], fix_program=[WRONG, SECOND, FIRST], observe=["<answer>20</answer>"])
    episode = serve(TaskWeaver(REPOSITORY, WORKFLOWS), task("gsm8k"), said)
    assert said.read["fix_program"] == [
        ["error: NameError: name 'y' is not defined"],
        ["error: NameError: name 'y' is not defined"],
        ["error: NameError: name 'x' is not defined"],
    ]
    assert said.read["taskweaver_observe"] == [["20", PLAN]]
    assert [step for step in ran(episode) if step.startswith("run")] == ["run_1_1", "run_1_2", "run_1_3", "run_1_4"]


@isolated
def test_a_cell_that_failed_leaves_nothing_behind() -> None:
    """After three retries the planner sees the error; the next cell runs behind the cells that succeeded alone."""
    said = model(
        cell=[FIRST, "1 +", SECOND], fix_program=["2 +"], observe=["<next>a</next>", "<next>b</next>"], conclude=["end"]
    )
    episode = serve(TaskWeaver(REPOSITORY, WORKFLOWS), task("gsm8k"), said)
    assert said.read["taskweaver_observe"][1][0].startswith("error: SyntaxError")
    assert said.read["taskweaver_conclude"] == [["21", said.read["taskweaver_observe"][1][0], "20", PLAN]]
    assert episode.answer == "end" and not episode.error


@isolated
def test_posts_are_limited_and_the_last_one_answers() -> None:
    said = model(cell=[WRONG], fix_program=[WRONG], observe=["<next>try again</next>"])
    episode = serve(TaskWeaver(REPOSITORY, WORKFLOWS), task("gsm8k"), said)
    posts = [step for step in ran(episode) if not step.startswith("cell")]
    assert posts == [
        "plan", "run_1_1", "run_1_2", "run_1_3", "run_1_4", "observe_1", "run_2_1", "run_2_2", "run_2_3", "observe_2",
    ]  # fmt: skip
    assert len(posts) == POSTS and episode.answer == "<answer>21</answer>"
    said = model(cell=[FIRST], observe=["<next>go on</next>"])
    episode = serve(TaskWeaver(REPOSITORY, WORKFLOWS), task("gsm8k"), said)
    assert [step for step in ran(episode) if step.startswith("cell")] == ["cell_1_1", "cell_2_1", "cell_3_1"]
    assert [record.op for record in episode.steps][-1] == "taskweaver_conclude"


@isolated
def test_the_answer_to_a_code_task_is_the_code_that_was_kept() -> None:
    helper, rest = "def twice(x):\n    return 2 * x", "def f(x):\n    return twice(x)"
    asked = task("mbpp", entry_point="f", visible_tests=("assert f(1) == 2",))
    said = model(cell=[f"{helper}\n{rest}"], observe=["<answer>it doubles</answer>"])
    assert serve(TaskWeaver(REPOSITORY, WORKFLOWS), asked, said).answer == f"{helper}\n{rest}"
    untested = task("mbpp", entry_point="f")
    said = model(cell=[helper, rest], observe=["<next>now f</next>", "<answer>it doubles</answer>"])
    assert serve(TaskWeaver(REPOSITORY, WORKFLOWS), untested, said).answer == f"{helper}\n\n{rest}"
    said = model(cell=["nothing"], fix_program=["less", "least", "last"], observe=["<answer>?</answer>"])
    assert serve(TaskWeaver(REPOSITORY, WORKFLOWS), asked, said).answer == "last"  # better than no code


@isolated
def test_cells_see_the_passages() -> None:
    cell = StepOutput("def solve():\n    return [p for p in passages if 'Ann' in p][0]")
    asked = task("hotpotqa", passages=("Bob sleeps.", 'Ann\'s cat "eats".'))
    assert run_cell(asked, [cell], ToolBox()) == StepOutput('Ann\'s cat "eats".', {"failed": False})


@isolated
@pytest.mark.parametrize(
    ("kind", "texts", "steps", "answer"),
    [
        ("gsm8k", {"program": [FIRST]}, ["cell_1_1", "run_1_1", "observe_1"], "20"),
        (
            "math",
            {"program": [WRONG], "fix_program": [WRONG], "generate_cot": ["so 7"]},
            [*(f"{what}_1_{k}" for k in (1, 2, 3, 4) for what in ("cell", "run")), "observe_1", "answer"],
            "so 7",
        ),
        (
            "hotpotqa",
            {"lookup_query": ["Bob", "Ann"], "answer_generate": ["Oslo"]},
            ["cell_1_1", "run_1_1", "observe_1", "cell_2_1", "run_2_1", "observe_2", "answer"],
            "Oslo",
        ),
        ("humaneval", {"code_generate": [FIRST]}, ["cell_1_1", "run_1_1", "observe_1", "answer"], FIRST),
    ],
)
def test_a_script_plans_for_mini_backbones(
    kind: str, texts: dict[str, list[str]], steps: list[str], answer: str
) -> None:
    method = TaskWeaver(REPOSITORY, WORKFLOWS, scripted=True)
    said, asked = Said(texts), task(kind, passages=("Ann lives in Oslo.", "Bob knows Ann."))
    episode = serve(method, asked, said)
    assert ran(episode) == ["plan", *steps] and not episode.error
    assert method.asking.read(asked, episode.answer) == answer
    first = next(iter(texts))
    assert said.read[first][0] == [asked.text]  # what a mini backbone reads has no plan in it
    if kind == "hotpotqa":
        assert said.read["lookup_query"][1] == ["Bob knows Ann."]
        assert said.read["answer_generate"] == [["Ann lives in Oslo."]]


def test_scripts_go_by_the_turn_format() -> None:
    for turns, scripted in (("mini", ("taskweaver_plan", "taskweaver_observe", "taskweaver_conclude")), ("qwen", ())):
        assert build_method(MethodConfig("taskweaver"), REPOSITORY, WORKFLOWS, turns=turns).scripted == scripted


@isolated
@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_ends_without_an_error(kind: str, scripted: bool) -> None:
    asked = task(kind, passages=("one", "two"), entry_point="f", visible_tests=("assert f(1)",))
    episode = serve(TaskWeaver(REPOSITORY, WORKFLOWS, scripted), asked)
    assert not episode.error and ran(episode)[-1].startswith(("observe", "answer"))
    runs = [step for step in ran(episode) if step.startswith("run")]
    assert runs == (["run_1_1", "run_2_1"] if scripted and kind == "hotpotqa" else [f"run_1_{k}" for k in (1, 2, 3, 4)])
