"""A model that a server has: chat completions by the OpenAI protocol, asked again with patience where that may help.

Of the protocol only what vLLM, SGLang, llama.cpp, ``transformers serve`` and the providers have in common is used: one
choice a request, no streaming, token counts from ``usage``. Nothing that is raised here holds the key.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from graphflow.backbone.config import BackboneConfig, BackboneError

Message = dict[str, str]

AGAIN = (408, 409, 429)  # and 5xx: the same request may be answered later
CONNECT_S = 10.0  # a connection that takes longer is none
LONGEST_WAIT_S = 120.0  # between two tries, whatever the server asks for
SHOWN = 300  # characters of what a server said
GREETING = ({"role": "user", "content": "Hello"},)


class ServerError(RuntimeError):
    """A request that got no answer that can be used; the message says why, and what to look at."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: As it came.
        prompt_tokens: Tokens of the request, by the server's count.
        cached_tokens: Those of them whose KV the server had, where it says so.
        output_tokens: Tokens generated, 1 at least: the one that ends an output is one.
    """

    text: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Trouble:
    """What became of a try that failed.

    Attributes:
        reason: In words.
        again: True if another try may do better.
        wait_s: Seconds that the server asks to wait.
    """

    reason: str
    again: bool
    wait_s: float = 0.0


class ChatServer:
    """Asks a server.

    Args:
        config: Which server, which model, how patiently.
        sleep: Waits for some seconds between two tries.

    Raises:
        BackboneError: There is no key where the config says, or no header can hold it.
    """

    def __init__(self, config: BackboneConfig, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.config, self._sleep = config, sleep
        self._key = _key(config.key_env)
        self._client: httpx2.AsyncClient | None = None

    async def ask(
        self, messages: Sequence[Message], max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Answer:
        """One answer.

        Args:
            messages: The conversation; the last one is the user's.
            max_tokens: Limit.
            temperature: 0 is greedy.
            seed: For sampling, where the server honours it.

        Raises:
            ServerError: There was none, however often it was tried.
        """
        body: dict[str, Any] = {"model": self.config.model, "messages": list(messages), "max_tokens": max_tokens}
        body["temperature"] = temperature
        if temperature:
            body |= {"top_p": 1.0, "seed": seed % 2**31}
        tries = 0
        while True:
            found = await self._try(body)
            if isinstance(found, Answer):
                return found
            tries += 1
            if not found.again or tries > self.config.retries:
                often = f", tried {tries} times" if tries > 1 else ""
                raise ServerError(f"{self.config.url} {found.reason}{often}")
            wait = max(self.config.backoff_s * 2 ** (tries - 1), found.wait_s)
            await self._sleep(min(wait, LONGEST_WAIT_S))

    async def greet(self) -> None:
        """Asks for one token, to see that server, model and key are what they should be.

        Raises:
            BackboneError: They are not.
        """
        try:
            await self.ask(GREETING, max_tokens=1)
        except ServerError as error:
            raise BackboneError(
                f"backbone.url: {error}; every finished episode is kept, and the same command goes on at the next task"
            ) from None

    async def close(self) -> None:
        """Closes the connections; asking opens new ones."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    async def _try(self, body: dict[str, Any]) -> Answer | Trouble:
        try:
            async with asyncio.timeout(self.config.timeout_s):
                response = await self._opened().post(f"{self.config.url.rstrip('/')}/chat/completions", json=body)
        except httpx2.ConnectTimeout:
            return Trouble(f"could not be reached (no connection within {CONNECT_S:g} s): is the server running?", True)
        except TimeoutError:
            return Trouble(f"gave no answer within backbone.timeout_s={self.config.timeout_s:g} s", True)
        except httpx2.RequestError as error:
            why = f"{type(error).__name__}: {self._shown(str(error))}"
            return Trouble(f"could not be reached ({why}): is the server running?", True)
        if response.status_code != 200:
            return self._refusal(response)
        return read_answer(response.text) or Trouble(
            f"gave an answer that is no chat completion with usage ({self._shown(response.text)!r}): "
            "is backbone.url that of an OpenAI-compatible server?",
            True,
        )

    def _refusal(self, response: httpx2.Response) -> Trouble:
        """What a status other than 200 means."""
        status, look = response.status_code, ""
        again = status in AGAIN or status >= 500
        if status in (401, 403):
            given = f"={self.config.key_env}" if self.config.key_env else ", which is empty: no key was sent"
            look = f"; look at backbone.key_env{given}"
        elif status == 404 or 300 <= status < 400:
            look = f"; look at backbone.model={self.config.model!r} and backbone.url"
        reason = f"answered {status} ({self._shown(what_was_said(response)) or 'nothing was said'}){look}"
        return Trouble(reason, again, seconds_asked(response.headers.get("retry-after", "")) if again else 0.0)

    def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            limits = httpx2.Limits(max_connections=None)
            self._client = httpx2.AsyncClient(
                headers=headers, timeout=httpx2.Timeout(None, connect=CONNECT_S), limits=limits
            )
        return self._client

    def _shown(self, text: str) -> str:
        """What a server said, on one line, not too long and without the key."""
        line = " ".join((text.replace(self._key, "[key]") if self._key else text).split())
        return line if len(line) <= SHOWN else line[:SHOWN] + " ..."


def read_answer(text: str) -> Answer | None:
    """A chat completion's first choice; None if the text is none, or says nothing about tokens."""
    try:
        raw = json.loads(text)
        written, usage = raw["choices"][0]["message"].get("content"), raw["usage"]
        prompt, output = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(written, str | None):
        return None
    return Answer(written or "", prompt, min(cached, prompt), max(output, 1))


def what_was_said(response: httpx2.Response) -> str:
    """The message in an error's body: OpenAI's ``error.message``, FastAPI's ``detail``, else the text."""
    try:
        raw = response.json()
    except ValueError:
        raw = response.text
    for name in ("error", "detail", "message"):
        if isinstance(raw, dict) and raw.get(name):
            raw = raw[name]
    return raw if isinstance(raw, str) else json.dumps(raw)


def seconds_asked(header: str) -> float:
    """Seconds that a Retry-After header asks for, which are given as such or as a date; 0 for none."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _key(variable: str) -> str:
    """The key in an environment variable; empty where none is named."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise BackboneError(f"backbone.key_env names {variable}, which is not set; set it, or give backbone.key_env=''")
    if not (key.isascii() and key.isprintable()):
        raise BackboneError(f"backbone.key_env names {variable}, which holds characters that no header can hold")
    return key
