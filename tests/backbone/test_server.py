"""Asking a server: what is sent, what is read, what is tried again, and what an error says."""

import asyncio
import json
import socket
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from graphflow.backbone.config import BackboneConfig, BackboneError
from graphflow.backbone.load import load_backbone
from graphflow.backbone.server import LONGEST_WAIT_S, SHOWN, Answer, ChatServer, ServerError, read_answer, seconds_asked
from tests.chat import Chat, Naps, Reply, client

ASKED = [{"role": "user", "content": "one two three"}]
KEY = "sk-very-secret-0123456789"


def ask(server, **more):
    """One request, on a loop of its own."""

    async def run():
        try:
            return await server.ask(ASKED, max_tokens=5, **more)
        finally:
            await server.close()

    return asyncio.run(run())


def replies(*given):
    """One reply after the other; the last one over and over."""
    left = list(given)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


def test_a_greedy_request_and_its_answer():
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}}
    with Chat(lambda body: Reply(" four\n", usage=usage)) as chat:
        assert ask(client(chat)) == Answer(" four\n", prompt_tokens=9, cached_tokens=6, output_tokens=4)
        sent = {"path": "/v1/chat/completions", "model": "m", "messages": ASKED, "max_tokens": 5, "temperature": 0.0}
        assert chat.seen == [sent]
        assert "authorization" not in chat.headers


def test_a_sampled_request():
    """The seed as 31 bits, which every server takes; no cut of the distribution."""
    with Chat(lambda body: "four") as chat:
        ask(client(chat), temperature=0.7, seed=2**40 + 3)
        assert {name: chat.seen[0][name] for name in ("temperature", "top_p", "seed")} == {
            "temperature": 0.7,
            "top_p": 1.0,
            "seed": 3,
        }


def test_an_address_may_end_in_a_slash():
    with Chat(lambda body: "four") as chat:
        ask(ChatServer(chat.config(url=chat.url + "/")))
        assert chat.seen[0]["path"] == "/v1/chat/completions"


def test_what_may_pass_is_tried_again():
    """Half a second, doubled; or as long as the server asks for, if that is longer."""
    given = [Reply(status=status) for status in (500, 408, 409)]
    given += [Reply(status=429, headers={"Retry-After": "7"}), Reply(status=503, headers={"Retry-After": "1"})]
    with Chat(replies(*given, Reply("four"))) as chat:
        naps = Naps()
        assert ask(client(chat, naps, retries=5)).text == "four"
        assert naps.asked == [0.5, 1.0, 2.0, 7.0, 8.0]
        assert len(chat.seen) == 6 and all(body == chat.seen[0] for body in chat.seen)


def test_no_wait_is_endless():
    with Chat(replies(Reply(status=429, headers={"Retry-After": "1e9"}), Reply("four"))) as chat:
        naps = Naps()
        ask(client(chat, naps))
        assert naps.asked == [LONGEST_WAIT_S]


def test_what_does_not_pass_is_said():
    with Chat(lambda body: Reply("the engine is down", status=503)) as chat:
        naps = Naps()
        with pytest.raises(ServerError) as error:
            ask(client(chat, naps, retries=3))
        assert str(error.value) == f"{chat.url} answered 503 (the engine is down), tried 4 times"
        assert naps.asked == [0.5, 1.0, 2.0]
        with pytest.raises(ServerError, match=r"\(the engine is down\)$"):
            ask(client(chat, naps, retries=0))


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": {"message": "too long: 9000 tokens"}}, r"answered 400 \(too long: 9000 tokens\)$"),
        (
            401,
            {"error": "who are you?"},
            r"401 \(who are you\?\); look at backbone.key_env, which is empty",
        ),
        (403, {"detail": "not for you"}, r"403 \(not for you\); look at backbone.key_env"),
        (404, {"message": "no such model"}, r"404 \(no such model\); look at backbone.model='m' and backbone.url$"),
        (413, "a proxy's own\n  words", r"413 \(a proxy's own words\)$"),
        (422, {"detail": [{"loc": ["seed"]}]}, r"422 \(\[\{\"loc\": \[\"seed\"\]\}\]\)$"),
        (307, "", r"307 \(nothing was said\); look at backbone.model='m' and backbone.url$"),
    ],
)
def test_a_refusal_is_not_tried_again(status, body, said):
    reply = Reply(body if isinstance(body, str) else json.dumps(body), status=status)
    with Chat(lambda _: reply) as chat:
        naps = Naps()
        with pytest.raises(ServerError, match=said):
            ask(client(chat, naps))
        assert len(chat.seen) == 1 and not naps.asked


def test_what_a_server_says_at_length_is_cut():
    with Chat(lambda body: Reply("x" * 5000, status=400)) as chat, pytest.raises(ServerError) as error:
        ask(client(chat))
    assert "x" * SHOWN + " ..." in str(error.value) and len(str(error.value)) < SHOWN + 100


GARBAGE = (
    "<html>Welcome</html>",
    "[]",
    "{}",
    '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}',
    '{"choices": [{"message": {"content": "a"}}]}',
    '{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "many", "completion_tokens": 1}}',
    '{"choices": [{"message": {"content": ["a"]}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}',
)


@pytest.mark.parametrize("raw", GARBAGE)
def test_garbage_is_no_answer(raw):
    assert read_answer(raw) is None
    with Chat(lambda body: Reply(raw=raw)) as chat:
        naps = Naps()
        with pytest.raises(ServerError, match="no chat completion with usage .* is backbone.url that of an OpenAI"):
            ask(client(chat, naps, retries=1))
        assert naps.asked == [0.5], "a proxy may say so while the server starts"


def test_what_an_answer_may_leave_out():
    """No text, no word about caches, an end that is not counted."""
    raw = '{"choices": [{"message": {"content": null}}], "usage": {"prompt_tokens": 3, "completion_tokens": 0}}'
    assert read_answer(raw) == Answer("", 3, 0, 1)
    raw = raw.replace('"usage": {', '"usage": {"prompt_tokens_details": {"cached_tokens": 9}, ')
    assert read_answer(raw) == Answer("", 3, 3, 1), "no more is cached than was asked"


def test_a_connection_that_breaks_off_is_tried_again():
    with Chat(replies(Reply(drop=True), Reply("four"))) as chat:
        naps = Naps()
        assert ask(client(chat, naps)).text == "four" and naps.asked == [0.5]


def test_nobody_listens():
    with Chat(lambda body: "four") as chat:
        chat.die()
        naps = Naps()
        with pytest.raises(ServerError, match=r"could not be reached \(ConnectError: .*running\?, tried 3 times"):
            ask(client(chat, naps, retries=2))
        assert naps.asked == [0.5, 1.0]


def test_a_name_that_nobody_knows(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    server = ChatServer(BackboneConfig(url="http://nowhere.example/v1", model="m", turns="chat", retries=1), Naps())
    with pytest.raises(ServerError, match=r"could not be reached \(ConnectError: .*Name or service not known"):
        ask(server)


def test_an_answer_that_does_not_come():
    never = threading.Event()
    with Chat(lambda body: Reply("late", after=never)) as chat:
        with pytest.raises(ServerError, match=r"gave no answer within backbone.timeout_s=0.05 s, tried 2 times"):
            ask(client(chat, timeout_s=0.05, retries=1))
        never.set()


def test_a_connection_that_does_not_come_about(monkeypatch):
    async def post(*_, **__):
        raise httpx2.ConnectTimeout("")

    monkeypatch.setattr(httpx2.AsyncClient, "post", post)
    server = ChatServer(BackboneConfig(url="http://10.0.0.1/v1", model="m", turns="chat", retries=0))
    with pytest.raises(ServerError, match="could not be reached .no connection within 10 s.: is the server running"):
        ask(server)


def test_a_greeting_that_fails_is_the_backbone_s_fault():
    with Chat(lambda body: "four", greet=lambda body: Reply('{"error": "no model m"}', status=404)) as chat:
        with pytest.raises(BackboneError, match="backbone.url: .* answered 404 .no model m.; look at backbone.model"):
            asyncio.run(client(chat).greet())
        assert chat.greetings == 1 and not chat.seen


# Keys


def test_a_key_is_sent_and_never_said(monkeypatch):
    """Not even where the server repeats it, whole or at the end of what is shown."""
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    for said in (f"Incorrect API key provided: {KEY}.", "x" * (SHOWN - 8) + KEY):
        with Chat(lambda body, said=said: Reply(said, status=401)) as chat:
            server = client(chat, key_env="MY_KEY")
            with pytest.raises(ServerError, match="look at backbone.key_env=MY_KEY$") as error:
                ask(server)
            assert chat.headers["authorization"] == f"Bearer {KEY}"
            assert "sk-" not in str(error.value).replace("[key]", "") and KEY not in repr(server)


def test_a_key_that_is_not_there(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(BackboneError, match="backbone.key_env names MY_KEY, which is not set"):
        ChatServer(BackboneConfig(url="http://h/v1", model="m", turns="chat", key_env="MY_KEY"))
    monkeypatch.setenv("MY_KEY", f"{KEY}\nX-Other: 1")
    with pytest.raises(BackboneError, match="no header can hold") as error:
        ChatServer(BackboneConfig(url="http://h/v1", model="m", turns="chat", key_env="MY_KEY"))
    assert KEY not in str(error.value)


# Settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "127.0.0.1:8000/v1"}, "backbone.url must be of the form http://host:port/v1, got '127.0.0.1:8000/v1'"),
        ({"url": "ftp://h/v1"}, "backbone.url must be of the form"),
        ({"url": "http://h:port/v1"}, "backbone.url must be of the form"),
        ({"model": ""}, "backbone.model must be the name that the server"),
        ({"turns": "qwen"}, "backbone.turns must be chat or mini with backbone.url, got 'qwen'"),
        ({"path": "x"}, "backbone.path must be '' with backbone.url, got 'x'"),
        ({"attention": "shared"}, "backbone.attention must be 'dense' with backbone.url, got 'shared'"),
        ({"timeout_s": 0.0}, "backbone.timeout_s must be above 0, got 0.0"),
        ({"retries": -1}, "backbone.retries must be 0 or more, got -1"),
        ({"backoff_s": -0.1}, "backbone.backoff_s must be 0 or more, got -0.1"),
        ({"url": ""}, "backbone.model must be '' without backbone.url, got 'm'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError) as error:
        BackboneConfig(**{"url": "http://h:8000/v1", "model": "m", "turns": "chat", **settings})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "url", [f"http://me:{KEY}@h/v1", f"http://h/v1?key={KEY}", f"me:{KEY}@h", f"http://h/v1#{KEY}"]
)
def test_an_address_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(ValueError, match="backbone.url must hold no user, password") as error:
        BackboneConfig(url=url, model="m", turns="chat")
    assert KEY not in str(error.value)
    with pytest.raises(ValueError, match="backbone.key_env must be the name of an environment variable") as error:
        BackboneConfig(url="http://h/v1", model="m", turns="chat", key_env=KEY)
    assert KEY not in str(error.value)


def test_a_server_s_model_cannot_be_loaded():
    config = BackboneConfig(url="http://h/v1", model="m", turns="chat")
    with pytest.raises(BackboneError, match="backbone.url must be empty where the model itself is needed"):
        load_backbone(config)


def test_what_answers_hang_on():
    """Not how often and how long a server is asked; nothing of a server where there is none."""
    given = BackboneConfig(name="n", url="http://h/v1", model="m", turns="chat", timeout_s=1.0, key_env="K", retries=1)
    assert given.identity() == {"name": "n", "turns": "chat", "url": "http://h/v1", "model": "m"}
    assert not {"url", "model", "key_env", "timeout_s", "retries", "backoff_s"} & set(BackboneConfig().identity())
    assert BackboneConfig().identity()["dtype"] == "float32"


def test_how_long_a_server_asks_to_wait():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < seconds_asked(soon) <= 100
    assert [seconds_asked(text) for text in ("7", "0.5", "-3", "", "soon", "Sun, 06 Nov 1994 08:49:37 GMT")] == [
        *(7.0, 0.5, 0.0),
        *(0.0, 0.0, 0.0),
    ]
