"""Progress of a step: a bar on stderr for a person at the terminal, an artifact for a person at Prefect's page."""

import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from prefect import get_run_logger
from prefect.context import FlowRunContext, TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from flows import artifacts
from pipeline.progress import Progress

T = TypeVar("T")


class Display:
    """The bars of this process. Steps that run at the same time share it: a terminal has room for one display."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bars: Bars | None = None
        self._rows: dict[str, Row] = {}
        self._users = 0

    @contextmanager
    def used(self, totals: Mapping[str, int] | None = None, source: str | None = None) -> Iterator[None]:
        """Keep the bars on the screen meanwhile. `totals` are those of steps of a source that are done in parts."""
        with self._lock:
            self._users += 1
            for name, total in (totals or {}).items():
                self._rows[name] = Row(total, artifact=_artifact(source, name))
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

    def has_parts(self, name: str) -> bool:
        """Whether the step is done in parts, which share one artifact."""
        row = self._rows.get(name)
        return row is not None and row.total is not None

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
            row.done += done
        if row.artifact:  # a request: not under the lock
            row.artifact.update(row.done, row.total or 0)


@dataclass
class Row:
    """A step: its total over all parts, if it has any, with their artifact; and its bar once it has begun."""

    total: int | None
    bar: TaskID | None = None
    artifact: artifacts.Progress | None = None
    done: int = 0


DISPLAY = Display()


@contextmanager
def bars(source: str | None = None) -> Iterator[Progress]:
    """A function of (step, done, total) that moves the bar of that step, and in a Prefect task its artifact.

    Nothing is printed before its first call. Without the name of a `source` there is no artifact.
    """
    steps: dict[str, Step] = {}

    def progress(step: str, done: int, total: int) -> None:
        if step not in steps:
            steps[step] = Step(step, source)
        steps[step].update(done, total)

    with DISPLAY.used():
        yield progress


class Step:
    """One bar and, inside a Prefect task, one progress artifact."""

    def __init__(self, name: str, source: str | None) -> None:
        self._name, self._done = name, 0
        DISPLAY.begin(name)
        self._artifact = None if DISPLAY.has_parts(name) else _artifact(source, name)

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are done. A total of 0 means that it is unknown."""
        DISPLAY.move(self._name, done - self._done, total)
        self._done = done
        if self._artifact:
            self._artifact.update(done, total)


def track(step: str, items: Iterable[T], of: Sized) -> Iterator[T]:
    """The items, with a bar that moves after each one. There are as many items as `of` has."""
    with bars() as progress:
        progress(step, 0, len(of))
        for done, item in enumerate(items, start=1):
            progress(step, done, len(of))
            yield item


def _artifact(source: str | None, step: str) -> artifacts.Progress | None:
    return artifacts.Progress(source, step) if source and (TaskRunContext.get() or FlowRunContext.get()) else None


def say(line: str) -> None:
    """A line in the run's log. Only inside a flow."""
    get_run_logger().info(line)


def warn(line: str) -> None:
    """A line in the run's log, and on stderr unless the log is printed there. Only inside a flow."""
    log = get_run_logger()
    log.warning(line)
    logger: logging.Logger = log.logger if isinstance(log, logging.LoggerAdapter) else log
    if not (logger.propagate and log.isEnabledFor(logging.WARNING)):
        print(line, file=sys.stderr, flush=True)
