"""What may be opened on the network: http and https, to public addresses, for a bounded time."""

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
"""Host and port of a URL -> the addresses and ports it is reached at. Picklable; raises OSError for an unknown name."""

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
