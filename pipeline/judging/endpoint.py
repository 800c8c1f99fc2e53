"""A vision-language model behind an endpoint that speaks OpenAI's chat completions, as vLLM, Ollama and others do."""

import base64
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from pipeline.errors import ModelError
from pipeline.judging.answers import valid
from pipeline.judging.replies import Reply
from pipeline.redact import redact

MOST = 1 << 20
"""Bytes of a reply that are read, at most."""

PATIENCE = 60.0
"""The longest pause in seconds before a request is repeated, whatever the endpoint asks for."""

TRIES, PAUSE = 4, 1.0
"""Requests for one pair, if the endpoint is busy or fails, and the first pause in seconds, which doubles."""

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_CONFIGURATION = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405})

_TOKENS = 1 << 24
"""Tokens of one reply that are counted, at most: an endpoint may report any number."""


class EndpointDownError(Exception):
    """The endpoint did not answer, or only with errors. The message is the last cause."""


@dataclass
class Endpoint:
    """Asks `model` at `address`. Any number of threads may ask at the same time.

    `seconds` is the time limit of one request. Without `schema` support an endpoint is asked without it from then on.
    Raises ModelError if the environment names a proxy that cannot be used.
    """

    address: str
    model: str
    key: str | None
    seconds: float
    max_tokens: int
    schema: Mapping[str, Any]
    _client: httpx.Client = field(init=False)
    _plain: bool = field(default=False, init=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        limits = httpx.Limits(max_connections=None)
        try:
            self._client = httpx.Client(headers=headers, timeout=self.seconds, limits=limits)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ModelError(f"the proxy that the environment names cannot be used: {error}") from None

    def close(self) -> None:
        """End all requests."""
        self._closed.set()
        self._client.close()

    def ask(self, picture: bytes, prompt: str) -> Reply:
        """The reply about a JPEG. Raises EndpointDownError, and ModelError for what fails every request."""
        end, cause = time.monotonic() + 2 * self.seconds, "no_connection"  # pauses do not count
        for number in range(TRIES):
            try:
                status, headers, body = self._post(self._request(picture, prompt))
            except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client was closed
                cause, wait = type(error).__name__, PAUSE * 2**number
            else:
                if status == 200:
                    return _parse(body)
                if status in _CONFIGURATION:
                    raise ModelError(self._refusal(status, headers))
                if not self._plain and status in (400, 422):
                    self._plain, cause, wait = True, f"HTTP {status}", 0.0  # it may not know response_format
                elif status in _BUSY:
                    cause, wait = f"HTTP {status}", _wait(headers, PAUSE * 2**number)
                else:
                    return Reply("", fault=f"http_{status}")
            if number == TRIES - 1 or time.monotonic() > end or self._closed.wait(wait):
                break
            end += wait
        raise EndpointDownError(cause)

    def _refusal(self, status: int, headers: httpx.Headers) -> str:
        if status < 400:
            to = redact(headers.get("Location", "elsewhere")).partition("?")[0][:200]
            return f"{self.address} redirects to {to} (HTTP {status}), which is not followed: name the right endpoint"
        what = {401: "refuses the key", 403: "refuses the key"}.get(status, f"has no model {self.model!r}, or no path")
        return f"{self.address} {what} (HTTP {status}): check endpoint, model, and the variable that key names"

    def _request(self, picture: bytes, prompt: str) -> dict[str, Any]:
        encoded = base64.b64encode(picture).decode()
        content = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{encoded}"}},
        ]
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        if not self._plain:
            form = {"name": "answers", "strict": True, "schema": self.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
        return request

    def _post(self, request: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body. Raises httpx.HTTPError, also for a body that takes too long or is too large."""
        end = time.monotonic() + self.seconds
        with self._client.stream("POST", f"{self.address}/chat/completions", json=request) as answer:
            body = b""
            for part in answer.iter_bytes():
                body += part
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the whole reply took too long")
                if len(body) > MOST:
                    return answer.status_code, answer.headers, b""
            return answer.status_code, answer.headers, body


def _parse(body: bytes) -> Reply:
    """The reply in a body that may be anything."""
    try:
        found = json.loads(body)
        choice, message = found["choices"][0], found["choices"][0]["message"]
        content, refusal, ended = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Reply("", fault="no_completion")
    usage = found.get("usage")
    prompt, reply = (
        _count(usage.get(name)) if isinstance(usage, dict) else 0 for name in ("prompt_tokens", "completion_tokens")
    )
    parts = content if isinstance(content, list) else [content]  # some servers send a list of parts
    if refusal or ended == "content_filter" or any(_part(part, "refusal") for part in parts):
        return Reply("", prompt, reply, fault="refused")
    text = "".join(part if isinstance(part, str) else _part(part, "text") for part in parts)
    if ended == "length":
        return Reply(valid(text), prompt, reply, fault="cut_off")
    return Reply(valid(text), prompt, reply, fault=None if text.strip() else "empty")


def _part(part: Any, name: str) -> str:
    """A text of a part of a reply; "" without one."""
    found = part.get(name) if isinstance(part, dict) else None
    return found if isinstance(found, str) else ""


def _count(value: Any) -> int:
    """A number of tokens, also as text or as a decimal number; 0 for anything else."""
    try:
        count = 0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(min(count, _TOKENS)) if count > 0 else 0


def _wait(headers: httpx.Headers, otherwise: float) -> float:
    """Seconds that the endpoint asks to wait for."""
    try:
        return min(max(float(headers["Retry-After"]), 0.0), PATIENCE)
    except (KeyError, ValueError):
        return otherwise
