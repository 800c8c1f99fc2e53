"""Reading what is published: SQL, the report, and the page of thresholds."""

import contextlib
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, ManifestId, Root, ShowUnsafe, SourceName
from flows.commands.printing import echo, print_json
from flows.console import stdout

commands = typer.Typer()


class Format(StrEnum):
    """The form of an answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


@commands.command(
    "sql", epilog='Example: `winnow sql "select kept, count(*), avg(clip_similarity) from rows group by kept"`'
)
def query(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; or @NAME, a query of --list; or -, to read standard input.")
    ] = None,
    source: Annotated[list[str] | None, typer.Option(help="The name of a source; repeatable.", metavar="NAME")] = None,
    form: Annotated[Format, typer.Option("--format", help="The form of the answer.")] = Format.table,
    out: Annotated[
        Path | None, typer.Option(help="Write the answer to this file. Parquet needs it.", metavar="FILE")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the named queries.")] = False,
    deadline: Annotated[float, typer.Option(help="Seconds after which the query is stopped.", min=0.1)] = 30,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Run one SELECT over what is published. It can write nothing, and read nothing outside the source.

    The views are rows, kept, dropped and failed of the newest manifest, manifests, trials, trained_on, and history: in
    which manifests each row was, and why it was dropped. A table shows the first rows; csv, json and parquet have all
    of them. --json means --format json.
    """
    from flows import sources
    from pipeline.query import sandbox
    from pipeline.query.named import QUERIES, resolve

    if listed:
        for name, each in QUERIES.items():
            echo(f"@{name}: {each.description}\n    {each.sql}", as_json)
        print_json(as_json, {name: asdict(each) for name, each in QUERIES.items()})
        return
    form = Format.json if as_json else form
    if query is None:
        raise typer.BadParameter("give a SELECT, @NAME, or - for standard input; --list shows the names")
    if form is Format.parquet and out is None:
        raise typer.BadParameter("--format parquet needs --out FILE")
    if form is Format.table and out is not None:
        raise typer.BadParameter("a table is for the terminal; with --out choose --format csv, json or parquet")
    text = sys.stdin.read() if query == "-" else resolve(query)
    answer = sandbox.run(text, sources.published(root, source or []), deadline=deadline)
    from flows.console import answers

    if out is not None:
        answers.write_file(answer, form, out)
        echo(f"{len(answer):,} rows in {out}", to_stderr=True)
    elif form is Format.table:
        from flows.console.output import show

        show(answers.table(answer), to_stderr=False)
    else:
        answers.write(answer, form, stdout.answers())


@commands.command("report", epilog="Example: `winnow report demo`")
def write_report(
    source: SourceName,
    show_unsafe: ShowUnsafe = False,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a page to look at: funnel, histograms, pairs, failures, the gain, and what the first CLIP cannot see."""
    from flows import sources
    from flows.labels import labelled_pairs
    from flows.progress import bars
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.shown_pictures import ShownPictures
    from pipeline.pages import report
    from pipeline.trials.trials import gain_of
    from training.studies import composition

    described, storage = sources.load(source, root)
    found = Manifest.open(storage, manifest)
    with bars() as progress:
        seen = composition.part(described, storage, progress)
    pairs, pictures = labelled_pairs(described, storage), ShownPictures.of(found, show_unsafe)
    with storage.making(report.REPORT) as path:
        report.write(storage, found, gain_of(storage, found.id), path, pairs, seen, pictures)
    path = storage.fetch(report.REPORT)
    echo(str(path), as_json)
    print_json(as_json, {"report": str(path), "manifest": found.id})


@commands.command("explore", epilog="Example: `winnow explore demo`")
def explore_pairs(
    source: SourceName,
    manifest: ManifestId = None,
    port: Annotated[int, typer.Option(help="The port on this machine. 0 takes a free one.", min=0, max=65535)] = 0,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    labeller: Annotated[
        str, typer.Option(help="Who labels. The labels of each labeller are kept apart.", metavar="NAME")
    ] = "explore",
    show_unsafe: ShowUnsafe = False,
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Serve a page, on this machine only, to move thresholds and see what they drop. Ctrl-C stops it.

    Counts and histograms follow while you drag. Compare recipes, look at pairs, label a sample with the keyboard for
    `winnow calibrate`, copy the filters as TOML, or publish them under a name of their own. The map shows stored
    embeddings on a plane: draw around points to make a filter against pictures like these.
    """
    from flows import sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.shown_pictures import ShownPictures
    from pipeline.pages.explore.app import listening
    from pipeline.pages.explore.explorer import Explorer, choices
    from pipeline.pages.explore.opening import open_privately
    from pipeline.pages.explore.rows import Rows

    described, storage = sources.load(source, root)
    found = Manifest.open(storage, manifest)
    echo(f"reading {found.counts.pool:,} downloaded pairs", to_stderr=True)

    with contextlib.suppress(KeyboardInterrupt), storage.scratch() as scratch:
        pictures, known = ShownPictures.of(found, show_unsafe), choices(found, described.own_recipe)
        explorer = Explorer(Rows(found, scratch), known, labeller, pictures, described.path.parent)
        with contextlib.closing(explorer.atlas), listening(explorer, port) as (address, serve, _):
            echo(address, to_stderr=False)
            echo("anyone with this address can use the page, so keep it to yourself; Ctrl-C stops it", to_stderr=True)
            if browse:
                open_privately(address, scratch)
            serve()
