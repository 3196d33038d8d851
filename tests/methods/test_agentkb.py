"""AgentKB: the hybrid score, two calls before the work, the workflow whole, and nothing of a test task's answer."""

import json

import numpy as np
import pytest
import torch

from graphflow.benchmarks import BenchmarkConfig, build_benchmark
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepOutput, Task
from graphflow.engine.executor import Executor
from graphflow.engine.tools import ToolBox
from graphflow.generator.features import Encoder, HashingEncoder
from graphflow.generator.outcomes import OutcomeTable
from graphflow.kv import KVConfig
from graphflow.methods.agentkb import AgentKB
from graphflow.methods.base import MethodError
from graphflow.methods.retrieval_index import RetrievalIndex
from graphflow.wgraph.operation import Kind
from graphflow.wgraph.workflow import Step, Workflow
from tests.engine import serving
from tests.generator.small import COT, LIBRARY, RUN, VOTE, row
from tests.tiny import tiny_backbone


class Halves(Encoder):
    """Says that a text means what its last word says."""

    def _compute(self, texts):
        return torch.tensor([[1.0, 0.0] if text.endswith("up") else [0.0, 1.0] for text in texts])


def trained(table, workflows=(), library=LIBRARY, scripted=True):
    method = AgentKB(library, {own.name: own for own in workflows}, HashingEncoder(128), scripted)
    method.fit(table)
    return method


def outcomes(texts, best, workflows=(COT, RUN, VOTE), benchmark="b"):
    """One training task a text, which only its best workflow solves."""
    table = OutcomeTable()
    for place, (text, right) in enumerate(zip(texts, best, strict=True)):
        task = Task(f"train{place}", benchmark, "gsm8k", text)
        for workflow in workflows:
            table.add(row(task, workflow, float(workflow is right)), workflow)
    return table


def test_half_the_score_is_words_and_half_is_meaning():
    texts = ["red apples up", "green pears up", "red apples down"]
    index = RetrievalIndex(texts, Halves(2))
    # up and down are stop words: the first and the third text have the words red and apples alone, the second others
    assert index.scores("red apples up") == pytest.approx([1.0, 0.5, 0.5], abs=1e-6)
    assert index.scores("blue plums up") == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
    assert index.scores("green pears down") == pytest.approx([0.0, 0.5, 0.5], abs=1e-6)
    assert index.nearest("blue plums up", 3) == [0, 1, 2], "of equal ones the first"
    assert index.nearest("blue plums up", 2, among=[2, 1]) == [1, 2]
    assert isinstance(index.scores("x"), np.ndarray)
    with pytest.raises(ValueError, match="an index needs at least one text"):
        RetrievalIndex([], Halves(2))


def test_one_entry_a_training_task_with_its_best_workflow():
    table = outcomes(["divide the apples", "who wrote this song"], [RUN, VOTE])
    entries = trained(table).entries
    assert [(entry.query, entry.workflow, entry.success) for entry in entries] == [
        ("divide the apples", RUN.fingerprint, True),
        ("who wrote this song", VOTE.fingerprint, True),
    ]
    assert entries[0].experience == "run solved it; vote, cot did not."
    failed = trained(outcomes(["impossible things"], [None])).entries[0]
    assert (failed.success, failed.experience) == (False, "nothing solved it.")


def test_the_base_holds_training_tasks_alone_and_no_reference(tmp_path):
    """References are in none of the fields that fitting writes, and serving test tasks changes nothing."""
    benchmark = build_benchmark(BenchmarkConfig("mini-gsm8k"))
    train, test = benchmark.examples("train", 20), benchmark.examples("test", 20)
    table = OutcomeTable()
    for example in train:
        for workflow in (COT, RUN):
            table.add(row(example.task, workflow, float(workflow is RUN)), workflow)
    method = trained(table)
    assert [entry.query for entry in method.entries] == [example.task.text for example in train]
    assert {example.task.text for example in test}.isdisjoint(entry.query for entry in method.entries)
    names = {"query", "benchmark", "kind", "workflow", "success", "experience"}
    assert {name for entry in method.entries for name in vars(entry)} == names
    for entry, example in zip(method.entries, train, strict=True):
        assert example.reference not in entry.experience
    method.save(tmp_path / "before")
    for example in test:
        reason = method.build(example.task)
        more = method.grow(example.task, reason, {"kb_reason": [StepOutput(example.task.text)]})
        assert method.grow(example.task, more, {"kb_reason": [StepOutput(example.task.text)]})
    method.save(tmp_path / "after")
    files = [(tmp_path / name / "knowledge_base.json").read_bytes() for name in ("before", "after")]
    assert files[0] == files[1] and set(json.loads(files[0])) == {"entries", "workflows"}


def test_it_grows_from_reason_to_the_workflow_of_the_best_hit():
    method = trained(outcomes(["divide the apples", "who wrote this song", "sum of coins"], [RUN, VOTE, COT]))
    task = Task("x", "b", "gsm8k", "Who sang this song? Say a name.")
    first = method.build(task)
    assert [step.op for step in first.steps] == ["kb_reason"]
    said = {"kb_reason": [StepOutput("wrote song")]}
    second = method.grow(task, first, said)
    assert [(step.op, step.inputs) for step in second.steps[1:]] == [
        ("kb_lookup", ("kb_reason",)),
        ("kb_refine", ("kb_lookup",)),
    ]
    whole = method.grow(task, second, said)
    assert whole.name == "agentkb, vote" and whole.answer == "vote"
    inputs = {step.id: step.inputs for step in whole.steps}
    assert inputs["kb_advice"] == ("task", "kb_refine")
    assert (inputs["cot"], inputs["program"]) == (("kb_advice",), ("task",)), "before the first call alone"
    own = [step for step in whole.steps if not step.id.startswith("kb_")]
    back = tuple(Step(s.id, s.op, tuple("task" if i == "kb_advice" else i for i in s.inputs)) for s in own)
    assert Workflow("back", (), back, whole.answer).fingerprint == VOTE.fingerprint, "it is run whole"
    assert method.grow(task, whole, said) is None


def test_what_is_searched_for_is_the_text_of_the_call():
    method = trained(outcomes(["divide the apples", "who wrote this song"], [RUN, VOTE]))
    task = Task("x", "b", "gsm8k", "who wrote this song")
    method_steps = method.grow(task, method.build(task), {})
    for text, name in (("divide apples", "agentkb, run"), ("song", "agentkb, vote")):
        assert method.grow(task, method_steps, {"kb_reason": [StepOutput(text)]}).name == name
    found = method.tools["kb_lookup"](task, [StepOutput("divide apples")], ToolBox()).text
    assert found.startswith("Similar task: divide the apples\nExperience: run solved it; vote, cot did not.\nSimilar")


def test_a_hit_that_nothing_solved_is_read_and_not_run():
    method = trained(outcomes(["divide the apples", "divide the pears"], [None, VOTE]))
    task = Task("x", "b", "gsm8k", "divide the apples")
    said = {"kb_reason": [StepOutput(task.text)]}
    assert method.hits(task, task.text)[0].success is False
    assert method.grow(task, method.grow(task, method.build(task), said), said).name == "agentkb, vote"


def test_three_hits_of_the_same_kind():
    table = outcomes([f"apples {word}" for word in ("red", "green", "blue", "old")], [RUN] * 4)
    code = Task("code", "c", "humaneval", "apples")
    table.add(row(code, RUN, 1.0), RUN)
    method = trained(table)
    hits = method.hits(Task("x", "b", "gsm8k", "apples"), "apples")
    assert len(hits) == 3 and {hit.kind for hit in hits} == {"gsm8k"}
    with pytest.raises(
        MethodError, match="fitted on tasks of the kind 'math' before it builds; it knows gsm8k, humaneval"
    ):
        method.build(Task("x", "b", "math", "apples"))


def test_it_must_be_fitted(tmp_path):
    method = AgentKB(LIBRARY, {}, HashingEncoder(128))
    with pytest.raises(
        MethodError, match="must be fitted on tasks of the kind 'gsm8k' before it builds; it knows none"
    ):
        method.build(Task("x", "b", "gsm8k", "text"))
    with pytest.raises(MethodError, match="learns from outcomes"):
        method.fit(OutcomeTable())
    with pytest.raises(MethodError, match="no knowledge_base.json in .*; fit it first"):
        method.load(tmp_path)
    known = trained(outcomes(["divide the apples"], [RUN]))
    known.save(tmp_path)
    method.load(tmp_path)
    assert method.entries == known.entries
    assert method.hits(Task("x", "b", "gsm8k", "t"), "apples") == known.entries


def test_calls_are_the_models_or_scripts():
    asked = AgentKB(LIBRARY, {}, HashingEncoder(128)).asking.library(LIBRARY)
    assert [asked[name].kind for name in ("kb_reason", "kb_refine", "kb_lookup")] == [Kind.LLM, Kind.LLM, Kind.TOOL]
    scripted = AgentKB(LIBRARY, {}, HashingEncoder(128), scripted=True)
    assert scripted.scripted == ("kb_reason", "kb_refine")
    assert scripted.asking.library(LIBRARY)["kb_reason"].kind is Kind.TOOL
    task = Task("x", "b", "gsm8k", "Ann has 2.5 apples. How many?")
    assert scripted.tools["kb_reason"](task, [], ToolBox()).text == "How many?"
    found = StepOutput("Similar task: a\nExperience: run solved it.\nSimilar task: b\nExperience: cot solved it.")
    assert scripted.tools["kb_refine"](task, [found], ToolBox()).text == "run solved it."


@pytest.mark.parametrize("scripted", [True, False])
def test_on_a_backbone_suggestions_stand_before_the_first_call(scripted):
    """The engine serves all stages; advice goes on from the task alone, so a call reads it and not the look-up."""
    both = Workflow(
        "both",
        ("gsm8k",),
        (Step("write", "write", ("task",)), Step("fix", "fix", ("task",)), Step("end", "vote", ("write", "fix"))),
        "end",
    )
    table = OutcomeTable()
    for place, text in enumerate(["solve one", "answer the code"]):
        task = Task(f"train{place}", "tiny", "gsm8k", text)
        table.add({**row(task, COT, 1.0), "workflow": "both", "fingerprint": both.fingerprint}, both)
    method = trained(table, [both], serving.LIBRARY, scripted)
    toolbox = ToolBox(tools=method.tools)
    library = method.asking.library(serving.LIBRARY)
    config = EngineConfig(kv_dtype="float32")
    executor = Executor(tiny_backbone(), library, KVConfig("differential"), config, toolbox)
    episodes = list(executor.run(serving.TASKS, method.build_many, method.grow))
    for episode in episodes:
        assert not episode.error and episode.workflow == "agentkb, both"
        steps = {step.step: step for step in episode.steps}
        stages = ["kb_reason", "kb_lookup", "kb_refine", "kb_advice"]
        assert [name for name in steps if name.startswith("kb_")] == stages
        assert steps["write"].path == steps["fix"].path == (), "neither reads the calls before it"
        assert episode.llm_calls == (2 if scripted else 4), "what a model writes for building is counted"
        read = {name: steps[name].prefill_tokens + steps[name].reused_tokens for name in ("write", "fix")}
        if scripted:
            assert steps["kb_advice"].texts == ("both solved it.",)
            prompts = {name: len(executor.backbone.encode(f"{library[name].prompt}")) for name in read}
            assert read["write"] - prompts["write"] > read["fix"] - prompts["fix"], "the suggestions are read once"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ann has 3 pens. She buys 2. How many pens has she?", "How many pens has she?"),
        ("Lia was born in 1942.\nQuestion: When was Lia born?", "Question: When was Lia born?"),
        ("Find x. Write it in a box.", "Find x."),
    ],
)
def test_the_script_searches_for_what_is_asked(text: str, said: str):
    method = AgentKB(LIBRARY, {}, HashingEncoder(128), scripted=True)
    task = Task("t", "b", "gsm8k", text)
    assert method.tools["kb_reason"](task, [StepOutput(text)], ToolBox()).text == said
