"""How far a source is."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, SourceName
from flows.commands.printing import print_json
from flows.console.stdout import answers

if TYPE_CHECKING:
    from pipeline.status.progress import Status
    from pipeline.status.watch import Watch
    from pipeline.store.places import Place
    from pipeline.store.storage import Storage

commands = typer.Typer()

EVERY = 2.0
"""Seconds between two looks of --live."""


@commands.command("status", epilog="Example: `winnow status demo --live`")
def show_status(
    source: SourceName,
    live: Annotated[
        bool, typer.Option("--live", "--watch", help="Look again every 2 seconds, until the run ends. Ctrl-C stops it.")
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(
            help="Write a text file for Prometheus's node_exporter. Its name must end in .prom.", metavar="FILE"
        ),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show how far a source is: shards done by stage, rate, time left, failures, quarantined shards, GPUs.

    It reads what is stored, so it works beside a running `winnow curate`, after a crash, from another machine, and
    without a Prefect server. It changes nothing. Objects that a finished run has lost are named. With --live before a
    run has begun, it waits for one.
    """
    from flows.console import status as console
    from flows.console.output import show
    from pipeline.status.watch import Watch

    if metrics and metrics.suffix != ".prom":
        raise typer.BadParameter("node_exporter reads files whose name ends in .prom only", param_hint="--metrics")
    watch = Watch(_storage(source, root))
    found = watch.settled()
    if live:
        found = _follow(watch, found, metrics, as_json)
    elif metrics:
        _write(found, metrics)
    if not live or not _is_terminal(as_json):
        show(console.page(found), as_json)
    print_json(as_json, asdict(found))


def _follow(watch: "Watch", found: "Status", metrics: Path | None, to_stderr: bool) -> "Status":
    """Look until a run that was seen has ended. On a terminal, draw each look in the place of the one before."""
    seen = False
    try:
        with _drawing(to_stderr) as draw:
            while True:
                draw(found)
                if metrics:
                    _write(found, metrics)
                if seen and not found.running:
                    return found
                seen = seen or found.running
                time.sleep(EVERY)
                found = watch.look()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _drawing(to_stderr: bool) -> Iterator[Callable[["Status"], None]]:
    """A function that draws a status on the terminal; elsewhere it draws nothing."""
    if not _is_terminal(to_stderr):
        yield lambda status: None
        return
    from rich.console import Console
    from rich.live import Live

    from flows.console import status as console

    with Live(console=Console(file=_stream(to_stderr)), auto_refresh=False, vertical_overflow="visible") as live:
        yield lambda status: live.update(console.page(status), refresh=True)


def _is_terminal(to_stderr: bool) -> bool:
    return _stream(to_stderr).isatty()


def _stream(to_stderr: bool) -> TextIO:
    return sys.stderr if to_stderr else answers()


def _write(status: "Status", path: Path) -> None:
    from flows.console import metrics

    metrics.write(status, path)


def _storage(source: str, root: "Place") -> "Storage":
    """The store of a name under the root, also where its source file is not; else that of a source file."""
    from pipeline.status.record import KEY
    from pipeline.store.storage import Storage

    if re.fullmatch(r"[A-Za-z0-9_-]+", source):
        storage = Storage(root / source)
        if storage.done(KEY) or storage.keys("log"):
            return storage
    from pipeline.sources import loading

    return Storage(root / loading.load(source).name)
