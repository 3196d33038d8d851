from __future__ import annotations

import pytest

from graphflow.engine.episode import Task
from graphflow.experiment.compose import compose
from graphflow.experiment.plan import SEARCHING, UNTAUGHT
from graphflow.experiment.serve import House
from graphflow.generator.features import FeatureConfig
from graphflow.generator.generator import Generator, GeneratorConfig
from graphflow.generator.model import ModelConfig
from graphflow.generator.outcomes import OutcomeTable
from graphflow.methods import NAMES, Method, MethodConfig, MethodError, build_method
from graphflow.methods.found import Found
from graphflow.paths import CONF
from graphflow.wgraph.library import load_operations, load_workflows
from graphflow.wgraph.wgraph import merge
from graphflow.wgraph.workflow import Workflow, validate
from tests.generator.small import COT, LIBRARY, RUN, VOTE, row, small_graph, word_table, word_task
from tests.methods.served import REPOSITORY, WORKFLOWS

SMALL = {workflow.name: workflow for workflow in (COT, RUN, VOTE)}
SETTINGS = GeneratorConfig(features=FeatureConfig(dim=128), model=ModelConfig(hidden=16), epochs=2)


def build(name: str, **more):
    return build_method(MethodConfig(name), LIBRARY, SMALL, generator_config=SETTINGS, **more)


def task(id: str, text: str, benchmark: str = "b", kind: str = "gsm8k") -> Task:
    return Task(id, benchmark, kind, text)


def test_vanilla_goes_by_kind() -> None:
    library = load_operations(CONF / "operations")
    method = build_method(MethodConfig("vanilla"), library, load_workflows(CONF / "workflows", library))
    kinds = ("gsm8k", "math", "hotpotqa", "humaneval", "mbpp")
    chosen = method.build_many([task(kind, "text", kind=kind) for kind in kinds])
    assert [workflow.name for workflow in chosen] == ["direct", "direct", "direct", "code", "code"]
    with pytest.raises(MethodError, match="is made for the kind 'poems'"):
        method.build(task("x", "text", kind="poems"))


def test_best_fixed_by_benchmark_then_by_kind() -> None:
    table = OutcomeTable()
    for index in range(3):
        for workflow, metric in ((COT, 0.0), (RUN, 1.0)):
            table.add(row(task(f"a{index}", "x", "a"), workflow, metric), workflow)
    for workflow, metric in ((COT, 1.0), (RUN, 0.0)):
        table.add(row(task("b0", "x", "b"), workflow, metric), workflow)
    method = build("best_fixed")
    method.fit(table)
    assert method.build(task("new", "x", "b")) == COT
    assert method.build(task("new", "x", "unheard of")) == RUN  # of its kind: 3 of 4 against 1 of 4
    with pytest.raises(MethodError, match="benchmark 'c' or kind 'math'; it was fitted on a, b, gsm8k"):
        method.build(task("new", "x", "c", "math"))


def test_retrieve_top1_takes_the_best_of_the_nearest() -> None:
    table = OutcomeTable()
    for id, text, best in (("0", "divide the apples", COT), ("1", "who wrote this song", VOTE)):
        for workflow in (COT, RUN, VOTE):
            table.add(row(task(id, text), workflow, float(workflow is best)), workflow)
    method = build("retrieve_top1")
    with pytest.raises(MethodError, match="must be fitted"):
        method.build(task("x", "text"))
    method.fit(table)
    chosen = method.build_many([task("2", "divide seven apples"), task("3", "who sang this song")])
    assert chosen == [COT, VOTE]
    assert method.build(task("3", "who sang this song")) == VOTE


def test_retrieve_top1_breaks_ties_by_cost() -> None:
    table, one = OutcomeTable(), task("0", "text")
    table.add(row(one, COT, 1.0, tokens=900), COT)
    table.add(row(one, RUN, 1.0, tokens=300), RUN)
    method = build("retrieve_top1")
    method.fit(table)
    assert method.build(one) == RUN


def test_random_is_valid_and_fixed_by_the_task() -> None:
    method = build("random")
    tasks = [task(str(index), "same text") for index in range(60)]
    chosen = method.build_many(tasks)
    assert len({workflow.fingerprint for workflow in chosen}) > 3
    for workflow in chosen:
        validate(workflow, LIBRARY)
    assert build("random").build_many(tasks[::-1]) == chosen[::-1]
    other = build_method(MethodConfig("random", seed=1), LIBRARY, SMALL, generator_config=SETTINGS)
    assert other.build_many(tasks) != chosen


def test_graphflow_trains_or_is_given_a_generator() -> None:
    method = build("graphflow")
    with pytest.raises(MethodError, match="must be fitted, or given a generator"):
        method.build(word_task(0)[0])
    method.fit(word_table(12))
    assert isinstance(method.build(word_task(0)[0]), Workflow)
    given = Generator(SETTINGS, small_graph())
    tasks = [word_task(index)[0] for index in range(4)]
    ready = build("graphflow", generator=given)
    ready.fit(None)  # nothing to learn
    assert ready.build_many(tasks) == given.compose(tasks)


def test_learning_methods_need_a_table() -> None:
    for name in ("best_fixed", "retrieve_top1", "graphflow"):
        with pytest.raises(MethodError, match=f"method '{name}' learns from outcomes"):
            build(name).fit(OutcomeTable())


def test_every_name_builds_and_carries_its_name() -> None:
    assert [build(name).name for name in NAMES] == list(NAMES)


def test_unknown_method_is_named() -> None:
    with pytest.raises(MethodError, match=r"unknown method 'graflow' \(did you mean 'graphflow'\?\)"):
        MethodConfig("graflow")


def test_unknown_workflow_is_named() -> None:
    with pytest.raises(KeyError, match="did you mean 'vote'"):
        build("random").workflow("vot")


def test_random_over_the_repository_keeps_to_the_kind() -> None:
    library = load_operations(CONF / "operations")
    workflows = load_workflows(CONF / "workflows", library)
    method = build_method(MethodConfig("random"), library, workflows)
    graph = merge(workflows, library)
    code = {edge.target for edge in graph.edges if {"code", "code_ensemble"} & set(edge.workflows)}
    assert "code_generate" in code
    for index in range(30):
        workflow = method.build(task(str(index), "text", kind="hotpotqa"))
        assert "code_generate" not in {step.op for step in workflow.steps}


def test_the_experiments_know_which_methods_search_and_which_learn_from_outcomes() -> None:
    assert {name for name in NAMES if isinstance(build(name), Found)} == set(SEARCHING)
    taught = {name for name in NAMES if type(build(name)).fit is not Method.fit}
    assert taught == set(NAMES) - set(UNTAUGHT)


def test_a_run_asks_the_model_of_a_real_backbone_and_a_script_for_a_mini_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(House, "outcomes", lambda self, config, on_fit=None: word_table(4))
    own = House()
    found = {turns: own.method(compose(["method=agentkb", f"backbone.turns={turns}"])) for turns in ("mini", "qwen")}
    assert found["mini"].scripted and not found["qwen"].scripted


@pytest.mark.parametrize("method", ["llmcompiler", "taskweaver", "agentkb", "aflow", "autoflow"])
def test_a_mini_backbone_that_is_a_planner_writes_itself(method: str) -> None:
    found = {
        (turns, planner, scripted): bool(
            build_method(MethodConfig(method, scripted=scripted), LIBRARY, SMALL, turns=turns, planner=planner).scripted
        )
        for turns in ("mini", "qwen")
        for planner in (True, False)
        for scripted in ("auto", "yes", "no")
    }
    assert {case for case, is_scripted in found.items() if is_scripted} == {
        ("mini", False, "auto"),
        *((turns, planner, "yes") for turns in ("mini", "qwen") for planner in (True, False)),
    }


def test_the_roles_of_metagpt_do_not_change_for_a_planner() -> None:
    found = build_method(MethodConfig("metagpt"), REPOSITORY, WORKFLOWS, turns="mini", planner=True)
    assert found.build(Task("t", "", "gsm8k", "")).steps[0].op == "decompose"
