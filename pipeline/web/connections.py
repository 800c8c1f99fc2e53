"""Connections that stay open between requests, and the addresses of names, for the threads of one process.

A connection is opened to an address that the guard has accepted, and serves only URLs of its own scheme, host and port.
While it is open no name is resolved for it: what the guard has accepted cannot change behind it.
"""

import contextlib
import select
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from pipeline.web.guard import Guard
from pipeline.web.transport import Socket, connect, tls_context
from pipeline.web.url import Url

IDLE = 15.0
"""Seconds that an unused connection is kept. Many servers close theirs after 5 to 60."""

NAMES = 60.0
"""Seconds that the addresses of a name are kept. The system's resolver does not say how long they are valid."""

MOST_NAMES = 10_000

_Key = tuple[bool, str]
"""Whether it is under TLS, and host:port."""


class Connections:
    """At most `most` idle connections. Any thread may take and keep."""

    def __init__(self, guard: Guard, most: int = 256) -> None:
        self._guard, self._most = guard, most
        self._tls = tls_context(guard.ca_file)
        self._idle: OrderedDict[_Key, list[tuple[Socket, float]]] = OrderedDict()
        self._count = 0
        self._names: OrderedDict[tuple[str, int], tuple[Sequence[tuple[str, int]], float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, url: Url, deadline: float) -> Socket | None:
        """An idle connection for this URL, if there is one that the server has not closed."""
        while (found := self._pop(_key(url))) is not None:
            wire, since = found
            if time.monotonic() - since < IDLE and not _readable(wire):
                wire.deadline = deadline
                return wire
            wire.close()
        return None

    def open(self, url: Url, deadline: float) -> Socket:
        """A new connection. Raises RowError: dns or blocked_address; OSError."""
        return connect(self._addresses(url, deadline), deadline, (self._tls, url.host) if url.secure else None)

    def keep(self, url: Url, wire: Socket) -> None:
        """Keep a connection whose last response was read to its end. Closes the one that was longest without use."""
        key = _key(url)
        with self._lock:
            self._idle.setdefault(key, []).append((wire, time.monotonic()))
            self._idle.move_to_end(key)
            self._count += 1
            full = self._count > self._most
            oldest = next(iter(self._idle))
        if full and (found := self._pop(oldest, 0)) is not None:
            found[0].close()

    def _pop(self, key: _Key, place: int = -1) -> tuple[Socket, float] | None:
        with self._lock:
            idle = self._idle.get(key)
            if idle is None:
                return None
            found = idle.pop(place)
            self._count -= 1
            if not idle:
                del self._idle[key]
            return found

    def _addresses(self, url: Url, deadline: float) -> Sequence[tuple[str, int]]:
        """The addresses of the URL's host, all of which the guard accepts."""
        place = url.host, url.port
        with self._lock:
            found, until = self._names.get(place, ((), 0.0))
        if time.monotonic() > until:
            found = self._guard.addresses(url, deadline)
            with self._lock:
                self._names[place] = found, time.monotonic() + NAMES
                if len(self._names) > MOST_NAMES:
                    self._names.popitem(last=False)
        return found


def _key(url: Url) -> _Key:
    return url.secure, url.authority


def _readable(wire: Socket) -> bool:
    """Whether the server has sent anything since the last response: an end, or bytes that belong to no request."""
    with contextlib.suppress(OSError, ValueError):
        if isinstance(wire, ssl.SSLSocket) and wire.pending():
            return True
        poll = select.poll()
        poll.register(wire, select.POLLIN)
        return bool(poll.poll(0))
    return True
