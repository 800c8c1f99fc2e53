"""What several commands print. With --json, stdout has one object, and everything else goes to stderr."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flows.console.stdout import answers

if TYPE_CHECKING:
    from pipeline.sources.source import Source
    from pipeline.store.places import Place
    from pipeline.store.storage import Storage


def echo(line: str, to_stderr: bool) -> None:
    """Print a line."""
    typer.echo(line, file=sys.stderr if to_stderr else answers())


def print_json(as_json: bool, value: Mapping[str, Any]) -> None:
    """End a command: with --json, print this object."""
    if as_json:
        from flows.console.output import show_json

        sys.stderr.flush()
        show_json(value)


def print_manifest(described: "Source", root: "Place", published: Mapping[str, Any], to_stderr: bool) -> None:
    """Print where every row went, the funnel, remarks, and the manifest's id. `published` is what a flow returned."""
    from flows.console import counts, funnel
    from flows.console.output import show
    from pipeline.manifest import remarks
    from pipeline.manifest.manifest import Manifest
    from pipeline.store.storage import Storage

    manifest = Manifest.open(Storage(root / described.name), published["id"])
    show(counts.rows(described.name, manifest.counts), to_stderr)
    if manifest.recipe.reasons:
        echo("", to_stderr)
        show(funnel.funnel(manifest.recipe.name, manifest.counts.pool, manifest.funnel(manifest.recipe)), to_stderr)
    for line in remarks.of(manifest):
        echo(line, to_stderr)
    for key in published.get("repaired", ()):
        echo(f"{key} was damaged, and was written again", to_stderr)
    unchanged = "" if published["new"] else ", as before: nothing changed"
    echo(f"manifest {manifest.id}{unchanged}", to_stderr)
    if held := published.get("held"):
        echo(held, to_stderr)


def count_caught(described: "Source", storage: "Storage", file: Path | None, manifest: str | None) -> Mapping[str, Any]:
    """Check a manifest against labels: how many pairs of each label each filter dropped."""
    from flows.labels import labels
    from pipeline.manifest.manifest import Manifest
    from pipeline.review.caught import count
    from pipeline.review.sample import Labelled

    labelled = Labelled.read(labels(described, storage, file), described.calibration.good)
    return count(Manifest.open(storage, manifest), labelled)
