"""What commands share: their options, and how they say what they did."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.sources.source import Source
    from pipeline.store.storage import Storage


def _remember(context: typer.Context, debug: bool) -> bool:
    context.find_root().obj = debug
    return debug


Named = Annotated[str, typer.Argument(help="A source file, or its name in data_manifests/.", metavar="SOURCE")]
Root = Annotated[Path, typer.Option(help="Where results live, a folder for each source.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and all else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.", callback=_remember)]
Chosen = Annotated[
    str | None, typer.Option("--manifest", help="A manifest's id or its beginning; the newest if unset.")
]
Recipes = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="A named recipe; may be given several times. The source file's own if unset."),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="A list with the columns url, caption and label; the source's if unset.", metavar="FILE"),
]

DATA = Path("data")


def tell_manifest(described: "Source", root: Path, published: Mapping[str, Any], to_stderr: bool) -> None:
    """Print what a manifest holds, and its funnel."""
    from flows.console import tables
    from pipeline.filtering import distinct
    from pipeline.manifest import placeholders
    from pipeline.manifest.manifest import Manifest
    from pipeline.store.storage import Storage

    found = Manifest.open(Storage(root / described.name), published["id"])
    tables.show(tables.counts(described.name, found.counts), to_stderr)
    if found.recipe.filters:
        funnel = found.funnel(found.recipe)
        tables.show(tables.funnel(found.recipe.name, found.counts.pool, funnel), to_stderr)
    for line in (*distinct.remarks(found.card.get("neighbours", {})), *placeholders.remarks(found.card)):
        say(line, to_stderr)
    say(f"manifest {found.id}{'' if published['new'] else ', as before: nothing changed'}", to_stderr)
    if held := published.get("held"):
        say(held, to_stderr)


UNHEARD = "no Prefect server answers, so that no training follows by itself: `winnow train {}`"


def announced(described: "Source", root: Path, manifest: str, debug: bool) -> tuple[str | None, bool]:
    """Tell the Prefect server that stands, if one does, of a new manifest, so that retraining follows.

    Gives why it must not follow, if so, and whether the server was told.
    """
    from flows import server

    if not server.found(debug):
        return None, False
    from flows.curate import follow

    held = follow(described, root, manifest)
    return held, held is None


def tell_gain(gain: Mapping[str, Any], to_stderr: bool) -> None:
    """Print what a manifest was worth."""
    from flows.console import gain as shown
    from flows.console import tables

    tables.show(shown.table(gain), to_stderr)


def tell_caught(
    described: "Source", storage: "Storage", labels: Path | None, manifest: str | None, to_stderr: bool
) -> Mapping[str, Any]:
    """Check a manifest against labels, print what it caught, and give that."""
    from flows import sources
    from flows.console import labels as shown
    from flows.console import tables
    from pipeline.manifest.manifest import Manifest
    from pipeline.review import caught, sample

    path = sources.labels(described, storage, labels)
    known = sample.Labelled.read(path, described.calibration.good)
    found = caught.count(Manifest.open(storage, manifest), known)
    tables.show(shown.caught(found), to_stderr)
    return found


def say(line: str, to_stderr: bool) -> None:
    """Print a line."""
    typer.echo(line, err=to_stderr)


def finish(as_json: bool, value: Mapping[str, Any]) -> None:
    """End a command: with --json the only thing on stdout is this value."""
    if as_json:
        from flows.console import tables

        sys.stderr.flush()
        tables.as_json(value)
