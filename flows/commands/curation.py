"""Publishing a source's manifest, and keeping it up to date."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import DATA, Address, AsJson, Debug, EngineOption, Root, SourceName
from flows.commands.printing import echo, print_json, print_manifest
from pipeline.errors import WinnowError

if TYPE_CHECKING:
    from pipeline.sources.source import Source
    from pipeline.store.places import Place
    from pipeline.store.storage import Storage
    from pipeline.takedown.request import Request
    from pipeline.takedown.result import Takedown

commands = typer.Typer()

NOT_ANNOUNCED = "no Prefect server answers, so no training follows automatically: run `winnow train {}`"


@commands.command("curate", epilog="Example: `winnow curate data_manifests/cc3m.toml`")
def curate_source(
    source: SourceName,
    root: Root = DATA,
    engine: EngineOption = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Bring a source's manifest up to date: fetch and score new pairs, apply the recipe, publish.

    You can stop it at any time. The next run resumes, and does nothing twice.
    """
    from flows import server
    from flows.settled import settled
    from pipeline.ledger import checking
    from pipeline.store.storage import Storage

    described = checking.check(source)  # before Prefect starts, so that a wrong source file is reported at once
    if same := settled(described, Storage(root / described.name)):
        published = asdict(same) | {"held": None}
    else:
        with server.connect(debug):
            from flows.curate import curate

            published = curate(source, str(root), engine, address)
    print_manifest(described, root, published, as_json)
    print_json(as_json, published | {"source": described.name})


@commands.command("retry", epilog="Example: `winnow retry demo --cause timeout --cause http_503`")
def retry_pairs(
    source: SourceName,
    cause: Annotated[
        list[str] | None,
        typer.Option(help="A cause of failed pairs; repeatable. Default: the causes that may pass.", metavar="CAUSE"),
    ] = None,
    root: Root = DATA,
    engine: EngineOption = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fetch failed pairs again, by cause, and bring the manifest up to date.

    Without --cause these are dns, reset, timeout, refused, unreachable, http_429 and every http_5xx. The other causes
    do not pass by waiting: the picture is gone, forbidden, or cannot be decoded. Pairs that were fetched before stay
    as they are.
    """
    from flows import server, sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.upkeep.retry import choose_causes

    described, storage = sources.load(source, root)
    choose_causes(
        Manifest.open(storage), cause or ()
    )  # before Prefect starts, so that an unknown cause is reported at once
    with server.connect(debug):
        from flows.curate import retry

        published = retry(source, cause or [], str(root), engine, address)
    echo(f"{published['retried']:,} pairs were tried again", as_json)
    print_manifest(described, root, published, as_json)
    print_json(as_json, published | {"source": described.name})


@commands.command("score", epilog="Example: `winnow score demo --scorer captions`")
def add_score(
    source: SourceName,
    scorer: Annotated[str, typer.Option(help="The name of a scorer of the source file.", metavar="NAME")],
    root: Root = DATA,
    engine: EngineOption = None,
    address: Address = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Add the columns of one scorer to the newest manifest's pairs, and publish them.

    It reads no list, fetches no picture and computes no other score again. Pictures are decoded only if the scorer
    needs them. If the scorer fails on a shard, nothing is published.
    """
    from flows import server, sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.upkeep.backfill import add_scorer

    described, storage = sources.load(source, root)
    add_scorer(described, Manifest.open(storage), scorer)  # before Prefect starts
    with server.connect(debug):
        from flows.curate import score

        published = score(source, scorer, str(root), engine, address)
    print_manifest(described, root, published, as_json)
    print_json(as_json, published | {"source": described.name, "scorer": scorer})


@commands.command("publish", epilog="Example: `winnow publish demo --recipe clip-top30`")
def publish_recipe(
    source: SourceName,
    recipe: Annotated[
        str | None, typer.Option(help="The name of a recipe. Default: the one of the source file.", metavar="NAME")
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Publish the newest manifest's pairs under another recipe, in seconds, from the scores that exist.

    It fetches and scores nothing, and does not change the source file: the next `winnow curate` publishes the source
    file's own recipe again. A running Prefect server is notified, so that retraining follows.
    """
    from flows import sources
    from flows.progress import bars
    from pipeline.manifest import apart
    from pipeline.manifest.recipes import find
    from pipeline.takedown.writing import writing

    described, storage = sources.load(source, root)
    chosen = find(described, storage, recipe) if recipe else described.own_recipe
    with writing(storage, described), bars() as progress:
        published = apart.republish(storage, chosen, partial(progress, "choose"))
    held, announced = _announce(described, root, published.id, debug) if published.new else (None, False)
    print_manifest(described, root, asdict(published) | {"held": held}, as_json)
    if chosen != described.own_recipe:
        own = f"the next `winnow curate` publishes recipe {described.own_recipe.name} again"
        echo(f'{own}, unless {described.path.name} says recipe = "{recipe}"', as_json)
    if published.new and not announced and not held:
        echo(NOT_ANNOUNCED.format(source), as_json)
    more = {"source": described.name, "recipe": chosen.name, "announced": announced, "held": held}
    print_json(as_json, asdict(published) | more)


@commands.command("forget", epilog="Example: `winnow forget demo --file takedown.txt`")
def forget_pairs(
    file: Annotated[Path, typer.Option(help="Uids, URLs or sha256 of pictures, one on each line.", metavar="FILE")],
    source: Annotated[
        str | None, typer.Argument(help="A source file, or its name in data_manifests/.", metavar="SOURCE")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="In every source with results under --root.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take pairs down: remove their pictures, captions, scores and embeddings, and never fetch them again.

    All pairs that share the URL or the picture of a named one are removed, too. Their rows stay as failed ones with the
    cause forgotten. A new manifest is published, a running Prefect server is notified, and older manifests are marked
    as incomplete. The URLs and pictures are blocked for every later download.

    URLs are compared as they are requested, so that any spelling will do. Names that fit no pair of these sources
    are blocked and listed, one on each line. The exit status is 1 then, also with --dry-run, and the pairs of the other
    names are taken down all the same.

    If it is killed, the same command finishes. Remove the pairs from the source's own list as well. Use --all if other
    sources may have them: a union keeps a copy of what its members had.
    """
    from flows import sources
    from flows.console import counts
    from flows.console.output import show
    from pipeline.takedown.request import Request

    if (source is None) != every:
        raise typer.BadParameter("name a SOURCE, or give --all")
    request = Request.read(file)
    found = sources.stored(root) if source is None else [sources.load(source, root)]
    results = {storage.name: _forget(described, storage, request, dry_run) for described, storage in found}
    for name, done in results.items():
        show(counts.takedown(name, done), as_json)
    for described, storage in found:
        done = results[storage.name]
        if described and done.new and done.manifest:
            held, announced = _announce(described, root, done.manifest, debug)
            if held or (described.task and not announced):
                name = storage.name
                echo(f"{name}: {held or NOT_ANNOUNCED.format(name)}", as_json)
    unmatched = _print_unmatched(list(results.values()), as_json)
    as_values = {name: asdict(done) for name, done in results.items()}
    print_json(as_json, {"dry_run": dry_run, "unmatched": unmatched, "sources": as_values})
    if faults := [done.fault for done in results.values() if done.fault]:
        raise WinnowError(faults[0])
    if unmatched:
        blocked = "would be blocked" if dry_run else "are blocked"
        raise WinnowError(
            f"{len(unmatched):,} of {len(request):,} names fit no pair; they {blocked}, and are listed above"
        )


def _print_unmatched(results: "Sequence[Takedown]", to_stderr: bool) -> list[str]:
    """Print the names that fit no pair in any source, one on each line, and give them."""
    from flows.console.output import printable

    shared = set.intersection(*(set(done.unmatched) for done in results))
    unmatched = [name for name in results[0].unmatched if name in shared]
    if unmatched:
        echo("names that fit no pair:", to_stderr)
    for name in unmatched:
        echo(printable(name), to_stderr)
    return unmatched


def _forget(described: "Source | None", storage: "Storage", request: "Request", dry_run: bool) -> "Takedown":
    from pipeline.upkeep.forget import forget, preview

    return preview(storage, request) if dry_run else forget(storage, request, described)


def _announce(described: "Source", root: "Place", manifest: str, debug: bool) -> tuple[str | None, bool]:
    """Notify the running Prefect server of a new manifest, if there is one.

    Returns why no training follows if inputs drifted too far, and whether the server was notified.
    """
    from flows import server

    if not server.find(debug):
        return None, False
    from flows.events import announce

    held = announce(described, root, manifest)
    return held, held is None
