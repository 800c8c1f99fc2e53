"""Asking published rows, and looking at them."""

import contextlib
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Chosen, Debug, Named, Root, finish, say

commands = typer.Typer()


class Format(StrEnum):
    """How the answer to a query is given."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@commands.command(epilog='Example: `winnow sql "select kept, count(*), avg(clip_similarity) from rows group by kept"`')
def sql(
    query: Annotated[
        str | None,
        typer.Argument(help="One SELECT; or @NAME, a query of --list; or -, to read it from standard input."),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="A source's name; may be given several times.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to give the answer.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write the answer there; Parquet needs it.", metavar="FILE")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the queries that have a name.")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds after which the query is stopped.", min=0.1)] = 30,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Ask the published rows anything, in SQL. It can write nothing, and read nothing outside the source.

    There are rows, kept, dropped, failed of the newest manifest; manifests, trials; and history: which row was in which
    manifest, and why it was dropped there. A table shows the first rows; csv, json and parquet hold all of them. --json
    is --format json.
    """
    from flows import sources
    from flows.console import answers, tables
    from pipeline.query import named
    from pipeline.query import sandbox as typed

    if listed:
        for name, each in named.QUERIES.items():
            say(f"@{name}: {each.what}\n    {each.sql}", as_json)
        finish(as_json, {name: asdict(each) for name, each in named.QUERIES.items()})
        return
    form = Format.json if as_json else form
    if query is None:
        raise typer.BadParameter("give a SELECT, @NAME, or - for standard input; --list shows the names")
    if form is Format.parquet and out is None:
        raise typer.BadParameter("--format parquet needs --out FILE")
    if form is Format.table and out is not None:
        raise typer.BadParameter("a table is for the terminal; with --out choose --format csv, json or parquet")
    text = sys.stdin.read() if query == "-" else named.named(query)
    answer = typed.run(text, sources.published(root, source or []), deadline=deadline)
    if out is not None:
        answers.put(answer, form, out)
        say(f"{len(answer):,} rows in {out}", to_stderr=True)
    elif form is Format.table:
        tables.show(tables.answer(answer), to_stderr=False)
    else:
        answers.write(answer, form, sys.stdout)


@commands.command(epilog="Example: `winnow report demo`")
def report(
    source: Named, manifest: Chosen = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Write a page to look at: funnel, histograms, pairs kept and dropped, failures by cause, the gain if measured."""
    from flows import sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.pages import report as page
    from pipeline.trials.trials import gain_of

    _, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    path = storage.root / "report.html"
    page.write(storage, found, gain_of(storage, found.id), path)
    say(str(path), as_json)
    finish(as_json, {"report": str(path), "manifest": found.id})


@commands.command(epilog="Example: `winnow explore demo`")
def explore(
    source: Named,
    manifest: Chosen = None,
    port: Annotated[int, typer.Option(help="On this machine; a free one if 0.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Serve a page, to this machine alone, to move thresholds on and look at what they drop. Ctrl-C ends it.

    Counts and histograms follow while you drag. Compare recipes, look at pairs, label a sample with the keyboard for
    `winnow calibrate`, copy the filters as TOML, or publish them under a name of their own.
    """
    from flows import sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.pages.explore import app as page
    from pipeline.pages.explore.questions import Explorer, offered
    from pipeline.pages.explore.rows import Rows

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    say(f"reading {found.counts.pool:,} downloaded pairs", to_stderr=True)

    with (
        contextlib.suppress(KeyboardInterrupt),
        storage.scratch() as scratch,
        page.listening(Explorer(Rows(found, scratch), offered(found, described.own_recipe)), port) as (
            address,
            answer,
            _,
        ),
    ):
        say(address, to_stderr=False)
        say("whoever has this address has the page: keep it to yourself; Ctrl-C ends it", to_stderr=True)
        if browse:
            import webbrowser

            webbrowser.open(address)
        answer()
