"""Workflows over a server: what it is asked, what is recorded, and what it cannot do."""

from dataclasses import replace
from threading import Barrier, Event

import pytest

from graphflow.backbone.config import BackboneError
from graphflow.engine.config import EngineConfig
from graphflow.engine.episode import StepOutput
from graphflow.engine.remote.executor import RemoteExecutor
from graphflow.engine.schedule import Schedule
from graphflow.engine.tools import TOOLS
from graphflow.kv import KVConfig
from graphflow.wgraph.library import Library
from graphflow.wgraph.workflow import Guard, Step, Workflow
from tests.chat import Chat, Reply, client, words
from tests.engine.remote import MANY, ONE, PROMPTS, TWO, executor, model, run, speak, task_of, user
from tests.engine.serving import CHAIN, JOIN, LIBRARY, TASKS, outputs


def test_a_chain_is_a_conversation():
    with Chat(speak) as chat:
        (episode,) = run(chat, CHAIN, TASKS[:1])
    said = [
        user("solve one", PROMPTS["write"]),
        *(model("write 1"), user(PROMPTS["check"])),
        *(model("check 3"), user(PROMPTS["fix"])),
        *(model("fix 5"), user(PROMPTS["check"])),
    ]
    assert [body["messages"] for body in chat.seen] == [said[:1], said[:3], said[:5], said]
    assert {body["max_tokens"] for body in chat.seen} == {6} and chat.greetings == 1
    assert episode.answer == "check 7" and not episode.error
    assert [step.path for step in episode.steps[1:]] == [(), ("write",), ("write", "check"), ("write", "check", "fix")]


def test_a_fork_begins_where_it_forks_and_a_join_reads_both(monkeypatch):
    """Two samples of a step and a tool's result after another one: all of them behind the plan, none in another."""
    monkeypatch.setitem(TOOLS, "run_python", lambda *_: StepOutput("42", {"failed": False}))
    workflow = Workflow(
        "forks",
        ("gsm8k",),
        (
            Step("plan", "check", ("task",)),
            Step("samples", "write", ("plan",), samples=2),
            Step("other", "fix", ("plan",)),
            Step("run", "run_python", ("other",)),
            Step("end", "check", ("samples", "run")),
        ),
        "end",
    )
    with Chat(lambda body: speak(body) + " \n") as chat:
        (episode,) = run(chat, workflow, TASKS[:1])
    plan = [user("solve one", PROMPTS["check"]), model("check 1 \n")]
    asked = {body["messages"][-1]["content"]: body["messages"][:-1] for body in chat.seen}
    assert asked[PROMPTS["write"]] == asked[PROMPTS["fix"]] == plan
    whole = "\n\n".join(("A: write 3", "B: write 3", "C: 42", PROMPTS["check"]))
    assert asked[whole] == plan, "of an output what was read of it; what the model wrote as it came"
    assert episode.answer == "check 3" and len(chat.seen) == 5


def test_a_tool_s_result_is_the_user_s(monkeypatch):
    monkeypatch.setitem(TOOLS, "run_python", lambda *_: StepOutput("42", {"failed": False}))
    steps = (*ONE.steps, Step("run", "run_python", ("write",)), Step("check", "check", ("run",)))
    with Chat(speak) as chat:
        (episode,) = run(chat, Workflow("tool", (), steps, "check"), TASKS[:1])
    assert chat.seen[-1]["messages"][-1] == user("Result:\n42", PROMPTS["check"])
    assert [step.step for step in episode.steps] == ["task", "write", "run", "check"]
    assert episode.steps[2].texts == ("42",)


@pytest.mark.parametrize(("verdict", "ran"), [("ok", ["write", "check"]), ("wrong", ["write", "check", "fix"])])
def test_guards_decide_what_is_asked(verdict, ran):
    steps = (
        *TWO.steps,
        Step("fix", "fix", ("check",), when=Guard("check", "issues", negated=False)),
        Step("pick", "first_nonempty", ("fix", "write")),
    )
    with Chat(lambda body: verdict if speak(body).startswith("check") else speak(body)) as chat:
        (episode,) = run(chat, Workflow("guarded", (), steps, "pick"), TASKS[:1])
    assert [speak(body).split()[0] for body in chat.seen] == ran
    assert episode.answer == ("fix 5" if verdict == "wrong" else "write 1")


def test_samples_are_requests_with_seeds_of_their_own():
    with Chat(lambda body: str(body["seed"])) as chat:
        workflow = Workflow("samples", (), (Step("write", "write", ("task",), samples=3),), "write")
        first, again = (run(chat, workflow, TASKS[:2]) for _ in range(2))
    assert {body["temperature"] for body in chat.seen} == {EngineConfig().sample_temperature}
    texts = [episode.steps[1].texts for episode in first]
    assert len({text for own in texts for text in own}) == 6, "of tasks and of samples"
    assert texts == [episode.steps[1].texts for episode in again] and first[0].llm_calls == 3
    assert texts[0] == tuple(sorted(texts[0], key=texts[0].index))


@pytest.mark.parametrize(("said", "chosen", "unread"), [("B", "second", 0), ("neither", "first", 1)])
def test_a_selection_goes_on_from_what_it_selects(said, chosen, unread):
    steps = (
        *(Step("left", "write", ("task",)), Step("right", "fix", ("task",))),
        *(Step("best", "ensemble_select", ("left", "right")), Step("end", "check", ("best",))),
    )
    texts = {PROMPTS["write"]: "first", PROMPTS["fix"]: "second", PROMPTS["ensemble_select"]: said}
    with Chat(lambda body: texts.get(body["messages"][-1]["content"].split("\n\n")[-1], "end")) as chat:
        (episode,) = run(chat, Workflow("select", (), steps, "end"), TASKS[:1])
    assert chat.seen[-1]["messages"][1] == model(chosen)
    assert {step.step: step.parse_fallbacks for step in episode.steps}["best"] == unread


def test_tokens_are_those_that_the_server_counts():
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}
    samples = Workflow("samples", (), (Step("write", "write", ("task",), samples=2),), "write")
    with Chat(lambda body: Reply("a b", usage=usage)) as chat:
        (episode,) = run(chat, samples, TASKS[:1])
    step = episode.steps[1]
    assert (step.prefill_tokens, step.reused_tokens, step.output_tokens) == (20, 40, 10)
    assert (episode.op_bytes, episode.dynamic_bytes, step.first_token_s, step.kl) == (0, 0, 0.0, None)
    with Chat(speak) as chat:
        own = executor(chat)
        (episode,) = own.run(TASKS[:1], lambda arriving: [TWO])
        assert episode.total("prefill_tokens") == sum(map(words, chat.seen))
    assert own.store_bytes().total == own.peak_bytes == 0


@pytest.mark.parametrize("flight", [1, 3])
def test_at_most_so_many_requests_are_open(flight):
    """And as many, where there is work: each waits for the others. Six samples of a step share the places too."""
    together = Barrier(flight)
    with Chat(lambda body: (together.wait(10), speak(body))[1]) as chat:
        run(chat, TWO, MANY, concurrency=flight)
        assert chat.most == flight
        workflow = Workflow("samples", (), (Step("write", "write", ("task",), samples=6),), "write")
        episodes = run(chat, workflow, MANY[:4], concurrency=flight)
        assert chat.most == flight and [len(episode.steps[1].texts) for episode in episodes] == [6] * 4


def test_times_are_those_of_the_requests():
    """One of two tasks waits for its answer; tools and the other task do not wait for it."""
    held = Event()

    def answer(body):
        if task_of(body) == "solve 0":
            return Reply("late", after=held)
        return speak(body)

    found = []
    with Chat(answer) as chat:
        for episode in executor(chat, concurrency=2).run(MANY[:4], lambda arriving: [TWO] * len(arriving)):
            found.append(episode)
            if len(found) == 3:
                held.set()
    assert found[-1].task_id == "t00" and found[-1].latency_s > max(e.latency_s for e in found[:3])
    for episode in found:
        task, write, check = episode.steps
        assert 0 <= task.start_s <= write.start_s < write.end_s <= check.start_s < check.end_s <= episode.latency_s


@pytest.mark.parametrize("kind", [kind.value for kind in Schedule if kind is not Schedule.RESIDENT_FIRST])
def test_no_scheduler_changes_an_output(kind):
    with Chat(speak) as chat:
        assert outputs(run(chat, JOIN, scheduler=kind, concurrency=4)) == outputs(run(chat, JOIN, concurrency=1))


def test_workflows_grow():
    more = replace(CHAIN, steps=CHAIN.steps[:2], answer="check")

    def grow(task, workflow, outputs):
        return more if workflow is ONE and task.id != "t1" else None

    with Chat(speak) as chat:
        episodes = run(chat, ONE, grow=grow)
    assert [episode.answer for episode in episodes] == ["check 3", "write 1", "check 3", "check 3"]
    assert [episode.workflow for episode in episodes] == ["chain", "one", "chain", "chain"]


def test_tasks_arrive_by_themselves():
    with Chat(speak) as chat:
        episodes = run(chat, TWO, MANY, arrivals="poisson", rate=300.0, concurrency=2)
    assert len(episodes) == len(MANY) and not any(e.error for e in episodes)
    assert all(e.latency_s >= e.waited_s >= 0 for e in episodes)


# Settings


@pytest.mark.parametrize(
    ("kv", "config", "said"),
    [
        ({"mode": "differential"}, {}, "kv.mode must be stateful, since a server keeps its own state .* got 'diff"),
        ({"mode": "prefix"}, {}, "kv.mode must be stateful, .* got 'prefix'"),
        ({"dynamic_codec": "int4"}, {}, "kv.dynamic_codec must be none, .* got 'int4'"),
        ({"saliency": "queries"}, {}, "kv.saliency must be none, .* got 'queries'"),
        ({}, {"fidelity": 3}, "engine.fidelity must be 0, .* got 3"),
        ({}, {"memory_bytes": 1}, "engine.memory_bytes must be 0, .* got 1"),
        ({}, {"prefill_chunk": 8}, "engine.prefill_chunk must be 0, .* got 8"),
        ({}, {"prefetch": 2}, "engine.prefetch must be 0, .* got 2"),
        (
            {},
            {"scheduler": "resident_first"},
            "engine.scheduler must be fifo, same_operation, critical_path, .* got 'r",
        ),
    ],
)
def test_what_a_server_cannot_do_is_refused(kv, config, said):
    with Chat(speak) as chat, pytest.raises(BackboneError, match=said):
        RemoteExecutor(client(chat), LIBRARY, KVConfig(**{"mode": "stateful", **kv}), EngineConfig(**config))


def test_limits_scale_with_the_engine_s_setting():
    library = Library([*LIBRARY.values(), replace(LIBRARY["fix"], name="long", max_tokens=20, prompt="long")])
    workflow = Workflow("w", (), (Step("long", "long", ("task",)),), "long")
    with Chat(lambda body: "yes") as chat:
        run(chat, workflow, TASKS[:1], library=library, max_tokens_scale=2.5)
        assert chat.seen[0]["max_tokens"] == 50
