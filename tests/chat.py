"""A chat server in the test's hands, on loopback: it answers, waits, refuses, breaks off or dies as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from graphflow.backbone.config import BackboneConfig
from graphflow.backbone.server import GREETING, ChatServer

Body = dict[str, Any]


@dataclass
class Reply:
    """What a request gets.

    Attributes:
        text: What the model writes; with a status other than 200 the body.
        status: Of HTTP.
        headers: Of HTTP.
        raw: The body in place of a chat completion.
        after: Waits for this first.
        drop: Breaks the connection off instead.
        usage: Token counts; by default the words of the messages and of the text.
    """

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: str | None = None
    after: threading.Event | None = None
    drop: bool = False
    usage: Body | None = None


def words(body: Body) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


class Chat:
    """A server; ``with Chat(answer) as chat: chat.config()``.

    Attributes:
        seen: Bodies of the requests, in order; greetings are in ``greetings`` alone.
        headers: Headers of the last request, by their names in small letters.
        most: Most requests that were open at once.

    Args:
        answer: Says what a request gets, told its body.
        greet: The same of greetings.
    """

    def __init__(
        self, answer: Callable[[Body], Reply | str], greet: Callable[[Body], Reply | str] = lambda body: "Hi"
    ) -> None:
        self.answer, self.greet = answer, greet
        self.seen: list[Body] = []
        self.greetings, self.most, self._open = 0, 0, 0
        self.headers: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Chat:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                chat.serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def die(self) -> None:
        """Listens no more; open connections get no answer."""
        self.answer = self.greet = lambda body: Reply(drop=True)
        self._server.shutdown()
        self._server.server_close()

    def config(self, **settings: Any) -> BackboneConfig:
        return BackboneConfig(**{"name": "openai", "url": self.url, "model": "m", "turns": "chat", **settings})

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        whole = request.rfile.read(length := int(request.headers["Content-Length"]))
        if len(whole) < length:  # given up before it was sent
            request.close_connection = True
            return
        body = json.loads(whole)
        greeting = body["messages"] == list(GREETING)
        with self._lock:
            self.headers = {name.lower(): value for name, value in request.headers.items()}
            self.greetings += greeting
            if not greeting:
                self.seen.append({"path": request.path, **body})
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            found = (self.greet if greeting else self.answer)(body)
            reply = Reply(found) if isinstance(found, str) else found
            if reply.after:
                reply.after.wait(10)
        finally:
            with self._lock:
                self._open -= 1
        if reply.drop:
            request.close_connection = True
            return
        usage = reply.usage or {"prompt_tokens": words(body), "completion_tokens": len(reply.text.split()) + 1}
        choice = {"index": 0, "message": {"role": "assistant", "content": reply.text}, "finish_reason": "stop"}
        whole = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage})
        data = (reply.raw if reply.raw is not None else whole if reply.status == 200 else reply.text).encode()
        try:
            request.send_response(reply.status)
            for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.write(data)
        except OSError:  # nobody waits for it any more
            request.close_connection = True


class Naps:
    """Sleeps for no time, and remembers for how long it was asked to."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)


def client(chat: Chat, naps: Naps | None = None, **settings: Any) -> ChatServer:
    """A client of the server, which does not sleep."""
    return ChatServer(chat.config(**settings), naps or Naps())
