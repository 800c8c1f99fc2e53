"""Throttling by host, for all processes of a run: few requests at once, and backoff after a refusal.

`serve` is the one place that knows every host. It runs in a process of its own and answers over connections without an
address (`pipeline.process.unnamed`), or for several machines over TCP (`pipeline.web.throttle_network`). `Hosts` is the
side of those that send requests.

A message is a line. `take COUNT HOST` asks for one of COUNT slots. When one is free the answer is the backoff in
seconds, and whether refusals are on record. `give HOST` returns the slot. `refused SECONDS HOST` and `served HOST`
record what a host did. Whatever a connection holds is free again when it ends, however its process died.
"""

import contextlib
import functools
import selectors
import socket
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn, Protocol

from pipeline.process import unnamed

FIRST_BACKOFF, MAX_BACKOFF = 1.0, 60.0
"""Seconds of backoff for a host that refuses and names no time: at first, and after many refusals in a row."""


_LONGEST = 1 << 14
"""Bytes of a message, at most."""


class Backoff:
    """How long one host rests."""

    def __init__(self) -> None:
        self._ready_at = self._pause = 0.0

    def record_refusal(self, seconds: float) -> None:
        """The host refused a request, and named a time in seconds, or none, which is 0.

        Without a time the backoff is `FIRST_BACKOFF`, then twice as long each time until the host serves again.
        Refusals of concurrent requests count as one.
        """
        if not seconds:
            if self.seconds:
                return
            self._pause = seconds = min(2 * self._pause or FIRST_BACKOFF, MAX_BACKOFF)
        self._ready_at = max(self._ready_at, time.monotonic() + seconds)

    def record_success(self) -> None:
        """The host answered. During a backoff this is ignored: the request was sent before the refusal."""
        if not self.seconds:
            self._pause = 0.0

    @property
    def seconds(self) -> float:
        """Until the next request is allowed; 0 if now."""
        return max(0.0, self._ready_at - time.monotonic())

    @property
    def refused(self) -> bool:
        """Whether it has refused since it last served."""
        return self._pause > 0


class _Host:
    """The state of one host: how many of its slots are taken, who waits, and its backoff."""

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: deque[tuple[_Client, int]] = deque()
        self.backoff = Backoff()

    def admit(self, name: str) -> None:
        """Give free slots to those who wait, in their order."""
        while self.waiting and self.taken < self.waiting[0][1]:
            client, _ = self.waiting.popleft()
            self.taken += 1
            client.holds[name] += 1
            client.waits = None
            client.answer(self.backoff)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to know about it."""
        return not (self.taken or self.waiting or self.backoff.refused or self.backoff.seconds)


class _Client:
    """One connection: what it holds and waits for, and the part of a line that has come."""

    def __init__(self, wire: socket.socket, token: str | None) -> None:
        """`token` is what it must send first, if anything."""
        self.wire, self.holds, self.text = wire, Counter[str](), b""
        self.waits: str | None = None
        self.token = token

    def answer(self, backoff: Backoff) -> None:
        with contextlib.suppress(OSError):  # it has ended, and its connection is about to say so
            self.wire.sendall(f"{backoff.seconds:.3f} {backoff.refused:d}\n".encode())


class Throttle:
    """Every host, by its authority (host:port) or any other name."""

    def __init__(self) -> None:
        self._hosts: defaultdict[str, _Host] = defaultdict(_Host)

    def handle(self, client: _Client, line: str) -> None:
        """One message."""
        verb, _, rest = line.partition(" ")
        value, _, name = rest.partition(" ") if verb in ("take", "refused") else ("", "", rest)
        host = self._hosts[name]
        if verb == "take":
            host.waiting.append((client, int(value)))
            client.waits = name
            host.admit(name)
        elif verb == "give":
            client.holds -= Counter([name])
            self._free(name, 1)
        elif verb == "refused":
            host.backoff.record_refusal(float(value))
        elif verb == "served":
            host.backoff.record_success()

    def forget(self, client: _Client) -> None:
        """The client has ended: free what it holds."""
        if client.waits is not None:
            host = self._hosts[client.waits]
            host.waiting = deque(each for each in host.waiting if each[0] is not client)
        for name, count in client.holds.items():
            self._free(name, count)

    def _free(self, name: str, count: int) -> None:
        host = self._hosts[name]
        host.taken -= count
        host.admit(name)
        if host.idle:
            del self._hosts[name]  # a list of millions of URLs has as many hosts as memory would bear


class Acceptor(Protocol):
    """Where clients connect."""

    def accept(self) -> tuple[bytes, socket.socket]:
        """Wait for a connection. Returns a first message, which is ignored, and the connection."""
        ...

    def fileno(self) -> int:
        """For `select`."""
        ...


class Caller(Protocol):
    """What leads to a throttle."""

    def connect(self) -> socket.socket:
        """A new connection. Raises OSError if the throttle is gone."""
        ...


def serve(acceptor: Acceptor, token: str | None = None) -> NoReturn:
    """Answer whoever connects, until the process or the program ends. A client must send the token first, if any."""
    throttle, selector = Throttle(), selectors.DefaultSelector()
    selector.register(acceptor, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            client: _Client | None = key.data
            if client is None:
                _, wire = acceptor.accept()
                selector.register(wire, selectors.EVENT_READ, _Client(wire, token))
                continue
            try:
                data = client.wire.recv(1 << 12)
            except OSError:
                data = b""
            *lines, client.text = (client.text + data).split(b"\n")
            if client.token is not None and lines:
                data, client.token = (data, None) if lines.pop(0).decode() == client.token else (b"", client.token)
            for line in lines if client.token is None else ():
                throttle.handle(client, line.decode())
            if not data or len(client.text) > _LONGEST:
                selector.unregister(client.wire)
                client.wire.close()
                throttle.forget(client)


def _line(wire: socket.socket) -> str:
    text = b""
    while not text.endswith(b"\n"):
        data = wire.recv(64)
        if not data:
            raise ThrottleError
        text += data
    return text.decode()


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """An error of the connection to the throttle is none of a URL."""
    try:
        yield
    except OSError as error:
        raise ThrottleError from error


class ThrottleError(RuntimeError):
    """The process that knows the hosts is gone. No URL is the cause."""

    def __init__(self) -> None:
        super().__init__("the process that limits requests to a host ended")


@functools.cache
def _in_this_process() -> Caller:
    calling, accepting = unnamed.pair()
    threading.Thread(target=serve, args=(accepting,), daemon=True).start()
    return calling


class Hosts:
    """The side of those that send requests, in any thread: each has a connection of its own."""

    def __init__(self, throttle: Caller | None = None) -> None:
        """`throttle` leads to the process that serves. Without one the hosts are known to this process only."""
        self._throttle, self._own = throttle or _in_this_process(), threading.local()
        self._refused: set[str] = set()

    @contextlib.contextmanager
    def slot(self, name: str, count: int) -> Iterator[float]:
        """Hold one of the `count` slots of a host; waits for a free one. Gives its backoff in seconds."""
        with _reached():
            wire = self._wire
            wire.sendall(f"take {count} {name}\n".encode())
            seconds, refused = _line(wire).split()
        if int(refused):
            self._refused.add(name)
        try:
            yield float(seconds)
        finally:
            with _reached():
                wire.sendall(f"give {name}\n".encode())

    def record_refusal(self, name: str, seconds: float | None) -> None:
        """The host refused a request, and named a time in seconds or none."""
        self._refused.add(name)
        with _reached():
            self._wire.sendall(f"refused {seconds or 0} {name}\n".encode())

    def record_success(self, name: str) -> None:
        """The host answered."""
        if name in self._refused:
            self._refused.discard(name)
            with _reached():
                self._wire.sendall(f"served {name}\n".encode())

    @property
    def _wire(self) -> socket.socket:
        if not hasattr(self._own, "wire"):
            self._own.wire = self._throttle.connect()
        wire: socket.socket = self._own.wire
        return wire


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number or a date. None for anything else."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
