"""Progress of a task: a bar on stderr for a person at the terminal, an artifact for a person at Prefect's page."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from pipeline.progress import Progress

T = TypeVar("T")

EVERY = 2.0
"""Seconds between two updates of an artifact. Each update is a request."""


@contextmanager
def bars() -> Iterator[Progress]:
    """A function of (step, done, total) that moves the bar and the artifact of that step.

    Nothing is printed before its first call.
    """
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn())
    display = Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    steps: dict[str, Step] = {}

    def progress(step: str, done: int, total: int) -> None:
        display.start()
        if step not in steps:
            steps[step] = Step(display, step)
        steps[step].update(done, total)

    try:
        yield progress
    finally:
        if steps:
            display.stop()


class Step:
    """One bar and, inside a Prefect task, one progress artifact."""

    def __init__(self, display: Bars, name: str) -> None:
        self._bars, self._bar = display, display.add_task(name, total=None)
        self._updated = 0.0
        self._artifact: UUID | None = None
        if TaskRunContext.get():
            self._artifact = create_progress_artifact(progress=0.0, description=name)  # type: ignore[assignment]

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are done. A total of 0 means that it is unknown."""
        self._bars.update(self._bar, completed=done, total=total or None)
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
