"""How far a task is: a bar on stderr for who watches the terminal, an artifact for who watches Prefect's page."""

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
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.progress import Progress as Told

T = TypeVar("T")

EVERY = 2.0
"""Seconds between two updates of an artifact: each is a request."""


@contextmanager
def shown() -> Iterator[Told]:
    """A function to be told (step, done, total), which moves the bar of that step and its artifact.

    Nothing is printed before it is told something.
    """
    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn())
    bars = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    steps: dict[str, Step] = {}

    def tell(step: str, done: int, total: int) -> None:
        bars.start()
        if step not in steps:
            steps[step] = Step(bars, step)
        steps[step].tell(done, total)

    try:
        yield tell
    finally:
        if steps:
            bars.stop()


class Step:
    """One bar and, inside a Prefect task, one progress artifact."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars, self._bar = bars, bars.add_task(name, total=None)
        self._told = 0.0
        self._artifact: UUID | None = None
        if TaskRunContext.get():
            self._artifact = create_progress_artifact(progress=0.0, description=name)  # type: ignore[assignment]

    def tell(self, done: int, total: int) -> None:
        """`done` of `total` are done; a total of 0 means that nobody knows."""
        self._bars.update(self._bar, completed=done, total=total or None)
        if self._artifact and total and (done == total or time.monotonic() - self._told > EVERY):
            self._told = time.monotonic()
            update_progress_artifact(self._artifact, progress=100.0 * done / total)


def warn(line: str) -> None:
    """A line in the run's log, or on stderr where Prefect is kept quiet. Only inside a flow."""
    log = get_run_logger()
    if log.isEnabledFor(logging.WARNING):
        log.warning(line)
    else:
        print(line, file=sys.stderr, flush=True)


def tracked(step: str, things: Iterable[T], of: Sized) -> Iterator[T]:
    """The things, with a bar that moves as each has come; there will be as many as `of` has."""
    with shown() as tell:
        tell(step, 0, len(of))
        for done, thing in enumerate(things, start=1):
            tell(step, done, len(of))
            yield thing
