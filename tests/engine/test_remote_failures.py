"""A server that refuses, hangs or dies: what fails alone, what ends the run, and that nothing finished is lost."""

import threading
from threading import Event

import pytest

from graphflow.backbone.config import BackboneError
from graphflow.engine.episode import StepOutput
from graphflow.engine.tools import TOOLS
from graphflow.wgraph.workflow import Step, Workflow
from tests.chat import Chat, Naps, Reply
from tests.engine.remote import MANY, ONE, TWO, executor, run, speak, task_of
from tests.engine.serving import TASKS


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
