"""How politely a host is asked: few requests at once, none while it rests, none that its robots.txt forbids."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline.failure import RowError, passing
from pipeline.web.robots import Rules

FIRST_REST, LONGEST_REST = 1.0, 60.0
"""Seconds that a host rests which had too much and named no time: the first time, and after many times in a row."""


class Host:
    """What is known of one host while a shard is fetched: how busy it is, until when it wants rest, and its rules."""

    def __init__(self, at_once: int) -> None:
        self._slots = threading.BoundedSemaphore(at_once)
        self._free_at = self._pause = 0.0
        self._telling = threading.Lock()
        self._rules: Rules | RowError | None = None
        self._reading = threading.Lock()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Be one of the few who ask at the same time."""
        with self._slots:
            yield

    def refused(self, seconds: float | None) -> None:
        """It had too much, and asked to be left alone for so long.

        Where it did not say, it rests for `FIRST_REST`, then twice as long each time until it serves again. Refusals of
        requests that were under way together are one.
        """
        with self._telling:
            if not seconds:
                if self.resting:
                    return
                self._pause = seconds = min(2 * self._pause or FIRST_REST, LONGEST_REST)
            self._free_at = max(self._free_at, time.monotonic() + seconds)

    def served(self) -> None:
        """It answered. What was under way when it refused says nothing about what it bears."""
        with self._telling:
            if not self.resting:
                self._pause = 0.0

    @property
    def resting(self) -> float:
        """Seconds until it may be asked again; 0 if now."""
        return max(0.0, self._free_at - time.monotonic())

    def rules(self, read: Callable[[], "Rules"]) -> "Rules":
        """What its robots.txt says: read once, while the others wait. Where that fails for good, all of them fail."""
        with self._reading:
            try:
                self._rules = self._rules or read()
            except RowError as failure:
                if passing(failure.cause):
                    raise
                self._rules = failure
            if isinstance(self._rules, RowError):
                raise RowError(self._rules.cause, self._rules.error)
            return self._rules


class Hosts(defaultdict[str, Host]):
    """Every host by its place, host:port."""

    def __init__(self, at_once: int) -> None:
        super().__init__(lambda: Host(at_once))
        self._lock = threading.Lock()

    def __getitem__(self, place: str) -> Host:
        with self._lock:
            return super().__getitem__(place)


def asked_for(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After header means: a number of them, or a date. None for anything else."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
