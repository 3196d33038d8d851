"""Workflows over a server: what it is asked, what is recorded, and what becomes of a run when it fails or dies."""

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
from tests.chat import Chat, Naps, Reply, client, words
from tests.engine.serving import CHAIN, JOIN, LIBRARY, TASKS, outputs

PROMPTS = {op.name: op.prompt for op in LIBRARY.values() if op.prompt}
ONE = Workflow("one", ("gsm8k",), (Step("write", "write", ("task",)),), "write")
TWO = Workflow("two", ("gsm8k",), (*ONE.steps, Step("check", "check", ("write",))), "check")
MANY = [replace(TASKS[0], id=f"t{i:02}", text=f"solve {i}") for i in range(12)]
STATEFUL = KVConfig("stateful")


def speak(body):
    """Writes the operation's name and how many messages it has read."""
    last = body["messages"][-1]["content"]
    op = next(name for name, prompt in PROMPTS.items() if last.endswith(prompt))
    return f"{op} {len(body['messages'])}"


def task_of(body):
    return body["messages"][0]["content"].split("\n\n")[0]


class Jumping(RemoteExecutor):
    """Its clock jumps when a test says so."""

    jumped = 0.0

    def clock(self):
        return super().clock() + self.jumped


def executor(chat, library=None, naps=None, server=None, **config):
    engine = EngineConfig(**config)
    return Jumping(client(chat, naps, **(server or {})), library or LIBRARY, STATEFUL, engine)


def run(chat, workflow, tasks=TASKS, grow=None, **more):
    own = executor(chat, **more)
    return sorted(own.run(tasks, lambda arriving: [workflow] * len(arriving), grow), key=lambda e: e.task_id)


def user(*texts):
    return {"role": "user", "content": "\n\n".join(texts)}


def model(text):
    return {"role": "assistant", "content": text}


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


# Failures


def test_what_a_server_refuses_fails_its_task_alone():
    """Each failure is believed once the server has greeted again; that one is told nothing of the task."""

    def answer(body):
        return Reply('{"error": "too long"}', status=400) if task_of(body) == TASKS[2].text else speak(body)

    with Chat(answer) as chat:
        episodes = run(chat, TWO, concurrency=1)
        assert [e.error for e in episodes if e.task_id != "t2"] == ["", "", ""]
        assert episodes[2].error == f"step 'write': ServerError: {chat.url} answered 400 (too long)"
        assert [step.step for step in episodes[2].steps] == ["task"] and chat.greetings == 2


@pytest.mark.parametrize("trouble", [Reply(status=500), Reply(drop=True), Reply(raw="?"), Reply(status=429)])
def test_what_fails_for_one_task_over_and_over_fails_it_alone(trouble):
    naps = Naps()
    with Chat(lambda body: trouble if task_of(body) == "solve 5" else speak(body)) as chat:
        episodes = run(chat, TWO, MANY, naps=naps, server={"retries": 3})
    assert [e.task_id for e in episodes if e.error] == ["t05"] and len(episodes) == len(MANY)
    assert "tried 4 times" in episodes[5].error and naps.asked == [0.5, 1.0, 2.0]


def test_one_failed_sample_fails_the_step():
    bad = []

    def answer(body):
        bad.append(body["seed"]) if not bad else None
        return Reply(status=400) if body["seed"] == bad[0] else speak(body)

    with Chat(answer) as chat:
        (episode,) = run(chat, Workflow("s", (), (Step("write", "write", ("task",), samples=3),), "write"), TASKS[:1])
    assert episode.error.startswith("step 'write': ServerError: ") and len(episode.steps) == 1


def test_what_a_tool_raises_fails_its_task_alone(monkeypatch):
    def faulty(task, inputs, toolbox):
        if task.id == "t1":
            raise OSError("the disk is full")
        return StepOutput("fine", {"failed": False})

    monkeypatch.setitem(TOOLS, "run_python", faulty)
    workflow = Workflow("tool", (), (*ONE.steps, Step("run", "run_python", ("write",))), "run")
    with Chat(speak) as chat:
        episodes = run(chat, workflow)
        assert [e.error for e in episodes] == ["", "step 'run': OSError: the disk is full", "", ""]
        assert chat.greetings == 1, "the server has nothing to do with it"


def test_a_task_out_of_time_fails_alone():
    held, found = Event(), {}
    with Chat(lambda body: Reply("late", after=held) if task_of(body) == "solve 1" else speak(body)) as chat:
        own = executor(chat, concurrency=2, timeout_s=500.0)
        for episode in own.run(MANY[:4], lambda arriving: [TWO] * len(arriving)):
            found[episode.task_id] = episode
            if len(found) == 3:
                own.jumped = 1000.0
        held.set()
        assert chat.greetings == 2
    assert [found[name].error for name in ("t00", "t02", "t03")] == ["", "", ""]
    assert found["t01"].error == "timeout: not done 500 s after it arrived (engine.timeout_s)"
    assert 1000 < found["t01"].latency_s < 1100


def test_tasks_that_are_cancelled():
    held = Event()

    def answer(body):
        return Reply("late", after=held) if task_of(body) == "solve 1" else speak(body)

    found = {}
    with Chat(answer) as chat:
        own = executor(chat, concurrency=2)
        assert not own.cancel("t00"), "nothing runs"
        for episode in own.run(MANY[:6], lambda arriving: [ONE] * len(arriving)):
            if not found:
                assert own.cancel("t01") and own.cancel("t05"), "one waits for its answer, one has not arrived"
                assert not own.cancel(episode.task_id)
            found[episode.task_id] = episode.error
        held.set()
        assert chat.greetings == 1
    assert found == {t.id: "cancelled" if t.id in ("t01", "t05") else "" for t in MANY[:6]}


def test_a_run_that_is_given_up_leaves_no_thread():
    import threading

    held = Event()
    with Chat(lambda body: Reply("late", after=held) if task_of(body) == "solve 1" else speak(body)) as chat:
        given_up = executor(chat, concurrency=2).run(MANY, lambda arriving: [ONE] * len(arriving))
        next(given_up)
        assert any(thread.name == "requests" for thread in threading.enumerate())
        given_up.close()
        held.set()
        assert not any(thread.name == "requests" for thread in threading.enumerate())


# A server that is not there, or not any more


def dead(chat, episodes):
    """Serves until the error; what was handed over before it."""
    found = []
    with pytest.raises(BackboneError) as error:
        for episode in episodes:
            found.append(episode)
    return found, str(error.value)


def test_a_server_that_is_not_there_ends_the_run_before_it_begins():
    def build(tasks):
        raise AssertionError("nothing is built")

    with Chat(speak) as chat:
        chat.die()
        naps = Naps()
        found, error = dead(chat, executor(chat, naps=naps, server={"retries": 2}).run(TASKS, build))
    assert not found and naps.asked == [0.5, 1.0]
    assert error.startswith(f"backbone.url: {chat.url} could not be reached (") and "tried 3 times" in error


@pytest.mark.parametrize("status", [401, 404])
def test_so_does_one_that_knows_neither_key_nor_model(status):
    with Chat(speak, greet=lambda body: Reply("no", status=status)) as chat:
        found, error = dead(chat, executor(chat).run(TASKS, lambda tasks: [ONE] * len(tasks)))
        assert not found and f"answered {status} (no); look at " in error
        assert not chat.seen


@pytest.mark.parametrize("flight", [1, 3, 16])
@pytest.mark.parametrize("how", ["dies", "refuses", "drops"])
def test_a_server_that_dies_in_the_middle_fails_no_task(flight, how):
    """After seven answers: the tasks that had theirs are handed over, no other is, and the run says why."""
    with Chat(speak) as chat:

        def answer(body):
            if len(chat.seen) <= 7:
                return speak(body)
            gone = Reply("gone", status=503) if how == "refuses" else Reply(drop=True)
            chat.answer = chat.greet = lambda body: gone
            if how == "dies":
                chat._server.socket.close()
            return gone

        chat.answer = answer
        own = executor(chat, concurrency=flight, server={"retries": 2})
        found, error = dead(chat, own.run(MANY, lambda tasks: [TWO] * len(tasks)))
        assert not any(episode.error for episode in found) and len(found) <= 3
        assert all(episode.answer == "check 3" for episode in found)
        assert len(found) == 3 or flight > 1
        assert error.startswith(f"backbone.url: {chat.url} ")
        assert "every finished episode is kept, and the same command goes on at the next task" in error


def test_a_server_that_hangs_lets_no_task_run_out_of_time():
    """Tasks in flight, and tasks that have arrived and wait, run out of time: the server is to blame for both."""
    held = Event()
    with Chat(speak) as chat:

        def answer(body):
            if len(chat.seen) <= 4:
                return speak(body)
            chat.answer = chat.greet = lambda body: Reply("late", after=held)
            own.jumped = 1000.0
            return Reply("late", after=held)

        chat.answer = answer
        settings = {"concurrency": 1, "timeout_s": 500.0, "arrivals": "bursts", "rate": 1000.0}
        own = executor(chat, server={"retries": 0, "timeout_s": 2.0}, **settings)
        found, error = dead(chat, own.run(MANY, lambda tasks: [TWO] * len(tasks)))
        held.set()
    assert [(episode.task_id, episode.error) for episode in found] == [("t00", ""), ("t01", "")]
    assert "gave no answer within backbone.timeout_s=2 s" in error


def test_a_server_that_comes_back_is_asked_again():
    """Two times of nothing, in the middle: nobody notices but the naps."""
    gone = [Reply(drop=True), Reply(status=502)]
    with Chat(lambda body: gone.pop() if gone and len(chat.seen) > 5 else speak(body)) as chat:
        naps = Naps()
        episodes = run(chat, TWO, MANY, naps=naps)
    assert len(episodes) == len(MANY) and not any(e.error for e in episodes) and len(naps.asked) == 2


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
