"""How politely a host is asked: few requests at once, none while it rests, none that its robots.txt forbids."""

import contextlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote

from pipeline.failure import RowError, passing

FIRST_REST, LONGEST_REST = 1.0, 60.0
"""Seconds that a host rests which had too much and named no time: the first time, and after many times in a row."""

MOST_RULES = 500_000
"""Bytes of a robots.txt that are read: RFC 9309's least."""


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


class Rules:
    """The rules of a robots.txt for one robot, by RFC 9309: those of its own groups, or else those for all robots.

    The longest pattern that fits decides; `*` stands for anything and `$` for the end. The standard library's parser
    knows neither, and takes the first rule that fits.
    """

    def __init__(self, text: str, robot: str) -> None:
        groups: defaultdict[str, list[tuple[str, bool]]] = defaultdict(list)
        robots: list[str] = []
        begun = False
        for line in text.splitlines():
            name, _, value = (part.strip() for part in line.partition("#")[0].partition(":"))
            if name.lower() == "user-agent":
                robots = [*([] if begun else robots), value.lower()]
                begun = False
                groups[value.lower()]  # a group without a rule allows everything
            elif name.lower() in ("allow", "disallow"):
                begun = True
                for each in robots:
                    groups[each].append((value, name.lower() == "allow"))
        own = groups[robot.lower()] if robot.lower() in groups else groups["*"]
        self._rules = [(value, allow) for value, allow in own if value]

    def allow(self, target: str) -> bool:
        """Whether path and query may be fetched."""
        plain = unquote(target)
        return max(((len(value), allow) for value, allow in self._rules if _fits(value, plain)), default=(0, True))[1]


def _fits(pattern: str, target: str) -> bool:
    """Takes time in proportion to both: a stranger writes the patterns, and regular expressions can be made slow."""
    first, *others = (unquote(part) for part in pattern.removesuffix("$").split("*"))
    if not target.startswith(first):
        return False
    at = len(first)
    for part in others:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if not pattern.endswith("$"):
        return True
    return len(target) == at or (bool(others) and target.endswith(others[-1]))


def robot(user_agent: str) -> str:
    """The name by which sites address this robot: the first word of its user agent, up to a slash."""
    return re.split(r"[/\s;]", user_agent, maxsplit=1)[0]
