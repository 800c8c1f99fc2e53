"""The network policy of downloads: http and https, to public addresses, for a bounded time."""

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from pipeline.failure import RowError
from pipeline.settings.download import OPT_OUTS, Download
from pipeline.web.url import Url

Resolve: TypeAlias = Callable[[str, int], Sequence[tuple[str, int]]]
"""Host and port of a URL -> addresses and ports to connect to. Picklable; raises OSError for an unknown name."""

_PUBLIC_6 = ipaddress.ip_network("2000::/3")
"""All unicast addresses ever assigned: no mapped, NAT64, unique local, link-local, site-local or multicast address."""

_SPECIAL = """
0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24
203.0.113.0/24 224.0.0.0/3
2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
"""
_PRIVATE = tuple(map(ipaddress.ip_network, _SPECIAL.split()))
"""IANA's special-purpose registries (RFC 6890 and after): Teredo is in 2001::/23, 6to4 is 2002::/16.

168.63.129.16 is Azure's metadata service; other clouds use addresses of the registries."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet."""
    known = ipaddress.ip_address(address)
    if known.version == 6 and known not in _PUBLIC_6:
        return False
    return not any(known in network for network in _PRIVATE if network.version == known.version)


def system_resolver(host: str, port: int) -> list[tuple[str, int]]:
    """The addresses that this machine's resolver returns, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((str(place[0]), port) for *_, place in found))


@dataclass(frozen=True)
class Guard:
    """The network policy of one source. `allow_hosts` holds "host:port" as URLs name it; those may be private.

    `timeout`: seconds for one whole request with its redirects, without the wait for a turn. `ca_file`: certificate
    authorities that are trusted besides the usual ones. `robots`: the opt-outs that are honoured, which are words of
    X-Robots-Tag and "robots.txt".
    """

    allow_hosts: frozenset[str] = frozenset()
    timeout: float = 10
    max_bytes: int = 20_000_000
    retries: int = 2
    user_agent: str = "winnow"
    per_host: int = 16
    robots: frozenset[str] = frozenset(OPT_OUTS)
    resolve: Resolve = system_resolver
    ca_file: Path | None = None

    @classmethod
    def of(cls, download: Download) -> Self:
        """The policy that a source file sets."""
        return cls(
            frozenset(host.lower() for host in download.allow_hosts),
            download.timeout,
            download.max_bytes,
            download.retries,
            download.agent,
            download.per_host,
            frozenset(download.robots),
        )

    def addresses(self, url: "Url", deadline: float) -> Sequence[tuple[str, int]]:
        """Addresses and ports for a URL. The name is resolved once; one private address fails the whole URL.

        Raises RowError: dns or blocked_address; TimeoutError after the deadline.
        """
        found = _look_up(deadline, lambda: self.resolve(url.host, url.port))
        if not found:
            raise RowError("dns", f"{url.host} has no address")
        for address, _ in found:
            if not is_public(address) and url.authority not in self.allow_hosts:
                raise RowError("blocked_address", f"{url.host} is at {address}, which is not public")
        return found


def seconds_left(deadline: float) -> float:
    """Seconds until a time of `time.monotonic`. Raises TimeoutError if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _look_up(deadline: float, lookup: Callable[[], Sequence[tuple[str, int]]]) -> Sequence[tuple[str, int]]:
    """The result of a name lookup. A lookup cannot be cancelled: at the deadline its thread is abandoned."""
    future: Future[Sequence[tuple[str, int]]] = Future()

    def look() -> None:
        try:
            future.set_result(lookup())
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            future.set_exception(error)

    threading.Thread(target=look, daemon=True).start()
    return future.result(seconds_left(deadline))
