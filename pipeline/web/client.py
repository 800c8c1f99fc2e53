"""Fetching one URL under a Guard, for img2dataset.

img2dataset fetches through `urllib.request.urlopen`, so an `Opener` that is installed with
`urllib.request.install_opener` sees every request of that process. It knows http and https and nothing else: no file:,
data: or ftp:, no proxies from the environment, no cookies, no connection used twice.

A name and a password in a URL are not sent, and no message here quotes an address.
"""

import contextlib
import functools
import hashlib
import http.client
import io
import socket
import ssl
import string
import threading
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote, urljoin
from urllib.response import addinfourl

import certifi

from pipeline.failure import RowError, passing
from pipeline.web.guard import Guard, left
from pipeline.web.robots import MOST_RULES, Rules, opted_out, robot
from pipeline.web.throttle import Hosts, asked_for
from pipeline.web.url import Url

Turn: TypeAlias = Callable[[Url], contextlib.AbstractContextManager[None]]
"""Waits until a URL may be asked for, and holds its place meanwhile. Raises RowError where it may not."""

MOST_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LATER = frozenset({429, 503})
"""Statuses with which a host says that it has too much, and may name a time to come back at."""

_FIRST_PAUSE = 0.25
_BLOCK = 1 << 16

DAY = 86_400
"""Seconds after which a robots.txt is read anew, by RFC 9309."""


class Opener(urllib.request.OpenerDirector):
    """GETs for `urlopen`, under a Guard. The whole body is read before `open` returns; every error is a RowError."""

    def __init__(self, guard: Guard, kept: Path | None = None) -> None:
        """`kept` is a folder where what robots.txt said is found again by the next opener."""
        super().__init__()
        self.guard, self._kept, self._hosts = guard, kept, Hosts(guard.per_host)
        self._tls = _trusting(guard.ca_file)

    def open(self, fullurl: str | urllib.request.Request, data: Any = None, timeout: float | None = None) -> addinfourl:
        """One picture, retried where the cause may pass. `data` and `timeout` are not looked at: the guard rules."""
        url = fullurl if isinstance(fullurl, str) else fullurl.full_url
        for attempt in range(self.guard.retries + 1):
            try:
                return self._fetched(url)
            except RowError as failure:
                if not passing(failure.cause) or attempt == self.guard.retries:
                    raise
            time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _fetched(self, text: str) -> addinfourl:
        """One attempt."""
        return self._followed(text, self._turn, lambda answer: self._honour(answer.headers))

    def _followed(self, text: str, turn: Turn, look: Callable[[http.client.HTTPResponse], None]) -> addinfourl:
        """The body behind a URL and its redirects. `turn` waits until each may be asked for, `look` at the heads."""
        deadline = time.monotonic() + self.guard.timeout
        try:
            for _ in range(MOST_REDIRECTS + 1):
                url, came = Url.parse(text), time.monotonic()
                with turn(url):
                    deadline += time.monotonic() - came  # to be polite takes no time from the request
                    with self._wire(url, deadline) as wire:
                        answer = self._asked(url, wire)
                        location = answer.getheader("Location") if answer.status in _REDIRECTS else None
                        look(answer)
                        if location is None:
                            body = _body(answer, self.guard.max_bytes)
                            return addinfourl(io.BytesIO(body), answer.headers, url.whole, answer.status)
                text = urljoin(url.whole, quote(location, string.punctuation, encoding="latin-1"))
        except RowError:
            raise
        except Exception as error:
            raise _failure(error, self.guard.timeout) from error
        raise RowError("redirects", f"more than {MOST_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _turn(self, url: Url) -> Iterator[None]:
        """Be allowed to ask for a URL: by the host's patience, and by its robots.txt where that is honoured."""
        host = self._hosts[url.place]
        with host.slot():
            rest = host.resting
            if rest > self.guard.timeout:
                raise RowError("http_429", "the host refused others, and rests for longer than a request may take")
            time.sleep(rest)
            if "robots.txt" in self.guard.robots and not host.rules(lambda: self._rules(url)).allow(url.target):
                raise RowError("robots_txt", "the site's robots.txt forbids it")
            yield

    def _rules(self, url: Url) -> Rules:
        """What the host of a URL says of this robot. A robots.txt that is not there forbids nothing."""
        name = robot(self.guard.user_agent)
        kept = self._kept / hashlib.sha256(f"{url.secure} {url.place}".encode()).hexdigest() if self._kept else None
        if kept and kept.is_file() and time.time() - kept.stat().st_mtime < DAY:
            return Rules(kept.read_text(encoding="utf-8"), name)
        try:
            answer = self._followed(url.at("/robots.txt"), lambda url: contextlib.nullcontext(), lambda answer: None)
            text = answer.read()[:MOST_RULES].decode("utf-8-sig", "replace")
        except RowError as failure:
            if failure.cause != "empty" and (not failure.cause.startswith("http_4") or failure.cause == "http_429"):
                raise
            text = ""
        if kept:
            kept.parent.mkdir(exist_ok=True)
            made = kept.with_suffix(f".{threading.get_ident()}")
            made.write_text(text, encoding="utf-8")
            made.replace(kept)
        return Rules(text, name)

    def _honour(self, headers: Message) -> None:
        if opted_out(headers, self.guard.user_agent, self.guard.robots):
            raise RowError("opt_out", "X-Robots-Tag says that this picture must not be used")

    def _wire(self, url: Url, deadline: float) -> "_Wire | _SecureWire":
        targets = self.guard.targets(url, deadline)
        for rest, (address, port) in zip(range(len(targets) - 1, -1, -1), targets, strict=True):
            wire = _Wire(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                wire.settimeout(left(deadline) / (rest + 1))  # a silent address leaves time for the others
                wire.connect((address, port))
                wire.settimeout(left(deadline))
                ready = self._secured(wire, url.host) if url.secure else wire
            except OSError as error:
                wire.close()
                if rest and not isinstance(error, ssl.SSLError):
                    continue
                raise
            ready.deadline = deadline
            return ready
        raise AssertionError("targets is never empty")

    def _secured(self, wire: "_Wire", host: str) -> "_SecureWire":
        secure = self._tls.wrap_socket(wire, server_hostname=host)
        assert isinstance(secure, _SecureWire)
        return secure

    def _asked(self, url: Url, wire: socket.socket) -> http.client.HTTPResponse:
        """The answer's head. Raises RowError for every status but 2xx and redirects."""
        connection = http.client.HTTPConnection(url.host, url.port)
        connection.sock = wire
        headers = {
            "Host": url.header,
            "User-Agent": self.guard.user_agent,
            "Accept": "image/*,*/*;q=0.5",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        connection.request("GET", url.target, headers=headers)
        answer = connection.getresponse()
        redirected = answer.status in _REDIRECTS and answer.getheader("Location") is not None
        if answer.status in _LATER:
            self._hosts[url.place].refused(asked_for(answer.getheader("Retry-After")))
        else:
            self._hosts[url.place].served()
        if not 200 <= answer.status < 300 and not redirected:
            raise RowError(f"http_{answer.status}", http.client.responses.get(answer.status, "no known status"))
        return answer


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    if int(answer.getheader("Content-Length") or 0) > most:
        raise RowError("too_large", f"the body has more than {most} bytes")
    blocks = []
    size = 0
    while block := answer.read(_BLOCK):
        blocks.append(block)
        size += len(block)
        if size > most:
            raise RowError("too_large", f"the body has more than {most} bytes")
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    body = _unpacked(b"".join(blocks), answer.getheader("Content-Encoding") or "identity", most)
    if not body:
        raise RowError("empty", "the body has no bytes")
    return body


def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Undo a Content-Encoding that nobody asked for."""
    if encoding.strip().lower() == "identity" or not body:
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise RowError("bad_answer", f"the content encoding {encoding[:20]} was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out itself which of the two it is
    plain = unpacker.decompress(body, most + 1)
    if len(plain) > most:
        raise RowError("too_large", f"the body unpacks to more than {most} bytes")
    if not unpacker.eof:
        raise RowError("bad_answer", "the packed body ends too early")
    return plain


class _Wire(socket.socket):
    """A socket whose reads all end at one deadline, however slowly the bytes drip."""

    deadline: float

    def recv_into(self, *args: Any) -> int:
        self.settimeout(left(self.deadline))
        return super().recv_into(*args)


class _SecureWire(ssl.SSLSocket):
    """The same under TLS."""

    deadline: float

    def recv_into(self, *args: Any) -> int:
        self.settimeout(left(self.deadline))
        return super().recv_into(*args)


@functools.cache
def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that believes the usual authorities, and this one. To read them takes 30 ms."""
    tls = ssl.create_default_context()
    tls.load_verify_locations(certifi.where())  # a fresh macOS Python trusts nobody
    if ca_file:
        tls.load_verify_locations(ca_file)
    tls.sslsocket_class = _SecureWire
    return tls


def _failure(error: Exception, timeout: float) -> RowError:
    """The cause in one word, and the same words for the same cause wherever it struck: results are reproducible."""
    if isinstance(error, TimeoutError):
        return RowError("timeout", f"no whole answer within {timeout:g} s")
    if isinstance(error, socket.gaierror):
        return RowError("dns", "the name cannot be resolved")
    if isinstance(error, ConnectionRefusedError):
        return RowError("refused", "the connection was refused")
    if isinstance(error, (ConnectionError, http.client.IncompleteRead, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return RowError("reset", "the connection ended before the answer did")
    if isinstance(error, ssl.SSLCertVerificationError):
        return RowError("tls", error.verify_message)
    if isinstance(error, ssl.SSLError):
        return RowError("tls", error.reason or "the TLS handshake failed")
    if isinstance(error, OSError):
        return RowError("unreachable", error.strerror or type(error).__name__)
    return RowError("bad_answer", f"it cannot be read: {type(error).__name__}")  # its words may quote the address
