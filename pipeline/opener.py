"""Fetching one URL under a Guard, for img2dataset.

img2dataset fetches through `urllib.request.urlopen`, so an `Opener` that is installed with
`urllib.request.install_opener` sees every request of that process. It knows http and https and nothing else: no file:,
data: or ftp:, no proxies from the environment, no cookies, no connection used twice.
"""

import http.client
import io
import socket
import ssl
import string
import time
import urllib.request
import zlib
from email.message import Message
from typing import Any
from urllib.parse import quote, urljoin
from urllib.response import addinfourl

import certifi

from pipeline.failure import RowError
from pipeline.guard import Guard, Url, left

MOST_REDIRECTS = 5

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex"})
"""X-Robots-Tag directives that are honoured: img2dataset's."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({"dns", "reset", "http_429"})
"""Causes that may be gone a moment later. So may any http_5xx."""

_FIRST_PAUSE = 0.25
_BLOCK = 1 << 16


class Opener(urllib.request.OpenerDirector):
    """GETs for `urlopen`, under a Guard. The whole body is read before `open` returns; every error is a RowError."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.guard = guard
        self._tls = ssl.create_default_context()
        self._tls.load_verify_locations(certifi.where())  # a fresh macOS Python trusts nobody
        if guard.ca_file:
            self._tls.load_verify_locations(guard.ca_file)
        self._tls.sslsocket_class = _SecureWire

    def open(self, fullurl: str | urllib.request.Request, data: Any = None, timeout: float | None = None) -> addinfourl:
        """One picture, retried where the cause may pass. `data` and `timeout` are not looked at: the guard rules."""
        url = fullurl if isinstance(fullurl, str) else fullurl.full_url
        for attempt in range(self.guard.retries + 1):
            try:
                return self._fetched(url)
            except RowError as failure:
                passing = failure.cause in _PASSING or failure.cause.startswith("http_5")
                if not passing or attempt == self.guard.retries:
                    raise
            time.sleep(_FIRST_PAUSE * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _fetched(self, text: str) -> addinfourl:
        deadline = time.monotonic() + self.guard.timeout
        try:
            for _ in range(MOST_REDIRECTS + 1):
                url = Url.parse(text)
                with self._wire(url, deadline) as wire:
                    answer = self._asked(url, wire)
                    location = answer.getheader("Location") if answer.status in _REDIRECTS else None
                    if location is None:
                        body = _body(answer, self.guard.max_bytes)
                        return addinfourl(io.BytesIO(body), answer.headers, url.whole, answer.status)
                text = urljoin(url.whole, quote(location, string.punctuation, encoding="latin-1"))
        except RowError:
            raise
        except Exception as error:
            raise _failure(error, self.guard.timeout) from error
        raise RowError("redirects", f"more than {MOST_REDIRECTS} redirects")

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
        """The answer's head. Raises RowError for an opt-out and for every status but 2xx and redirects."""
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
        if not 200 <= answer.status < 300 and not redirected:
            raise RowError(f"http_{answer.status}", answer.reason or "no reason given")
        if opted_out(answer.headers, self.guard.user_agent):
            raise RowError("opt_out", "X-Robots-Tag says that this picture must not be used")
        return answer


def opted_out(headers: Message, user_agent: str) -> bool:
    """Whether X-Robots-Tag forbids use to all robots, or to the one that `user_agent` names first."""
    own = user_agent.lower().partition("/")[0]
    for line in headers.get_all("X-Robots-Tag", []):
        robot = ""
        for part in line.lower().split(","):
            named, colon, directive = part.rpartition(":")
            robot = named.strip() if colon else robot
            if directive.strip() in OPT_OUTS and robot in ("", own):
                return True
    return False


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
    if isinstance(error, (http.client.HTTPException, zlib.error, ValueError)):
        return RowError("bad_answer", f"{type(error).__name__}: {error}")
    if isinstance(error, OSError):
        return RowError("unreachable", error.strerror or type(error).__name__)
    return RowError("bad_answer", f"{type(error).__name__}: {error}")
