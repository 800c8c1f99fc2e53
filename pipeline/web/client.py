"""Fetching one URL under a Guard, for img2dataset.

img2dataset fetches through `urllib.request.urlopen`. An `Opener` that is installed with
`urllib.request.install_opener` therefore serves every request of that process. It supports http and https only: no
file:, data: or ftp:, no proxies from the environment, no cookies. Connections are reused (`pipeline.web.connections`).

A name and a password in a URL are not sent, and no message here quotes an address.
"""

import contextlib
import hashlib
import http.client
import io
import json
import os
import ssl
import string
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote
from urllib.response import addinfourl

from pipeline.failure import RowError, is_transient
from pipeline.web import response
from pipeline.web.connections import Connections
from pipeline.web.guard import Guard
from pipeline.web.robots import MAX_ROBOTS_BYTES, Rules, opted_out, robot_name
from pipeline.web.throttle import Hosts, ThrottleError, retry_after
from pipeline.web.transport import Socket
from pipeline.web.url import Url

Turn: TypeAlias = Callable[[Url], contextlib.AbstractContextManager[None]]
"""Waits until a URL may be requested, and holds its slot meanwhile. Raises RowError if it must not be requested."""

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OVERLOADED = frozenset({429, 503})
"""Statuses of a host that has too many requests. It may name a time for the next one."""

_FIRST_PAUSE = 0.25

DAY = 86_400
"""Seconds after which a robots.txt is read again (RFC 9309)."""


class Opener(urllib.request.OpenerDirector):
    """GETs for `urlopen`, under a Guard. The whole body is read before `open` returns; every error is a RowError."""

    def __init__(self, guard: Guard, cache: Path | None = None, hosts: Hosts | None = None) -> None:
        """`cache` is a folder that keeps the hosts' robots.txt for other openers, `hosts` what is known of hosts."""
        super().__init__()
        self.guard, self._cache, self._hosts = guard, cache, hosts or Hosts()
        self._connections = Connections(guard)
        self._robots: dict[str, Rules | RowError] = {}

    def open(self, fullurl: str | urllib.request.Request, data: Any = None, timeout: float | None = None) -> addinfourl:
        """One picture, with retries for causes that may pass. `data` and `timeout` are ignored: the guard decides."""
        url = fullurl if isinstance(fullurl, str) else fullurl.full_url
        for attempt in range(self.guard.retries + 1):
            try:
                return self._follow(url, self._turn, self._check_opt_out)
            except RowError as failure:
                if not is_transient(failure.cause) or attempt == self.guard.retries:
                    raise
            time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, text: str, turn: Turn, check: Callable[[http.client.HTTPResponse], None]) -> addinfourl:
        """The body behind a URL and its redirects. `check` sees the head of each response, and may raise RowError."""
        deadline = time.monotonic() + self.guard.timeout
        base = None
        try:
            for _ in range(MAX_REDIRECTS + 1):
                url, before = Url.parse(text, base), time.monotonic()
                with turn(url):
                    deadline += time.monotonic() - before  # waiting for a turn takes no time from the request
                    with self._response(url, deadline) as answer:
                        location = answer.getheader("Location") if answer.status in _REDIRECTS else None
                        check(answer)
                        if location is None:
                            body = response.read_body(answer, self.guard.max_bytes)
                            return addinfourl(io.BytesIO(body), answer.headers, url.text, answer.status)
                text, base = quote(location, string.punctuation, encoding="latin-1"), url.text
        except (RowError, ThrottleError):
            raise
        except Exception as error:
            raise response.failure(error, self.guard.timeout) from error
        raise RowError("redirects", f"more than {MAX_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _turn(self, url: Url) -> Iterator[None]:
        """Wait for a slot and for the host's backoff, and check its robots.txt if that is honoured."""
        with self._hosts.slot(url.authority, self.guard.per_host) as backoff:
            if backoff > self.guard.timeout:
                raise RowError("http_429", "the host refused others, and rests for longer than a request may take")
            if backoff:
                time.sleep(backoff)
            if "robots.txt" in self.guard.robots and not self._rules(url).allow(url.target):
                raise RowError("robots_txt", "the site's robots.txt forbids it")
            yield

    def _rules(self, url: Url) -> Rules:
        """The host's rules for this robot, read once while others wait. A missing robots.txt forbids nothing.

        A cause that does not pass fails every URL of the host.
        """
        name = _cache_name(url)
        if name not in self._robots:
            with self._hosts.slot(f"robots.txt of {name}", 1):
                if name not in self._robots:
                    self._robots[name] = self._read_rules(url, self._cache / name if self._cache else None)
        known = self._robots[name]
        if isinstance(known, RowError):
            raise RowError(known.cause, known.error)
        return known

    def _read_rules(self, url: Url, cached: Path | None) -> Rules | RowError:
        """From the cache or from the host. Raises RowError for a cause that may pass."""
        if cached and cached.is_file() and time.time() - cached.stat().st_mtime < DAY:
            known = json.loads(cached.read_text(encoding="utf-8"))
        else:
            known = self._robots_txt(url)
            if cached:
                cached.parent.mkdir(exist_ok=True)
                temporary = cached.with_suffix(f".{os.getpid()}")
                temporary.write_text(json.dumps(known), encoding="utf-8")
                temporary.replace(cached)
        if "cause" in known:
            return RowError(**known)
        return Rules(known["text"], robot_name(self.guard.user_agent))

    def _robots_txt(self, url: Url) -> dict[str, str]:
        """The `text` of the host's robots.txt, empty if there is none, or `cause` and `error` of a failure.

        The caller holds the turn. Raises RowError for a cause that may pass.
        """
        try:
            answer = self._follow(url.with_target("/robots.txt"), _no_turn, lambda answer: None)
        except RowError as failure:
            if failure.cause == "empty" or (failure.cause.startswith("http_4") and failure.cause != "http_429"):
                return {"text": ""}
            if is_transient(failure.cause):
                raise
            return {"cause": failure.cause, "error": failure.error}
        return {"text": answer.read()[:MAX_ROBOTS_BYTES].decode("utf-8-sig", "replace")}

    def _check_opt_out(self, answer: http.client.HTTPResponse) -> None:
        if opted_out(answer.headers, self.guard.user_agent, self.guard.robots):
            raise RowError("opt_out", "X-Robots-Tag says that this picture must not be used")

    @contextlib.contextmanager
    def _response(self, url: Url, deadline: float) -> Iterator[http.client.HTTPResponse]:
        """The response to a GET, with its head read. The connection is kept if its body is read to the end."""
        answer, wire = self._request(url, deadline)
        try:
            self._judge(url, answer)
            yield answer
            if answer.isclosed() and not answer.will_close:
                self._connections.keep(url, wire)
                return
        except BaseException:
            wire.close()
            raise
        wire.close()

    def _request(self, url: Url, deadline: float) -> tuple[http.client.HTTPResponse, Socket]:
        """Send the request, over a connection that is open if there is one."""
        wire = self._connections.take(url, deadline)
        if wire is not None:
            try:
                return self._send(url, wire), wire
            except (ConnectionError, http.client.HTTPException, ssl.SSLError):  # it ended while it was idle
                wire.close()
            except BaseException:
                wire.close()
                raise
        wire = self._connections.open(url, deadline)
        try:
            return self._send(url, wire), wire
        except BaseException:
            wire.close()
            raise

    def _send(self, url: Url, wire: Socket) -> http.client.HTTPResponse:
        client = http.client.HTTPConnection(url.host, url.port)
        client.sock = wire
        headers = {
            "Host": url.host_header,
            "User-Agent": self.guard.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
        }
        client.request("GET", url.target, headers=headers)
        return response.final(client.getresponse(), wire)

    def _judge(self, url: Url, answer: http.client.HTTPResponse) -> None:
        """Record what the host did. Raises RowError for every status but 2xx and redirects."""
        redirected = answer.status in _REDIRECTS and answer.getheader("Location") is not None
        if answer.status in _OVERLOADED:
            self._hosts.record_refusal(url.authority, retry_after(answer.getheader("Retry-After")))
        else:
            self._hosts.record_success(url.authority)
        if not 200 <= answer.status < 300 and not redirected:
            raise RowError(f"http_{answer.status}", http.client.responses.get(answer.status, "no known status"))


def _no_turn(url: Url) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _cache_name(url: Url) -> str:
    return hashlib.sha256(f"{url.secure} {url.authority}".encode()).hexdigest()
