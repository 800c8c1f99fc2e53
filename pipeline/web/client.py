"""Fetching one URL under a Guard, for img2dataset.

img2dataset fetches through `urllib.request.urlopen`. An `Opener` that is installed with
`urllib.request.install_opener` therefore serves every request of that process. It supports http and https only: no
file:, data: or ftp:, no proxies from the environment, no cookies, no reused connections.

A name and a password in a URL are not sent, and no message here quotes an address.
"""

import contextlib
import hashlib
import http.client
import io
import string
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote
from urllib.response import addinfourl

from pipeline.failure import RowError, is_transient
from pipeline.web import response
from pipeline.web.guard import Guard
from pipeline.web.robots import MAX_ROBOTS_BYTES, Rules, opted_out, robot_name
from pipeline.web.throttle import Hosts, retry_after
from pipeline.web.transport import Socket, connect, tls_context
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

    def __init__(self, guard: Guard, cache: Path | None = None) -> None:
        """`cache` is a folder that keeps the hosts' robots.txt for the next opener."""
        super().__init__()
        self.guard, self._cache, self._hosts = guard, cache, Hosts(guard.per_host)
        self._tls = tls_context(guard.ca_file)

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
                    with self._connect(url, deadline) as connection:
                        answer = self._request(url, connection)
                        location = answer.getheader("Location") if answer.status in _REDIRECTS else None
                        check(answer)
                        if location is None:
                            body = response.read_body(answer, self.guard.max_bytes)
                            return addinfourl(io.BytesIO(body), answer.headers, url.text, answer.status)
                text, base = quote(location, string.punctuation, encoding="latin-1"), url.text
        except RowError:
            raise
        except Exception as error:
            raise response.failure(error, self.guard.timeout) from error
        raise RowError("redirects", f"more than {MAX_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _turn(self, url: Url) -> Iterator[None]:
        """Wait for a slot and for the host's backoff, and check its robots.txt if that is honoured."""
        host = self._hosts[url.authority]
        with host.slot():
            backoff = host.backoff
            if backoff > self.guard.timeout:
                raise RowError("http_429", "the host refused others, and rests for longer than a request may take")
            time.sleep(backoff)
            if "robots.txt" in self.guard.robots and not host.rules(lambda: self._rules(url)).allow(url.target):
                raise RowError("robots_txt", "the site's robots.txt forbids it")
            yield

    def _rules(self, url: Url) -> Rules:
        """The host's rules for this robot. A missing robots.txt forbids nothing."""
        name = robot_name(self.guard.user_agent)
        cached = self._cache / _cache_name(url) if self._cache else None
        if cached and cached.is_file() and time.time() - cached.stat().st_mtime < DAY:
            return Rules(cached.read_text(encoding="utf-8"), name)
        text = self._robots_txt(url)
        if cached:
            cached.parent.mkdir(exist_ok=True)
            temporary = cached.with_suffix(f".{threading.get_ident()}")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(cached)
        return Rules(text, name)

    def _robots_txt(self, url: Url) -> str:
        """The text of the host's robots.txt, without a turn: the caller holds one. Empty if there is none."""
        try:
            answer = self._follow(url.with_target("/robots.txt"), _no_turn, lambda answer: None)
        except RowError as failure:
            if failure.cause != "empty" and (not failure.cause.startswith("http_4") or failure.cause == "http_429"):
                raise
            return ""
        return answer.read()[:MAX_ROBOTS_BYTES].decode("utf-8-sig", "replace")

    def _check_opt_out(self, answer: http.client.HTTPResponse) -> None:
        if opted_out(answer.headers, self.guard.user_agent, self.guard.robots):
            raise RowError("opt_out", "X-Robots-Tag says that this picture must not be used")

    def _connect(self, url: Url, deadline: float) -> Socket:
        addresses = self.guard.addresses(url, deadline)
        return connect(addresses, deadline, (self._tls, url.host) if url.secure else None)

    def _request(self, url: Url, connection: Socket) -> http.client.HTTPResponse:
        """The head of the response. Raises RowError for every status but 2xx and redirects."""
        client = http.client.HTTPConnection(url.host, url.port)
        client.sock = connection
        headers = {
            "Host": url.host_header,
            "User-Agent": self.guard.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        client.request("GET", url.target, headers=headers)
        answer = response.final(client.getresponse(), connection)
        redirected = answer.status in _REDIRECTS and answer.getheader("Location") is not None
        if answer.status in _OVERLOADED:
            self._hosts[url.authority].record_refusal(retry_after(answer.getheader("Retry-After")))
        else:
            self._hosts[url.authority].record_success()
        if not 200 <= answer.status < 300 and not redirected:
            raise RowError(f"http_{answer.status}", http.client.responses.get(answer.status, "no known status"))
        return answer


def _no_turn(url: Url) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _cache_name(url: Url) -> str:
    return hashlib.sha256(f"{url.secure} {url.authority}".encode()).hexdigest()
