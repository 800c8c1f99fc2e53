"""Throttling by host: few requests at once, backoff after a refusal, and its robots.txt, read once."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.failure import RowError, is_transient
from pipeline.web.robots import Rules

FIRST_BACKOFF, MAX_BACKOFF = 1.0, 60.0
"""Seconds of backoff for a host that refuses and names no time: at first, and after many refusals in a row."""


class Host:
    """The state of one host while a shard is fetched: its free slots, its backoff and its rules."""

    def __init__(self, at_once: int) -> None:
        self._slots = threading.BoundedSemaphore(at_once)
        self._ready_at = self._pause = 0.0
        self._lock = threading.Lock()
        self._rules: Rules | RowError | None = None
        self._reading = threading.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Hold one of the host's slots; waits for a free one."""
        with self._slots:
            yield

    def record_refusal(self, seconds: float | None) -> None:
        """The host refused a request, and named a time in seconds or none.

        Without a time the backoff is `FIRST_BACKOFF`, then twice as long each time until the host serves again.
        Refusals of concurrent requests count as one.
        """
        with self._lock:
            if not seconds:
                if self.backoff:
                    return
                self._pause = seconds = min(2 * self._pause or FIRST_BACKOFF, MAX_BACKOFF)
            self._ready_at = max(self._ready_at, time.monotonic() + seconds)

    def record_success(self) -> None:
        """The host answered. During a backoff this is ignored: the request was sent before the refusal."""
        with self._lock:
            if not self.backoff:
                self._pause = 0.0

    @property
    def backoff(self) -> float:
        """Seconds until the next request is allowed; 0 if now."""
        return max(0.0, self._ready_at - time.monotonic())

    def rules(self, read: Callable[[], "Rules"]) -> "Rules":
        """The host's rules, read once while other threads wait. A cause that does not pass fails all of them."""
        with self._reading:
            try:
                self._rules = self._rules or read()
            except RowError as failure:
                if is_transient(failure.cause):
                    raise
                self._rules = failure
            if isinstance(self._rules, RowError):
                raise RowError(self._rules.cause, self._rules.error)
            return self._rules


class Hosts(defaultdict[str, Host]):
    """Every host, by its authority (host:port)."""

    def __init__(self, at_once: int) -> None:
        super().__init__(lambda: Host(at_once))
        self._lock = threading.Lock()

    def __getitem__(self, authority: str) -> Host:
        with self._lock:
            return super().__getitem__(authority)


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
