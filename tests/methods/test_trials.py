"""Trials: counted, capped, kept over a stop, never paid for twice."""

import pytest

from graphflow.engine.episode import Episode, StepOutput, StepRecord, Task
from graphflow.methods.proposing import MoreOperations, Proposal
from graphflow.methods.trials import BudgetSpent, Spent, TrialConfig, Trials
from graphflow.wgraph.operation import Kind, Operation
from tests.generator.small import COT, LIBRARY, RUN

TASKS = [Task(f"v{index}", "b", "gsm8k", f"text {index}") for index in range(4)]
EDIT = Proposal(
    Operation("edit", Kind.LLM, ("task",), "plan", prompt="change the workflow"),
    lambda task, inputs, toolbox: StepOutput(f"scripted: {task.text}"),
)


class Engine:
    """Solves tasks with an even number; every execution costs two calls and 15 tokens, every proposal one call."""

    def __init__(self):
        self.served = []

    def __call__(self, pairs):
        for task, workflow in reversed(list(pairs)):
            self.served.append((task.id, workflow.name))
            calls = 1 if workflow.name == "edit" else 2
            step = StepRecord("s", "op", prefill_tokens=10, output_tokens=5, texts=("x",) * calls)
            episode = Episode(task.id, "b", workflow.name, workflow.fingerprint, f"answer to {task.text}", [step])
            episode.latency_s = 0.5
            yield episode, float(int(task.text[-1]) % 2 == 0) if task.text[-1].isdigit() else 0.0


def test_trials_are_counted_and_never_paid_for_twice():
    engine = Engine()
    trials = Trials(TASKS, engine)
    assert trials.mean(COT) == 0.5
    assert [trial.task for trial in trials.execute(COT, TASKS[1:3])] == ["v1", "v2"], "in the order that was asked for"
    assert len(engine.served) == 4
    assert trials.spent == Spent(tasks=4, executions=4, llm_calls=8, tokens=60, seconds=2.0)
    trials.execute(COT, TASKS[:1], repeat=1)
    assert trials.spent.executions == 5 and trials.spent.tasks == 4, "a repetition is executed anew"
    assert trials.write(EDIT, "text a") == trials.write(EDIT, "text a") == "answer to text a"
    assert trials.write(EDIT, "text a", seed=1) and trials.spent.proposals == 2
    assert trials.mean(RUN, repeats=2) == 0.5 and trials.spent.executions == 13


def test_a_stopped_search_goes_on_from_its_journal(tmp_path):
    first = Trials(TASKS, Engine(), journal=tmp_path / "trials.jsonl")
    first.mean(COT)
    first.write(EDIT, "text a")
    engine = Engine()
    again = Trials(TASKS, engine, journal=tmp_path / "trials.jsonl")
    assert again.spent == first.spent and again.mean(COT) == 0.5 and again.write(EDIT, "text a")
    assert not engine.served
    again.mean(RUN)
    assert len(engine.served) == 4
    with (tmp_path / "trials.jsonl").open("a") as file:
        file.write('{"fingerprint": "ab')  # killed in the middle of a line
    cut = Trials(TASKS, Engine(), journal=tmp_path / "trials.jsonl")
    assert cut.spent == again.spent
    cut.execute(COT, TASKS[:1], repeat=7)
    assert Trials(TASKS, Engine(), journal=tmp_path / "trials.jsonl").spent == cut.spent


def test_caps_hold_before_anything_is_executed():
    engine = Engine()
    trials = Trials(TASKS, engine, TrialConfig(tasks=3, llm_calls=10))
    assert len(trials.tasks) == 3
    trials.mean(COT)
    with pytest.raises(BudgetSpent, match=r"trials.llm_calls is 10; with 3 more it may be 12"):
        trials.mean(RUN)
    assert len(engine.served) == 3, "nothing was begun that the cap forbids"
    trials.execute(RUN, TASKS[:2])
    with pytest.raises(BudgetSpent):
        trials.write(EDIT, "text a")
    with pytest.raises(BudgetSpent, match=r"trials.tokens is 20, 45 are spent"):
        tight = Trials(TASKS, Engine(), TrialConfig(tokens=20))
        tight.execute(COT, TASKS[:3])
        tight.execute(COT, TASKS[3:])
    with pytest.raises(ValueError, match="'v3' is none of them"):
        trials.execute(COT, TASKS[3:])
    for name, value in (("tasks", 0), ("llm_calls", True), ("tokens", -1)):
        with pytest.raises(ValueError, match=f"trials.{name} must be an integer"):
            TrialConfig(**{name: value})


def test_the_cap_holds_where_a_workflow_is_dearer_than_those_before_it():
    """The bound says what the next one may make."""
    engine = Engine()
    trials = Trials(TASKS, engine, TrialConfig(llm_calls=20), bound=lambda workflow: 2 if workflow is COT else 8)
    trials.mean(COT)
    with pytest.raises(BudgetSpent, match=r"with 4 more it may be 40"):
        trials.mean(RUN)
    assert len(engine.served) == 4 and trials.execute(RUN, TASKS[:1])


def test_what_failed_is_counted_and_made_again_later(tmp_path):
    class Refusing(Engine):
        def __call__(self, pairs):
            for episode, metric in super().__call__(pairs):
                episode.error = "the server said 400" if episode.task_id == "v1" else ""
                yield episode, metric

    first = Trials(TASKS, Refusing(), journal=tmp_path / "trials.jsonl")
    first.mean(COT)
    assert first.spent.failed == 1 and first.spent.executions == 4
    engine = Engine()
    again = Trials(TASKS, engine, journal=tmp_path / "trials.jsonl")
    again.mean(COT)
    assert [id for id, _ in engine.served] == ["v1"] and again.spent.failed == 0


def test_a_proposal_is_a_call_or_a_script():
    assert MoreOperations([EDIT.made(False)]).library(LIBRARY)["edit"].kind is Kind.LLM
    scripted = EDIT.made(True)
    assert scripted.kind is Kind.TOOL and not scripted.prompt and scripted.produces == "plan"
