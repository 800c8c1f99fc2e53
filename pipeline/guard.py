"""What may be opened on the network: http and https, to public addresses, for a bounded time."""

import ipaddress
import re
import socket
import string
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias
from urllib.parse import quote, urlsplit

from pipeline.failure import RowError
from pipeline.source import OPT_OUTS, Download

Resolve: TypeAlias = Callable[[str, int], Sequence[tuple[str, int]]]
"""Host and port of a URL -> the addresses and ports it is reached at. Picklable; raises OSError for an unknown name."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")
_PUBLIC_6 = ipaddress.ip_network("2000::/3")
"""All that was ever handed out: no mapped, NAT64, unique local, link-local, site-local or multicast address."""

_SPECIAL = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
203.0.113.0/24 224.0.0.0/3
2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
"""
_PRIVATE = tuple(map(ipaddress.ip_network, _SPECIAL.split()))
"""IANA's special-purpose registries (RFC 6890 and after): Teredo is in 2001::/23, 6to4 is 2002::/16.

168.63.129.16 is where a machine in Azure asks about itself; other clouds keep to the registries."""


def public(address: str) -> bool:
    """Whether an IP address belongs to the open internet."""
    known = ipaddress.ip_address(address)
    if known.version == 6 and known not in _PUBLIC_6:
        return False
    return not any(known in network for network in _PRIVATE if network.version == known.version)


def system(host: str, port: int) -> list[tuple[str, int]]:
    """What this machine's resolver says, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(place[0]), port) for *_, place in found))


@dataclass(frozen=True)
class Guard:
    """The network policy of one source. `allow_hosts` holds "host:port" as URLs name it; those may be private.

    `timeout` is in seconds for one whole request with its redirects, waiting for a busy host aside. `ca_file` is
    trusted beside the usual authorities. `robots` are the wishes of sites that are honoured: words of X-Robots-Tag, and
    "robots.txt".
    """

    allow_hosts: frozenset[str] = frozenset()
    timeout: float = 10
    max_bytes: int = 20_000_000
    retries: int = 2
    user_agent: str = "winnow"
    per_host: int = 16
    robots: frozenset[str] = frozenset(OPT_OUTS)
    resolve: Resolve = system
    ca_file: Path | None = None

    @classmethod
    def of(cls, download: Download) -> Self:
        """The policy that a source file asks for."""
        return cls(
            frozenset(host.lower() for host in download.allow_hosts),
            download.timeout,
            download.max_bytes,
            download.retries,
            download.agent,
            download.per_host,
            frozenset(download.robots),
        )

    def targets(self, url: "Url", deadline: float) -> Sequence[tuple[str, int]]:
        """Where the URL may be connected to. The name is resolved once, and one private address spoils all."""
        found = _before(deadline, lambda: self.resolve(url.host, url.port))
        if not found:
            raise RowError("dns", f"{url.host} has no address")
        for address, _ in found:
            if not public(address) and url.place not in self.allow_hosts:
                raise RowError("blocked_address", f"{url.host} is at {address}, which is not public")
        return found


@dataclass(frozen=True)
class Url:
    """An http(s) URL in ASCII: `target` is path and query, `place` is host:port with the port always said."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def place(self) -> str:
        """As Guard.allow_hosts names it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def header(self) -> str:
        """The Host header."""
        return self.place.removesuffix(":443" if self.secure else ":80")

    @property
    def whole(self) -> str:
        """All of it, as text."""
        return self.at(self.target)

    def at(self, target: str) -> str:
        """Another address of the same host, as text."""
        return f"http{'s' * self.secure}://{self.place}{target}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Non-ASCII and blanks are escaped as browsers do. Raises RowError: invalid_url or blocked_scheme."""
        try:
            parts = urlsplit(text.strip())
            host = (parts.hostname or "").encode("idna").decode().rstrip(".")
            port = parts.port
        except ValueError as error:  # UnicodeError is one
            raise RowError(
                "invalid_url", "this is no http or https address"
            ) from error  # its words may quote a password
        if parts.scheme not in ("http", "https", ""):
            raise RowError("blocked_scheme", f"only http and https are fetched, not {parts.scheme[:20]}")
        if not parts.scheme or port == 0 or not _HOST.fullmatch(host):
            raise RowError("invalid_url", "this is no http or https address")
        safe = string.punctuation  # "%" among them: what is escaped stays so
        target = quote(parts.path or "/", safe) + ("?" + quote(parts.query, safe) if parts.query else "")
        secure = parts.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), target)


def left(deadline: float) -> float:
    """Seconds until a time of `time.monotonic`. Raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _before(deadline: float, lookup: Callable[[], Sequence[tuple[str, int]]]) -> Sequence[tuple[str, int]]:
    """A name lookup cannot be broken off: it is left behind in a thread that nobody waits for."""
    future: Future[Sequence[tuple[str, int]]] = Future()

    def look() -> None:
        try:
            future.set_result(lookup())
        except Exception as error:  # noqa: BLE001 - it goes to whoever waits
            future.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    return future.result(left(deadline))
