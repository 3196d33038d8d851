"""AFlow: edits under the schema, experience that is read, early stop, resuming, one workflow a benchmark."""

import json

import pytest

from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.tools import ToolBox
from graphflow.methods.aflow import AFlow
from graphflow.methods.base import MethodError
from graphflow.methods.edits import apply_edit
from graphflow.methods.search_tree import Refused, Tree
from graphflow.methods.trials import BudgetSpent, TrialConfig, Trials
from graphflow.wgraph.operation import Kind
from tests.generator.small import COT, LIBRARY, RUN, VOTE
from tests.methods.searching import DIRECT, REPOSITORY, TASKS, World, worth

TO_RUN = "add program: program(task); add run: run(program); answer run"
TO_VOTE = "add program: program(task); add run: run(program); add vote: vote(cot, run); answer vote"


def searched(says=None, config=None, journal=None, stop=0, score=worth, **more):
    method = AFlow(LIBRARY, REPOSITORY, scripted=says is None, **more)
    world = World(method, says, stop, score)
    trials = Trials(TASKS, world, config, journal, scripted=says is None)
    method.search(trials)
    return method, world, trials


def test_a_search_finds_the_best_workflow_of_a_benchmark():
    bests = [searched(seed=seed)[0].trees["words"].best.score for seed in range(5)]
    # scores of this world are 3, 6 and 8 of ten, so that a search may stand still before its random edits help
    assert sum(best > 0.3 for best in bests) >= 3 and max(bests) == 0.8
    method, world, trials = searched()
    tree = method.trees["words"]
    assert worth(tree.nodes[0].workflow) == 3 and tree.nodes[0].workflow is DIRECT
    assert method.build(TASKS[0]) == tree.best.workflow and tree.best.workflow.fingerprint in world.served
    assert all(node.score == worth(node.workflow) / 10 for node in tree.nodes)
    assert len({node.workflow.fingerprint for node in tree.nodes}) == len(tree.nodes), "no workflow twice"
    with pytest.raises(MethodError, match="fitted on benchmark 'other' before it builds; it was fitted on words"):
        method.build(Task("x", "other", "gsm8k", "text"))


def test_edits_are_made_and_the_best_validation_round_is_kept():
    method, world, _ = searched(says=[TO_VOTE, "answer cot"], rounds=1)
    assert method.build(TASKS[0]).fingerprint == VOTE.fingerprint
    worse, _, _ = searched(says=["add program: program(task); answer program"], rounds=1, score=lambda w: 9)
    assert worse.build(TASKS[0]) is DIRECT, "of equal ones the earliest"


def test_refused_edits_are_fed_back_until_the_round_has_failed():
    wrong = ["nonsense", "set x: cot(task)", "remove cot", "answer x", "add cot: cot(task)"]
    method, world, _ = searched(says=["add r: run(cot); answer r", TO_RUN, *wrong], rounds=2)
    assert len(world.read) == 7
    assert "refused" not in world.read[0]
    refused = "- [refused: workflow 'aflow_1', step 'r': input 'cot' has the type 'answer', but 'run' accepts code]"
    assert f"{refused} add r: run(cot); answer r" in world.read[1]
    tree = method.trees["words"]
    assert [node.round for node in tree.nodes] == [0, 1], "the second round made nothing"
    assert sum(len(node.refused) for node in tree.nodes) == 6
    assert all(f"] {edit}" in world.read[-1] for edit in wrong[:-1]), "each attempt knows those before it"


def test_experience_is_read_and_the_same_workflow_is_refused():
    class First(Tree):
        def choose(self, draw):
            return self.nodes[0]

    import graphflow.methods.aflow as module

    original, module.Tree = module.Tree, First
    try:
        says = [TO_VOTE, TO_VOTE, TO_RUN]
        method, world, _ = searched(says=says, rounds=2)
    finally:
        module.Tree = original
    assert "- [better, 0.8000] " + TO_VOTE in world.read[1]
    assert "- [refused: this gives the workflow of round 1, score 0.8000] " + TO_VOTE in world.read[2]
    assert [node.score for node in method.trees["words"].nodes] == [0.3, 0.8, 0.6]


def test_a_model_sees_the_schema_the_score_and_failed_tasks():
    _, world, _ = searched(says=[TO_RUN], rounds=1)
    text = world.read[0]
    assert "run(code) -> result; sets failed" in text and "fix(" not in text, "the operations of the kind"
    assert "cot: cot(task)\nanswer cot\n\nIts score is 0.3000." in text
    assert "* Ann has 3 apples. How many?" in text and "Ann has 2 apples" not in text, "the first three were solved"


def test_a_page_without_room_leaves_out_failures_first_and_then_old_experience():
    method = AFlow(LIBRARY, REPOSITORY)
    tree = Tree(COT, 0.3)
    for round, edit in enumerate((TO_RUN, TO_VOTE), 1):
        tree.add(round, apply_edit(COT, edit, LIBRARY, 8), 0.2 * round, tree.nodes[0], edit)

    def shown(room: int, scripted: bool = False) -> str:
        fits = lambda operation, text: len(text) + len(operation.prompt) <= room  # noqa: E731
        return method.shown(tree, tree.nodes[0], Trials(TASKS, World(method), scripted=scripted, room=fits))

    prompt = len(method.edit.operation.prompt)
    whole = shown(10_000)
    assert shown(0, scripted=True) == whole and whole.count("* Ann has") == 3 and whole.count("- [") == 2
    one_less = shown(len(whole) + prompt - 1)
    assert one_less.count("* Ann has") == 2 and one_less.count("- [") == 2
    no_failures = whole[: whole.index("* Ann has")] + "not shown" + whole[whole.index("\n\nExperience:") :]
    assert shown(len(no_failures) + prompt) == no_failures
    tree.nodes[0].refused.append(Refused("set y: cot(task)", "no step"))
    assert "set y: cot(task)" not in shown(len(no_failures) + prompt) and TO_RUN in shown(len(no_failures) + prompt)
    tree.nodes[0].refused.clear()
    newest = shown(len(no_failures) + prompt - 1)
    assert TO_VOTE in newest and TO_RUN not in newest
    assert shown(0).count("- [") == 0 and shown(0).count("not shown") == 2, "the last page, room or not"


def test_the_script_draws_from_the_schema_and_avoids_what_was_tried():
    method = AFlow(LIBRARY, REPOSITORY, scripted=True)
    assert method.scripted == ("aflow_edit",) and method.edit.made(True).kind is Kind.TOOL
    trials, tree = Trials(TASKS, World(method)), Tree(COT, 0.3)
    script, seen = method.tools["aflow_edit"], []
    text = method.shown(tree, tree.nodes[0], trials)
    for _ in range(12):
        edit = script(Task("p", "", "", text), [], ToolBox()).text
        assert script(Task("q", "", "", text), [StepOutput(text)], ToolBox()).text == edit, "seeded by the text"
        assert edit and edit not in seen
        seen.append(edit)
        text = text.replace("\n\nWorkflow:", f"\n- [not better, 0.1000] {edit}\n\nWorkflow:")


def test_it_stops_when_the_best_three_stand_still():
    method, _, _ = searched(score=lambda workflow: 5)
    assert len(method.trees["words"].nodes) == 6, "the first and five that change nothing"


def test_it_ends_after_twenty_rounds():
    says = [f"set cot: cot(task) x{number}; add v: vote(cot); answer v" for number in range(2, 120)]
    method, world, _ = searched(says=says, max_llm_calls=1)
    assert len(world.read) == 100, "each round asks five times, as all these make too many calls"
    assert sum(len(node.refused) for node in method.trees["words"].nodes) == 100


def test_a_stopped_search_goes_on_as_if_it_had_not_been(tmp_path):
    whole, world, spent = searched(journal=tmp_path / "whole.jsonl")
    journal = tmp_path / "stopped.jsonl"
    with pytest.raises(KeyboardInterrupt):
        searched(journal=journal, stop=25)
    again, rest, trials = searched(journal=journal)
    assert again.history == whole.history and trials.spent == spent.spent
    assert len(rest.served) == len(world.served) - 25, "nothing is paid for twice"


def test_a_spent_budget_ends_the_search_with_the_best_so_far():
    method, world, trials = searched(says=[TO_VOTE, *[TO_RUN] * 40], config=TrialConfig(llm_calls=45))
    # 10 calls for the first, 1 for the edit, 20 for ten tasks of two calls: another workflow may cost 20 more
    assert trials.spent.llm_calls <= 45 and method.build(TASKS[0]).fingerprint == VOTE.fingerprint
    with pytest.raises(BudgetSpent):
        searched(config=TrialConfig(llm_calls=5))


def test_repetitions_are_executed():
    _, once, _ = searched(says=[TO_RUN], rounds=1)
    _, five, trials = searched(says=[TO_RUN], rounds=1, repeats=5)
    assert (len(once.served), len(five.served)) == (20, 100) and trials.spent.tasks == 10


def test_what_was_found_is_kept_in_files(tmp_path):
    method, _, _ = searched(says=[TO_VOTE], rounds=1)
    method.save(tmp_path)
    tree = json.loads((tmp_path / "words.json").read_text())
    assert [(node["round"], node["parent"], node["score"]) for node in tree] == [(0, None, 0.3), (1, 0, 0.8)]
    loaded = AFlow(LIBRARY, REPOSITORY)
    with pytest.raises(MethodError, match="must be fitted"):
        loaded.build(TASKS[0])
    with pytest.raises(MethodError, match="no <benchmark>.yaml in .*; fit it first"):
        loaded.load(tmp_path / "nowhere")
    loaded.load(tmp_path)
    assert loaded.build(TASKS[0]) == method.build(TASKS[0]) and loaded.history == method.history
    assert RUN.fingerprint != loaded.build(TASKS[0]).fingerprint
