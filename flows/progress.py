"""Progress of a task: a bar on stderr for a person at the terminal, an artifact for a person at Prefect's page."""

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.progress import Progress

T = TypeVar("T")

EVERY = 2.0
"""Seconds between two updates of an artifact. Each update is a request."""


class Display:
    """The bars of this process. Steps that run at the same time share it: a terminal has room for one display."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: Bars | None = None
        self._rows: dict[str, Row] = {}
        self._users = 0

    @contextmanager
    def used(self, totals: Mapping[str, int] | None = None) -> Iterator[None]:
        """Keep the bars on the screen meanwhile. `totals` are those of steps that are done in parts."""
        with self._lock:
            self._users += 1
            for name, total in (totals or {}).items():
                self._rows[name] = Row(total)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._rows.clear()
                    if self._bars is not None:
                        self._bars.stop()
                        self._bars = None

    def begin(self, name: str) -> None:
        """A step begins. If it is not done in parts, its bar begins anew."""
        with self._lock:
            row = self._rows.get(name)
            if row and row.total is None and row.bar is not None and self._bars is not None:
                self._bars.reset(row.bar)

    def move(self, name: str, done: int, total: int) -> None:
        """So many more of a step are done. `total` is that of the step if it is not done in parts; 0 if unknown."""
        with self._lock:
            if self._bars is None:
                columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn())
                self._bars = Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
                self._bars.start()
            row = self._rows.setdefault(name, Row(None))
            if row.bar is None:
                row.bar = self._bars.add_task(name, total=row.total)
            self._bars.update(row.bar, advance=done, total=row.total or total or None)


@dataclass
class Row:
    """A step on the screen: its total over all parts, if that is known, and its bar once it has begun."""

    total: int | None
    bar: TaskID | None = None


DISPLAY = Display()


@contextmanager
def bars() -> Iterator[Progress]:
    """A function of (step, done, total) that moves the bar and the artifact of that step.

    Nothing is printed before its first call.
    """
    steps: dict[str, Step] = {}

    def progress(step: str, done: int, total: int) -> None:
        if step not in steps:
            steps[step] = Step(step)
        steps[step].update(done, total)

    with DISPLAY.used():
        yield progress


class Step:
    """One bar and, inside a Prefect task, one progress artifact."""

    def __init__(self, name: str) -> None:
        self._name, self._done = name, 0
        DISPLAY.begin(name)
        self._updated = 0.0
        self._artifact: UUID | None = None
        if TaskRunContext.get():
            self._artifact = create_progress_artifact(progress=0.0, description=name)  # type: ignore[assignment]

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are done. A total of 0 means that it is unknown."""
        DISPLAY.move(self._name, done - self._done, total)
        self._done = done
        if self._artifact and total and (done == total or time.monotonic() - self._updated > EVERY):
            self._updated = time.monotonic()
            update_progress_artifact(self._artifact, progress=100.0 * done / total)


def track(step: str, items: Iterable[T], of: Sized) -> Iterator[T]:
    """The items, with a bar that moves after each one. There are as many items as `of` has."""
    with bars() as progress:
        progress(step, 0, len(of))
        for done, item in enumerate(items, start=1):
            progress(step, done, len(of))
            yield item


def warn(line: str) -> None:
    """A line in the run's log, or on stderr if Prefect's log is switched off. Only inside a flow."""
    log = get_run_logger()
    if log.isEnabledFor(logging.WARNING):
        log.warning(line)
    else:
        print(line, file=sys.stderr, flush=True)
