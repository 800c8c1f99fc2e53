"""Bringing a manifest about, and keeping it up to date."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import (
    DATA,
    UNHEARD,
    AsJson,
    Debug,
    Named,
    Root,
    announced,
    finish,
    say,
    tell_caught,
    tell_gain,
    tell_manifest,
)
from pipeline.errors import WinnowError

commands = typer.Typer()


@commands.command(epilog="Example: `winnow demo`")
def demo(root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """See the whole job on a small rendered world: download, score, choose, publish, train, report. No network."""
    from flows import server, sources

    described = sources.checked("demo")
    with server.chosen(debug):
        from flows.curate import curate
        from flows.retrain import retrain

        published = curate("demo", str(root))
        gain = retrain("demo", str(root), published["id"])
    storage = sources.opened("demo", root)[1]
    report = root / described.name / "report.html"
    tell_manifest(described, root, published, as_json)
    tell_gain(gain, as_json)
    say("\nWhat was planted in the pool, which nothing above has read:\n", as_json)
    planted = tell_caught(described, storage, None, published["id"], as_json)
    say(f"\nThe report: {report}\n\nNext:", as_json)
    for line in _next(root):
        say(f"  {line}", as_json)
    say("\nWhile that serves, in another terminal:", as_json)
    say(f"  PREFECT_API_URL=http://127.0.0.1:4200/api {_installed('prefect')} deployment run curate/demo", as_json)
    found = {"source": "demo", "gain": gain, "caught": planted, "report": str(report)}
    finish(as_json, published | found)


def _next(root: Path) -> Iterator[str]:
    """What to type after the demo. Each line works where the demo was typed."""
    winnow, here = _installed("winnow"), "" if root == DATA else f" --root {shlex.quote(str(root))}"
    query = "select cause, count(*) as pairs from failed group by cause order by pairs desc"
    yield f'{winnow} sql "{query}" --source demo{here}'
    yield f"{winnow} funnel demo --recipe clip-top30{here}"
    yield f"{winnow} calibrate demo{here}"
    yield f"{winnow} report demo{here}"
    yield f"{winnow} serve{here}"


def _installed(program: str) -> str:
    """The program as it can be typed: its path, where it lies in an environment that is not activated."""
    lies = Path(sys.prefix, "bin", program)
    return program if shutil.which(program) or not lies.exists() else shlex.quote(os.path.relpath(lies))


@commands.command(epilog="Example: `winnow curate data_manifests/cc3m.toml`")
def curate(source: Named, root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """Bring a source's manifest up to date: fetch and score new pairs, apply the recipe, publish.

    Safe to stop at any moment and to run again: it goes on where it was, and does nothing twice.
    """
    from flows import server, sources

    described = sources.checked(source)  # a wrong source file is told at once, not after Prefect's start
    with server.chosen(debug):
        from flows.curate import curate as run

        published = run(source, str(root))
    tell_manifest(described, root, published, as_json)
    finish(as_json, published | {"source": described.name})


@commands.command(epilog="Example: `winnow retry demo --cause timeout --cause http_503`")
def retry(
    source: Named,
    cause: Annotated[
        list[str] | None, typer.Option(help="Why pairs failed; may be given several times. What may pass if unset.")
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fetch pairs once more that failed, by cause, and bring the manifest up to date.

    Without --cause these are dns, reset, timeout, refused, unreachable, http_429 and every http_5xx: a picture that is
    gone, that nobody may use or nobody can decode will be so tomorrow. What was fetched before stays as it is.
    """
    from flows import server, sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.upkeep import retry as again

    described, storage = sources.opened(source, root)
    again.choose_causes(Manifest.open(storage), cause or ())
    with server.chosen(debug):
        from flows.curate import retry as run

        published = run(source, cause or [], str(root))
    say(f"{published['retried']:,} pairs were tried again", as_json)
    tell_manifest(described, root, published, as_json)
    finish(as_json, published | {"source": described.name})


@commands.command(epilog="Example: `winnow forget demo --file takedown.txt`")
def forget(
    source: Annotated[str | None, typer.Argument(help="A source file, or its name.", metavar="SOURCE")] = None,
    file: Annotated[Path, typer.Option(help="uids, URLs or sha256 of pictures, one a line.", metavar="LIST")] = Path(),
    every: Annotated[bool, typer.Option("--all", help="In every source with results under --root.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take pairs down: pictures, words, scores and embeddings leave storage, and do not come back.

    With a pair go all that share its URL or its picture. Their rows stay as failed ones of the cause forgotten, a new
    manifest is published, of which a Prefect server that stands is told, so that retraining follows, and older ones say
    that they are no longer complete. URLs and pictures are blocked for every later download. Killed at any moment, the
    same command finishes. Remove them from the source's own list as well. A union does not fetch what a member forgot;
    what it has already is its own, so give --all.
    """
    from flows import sources
    from flows.console import tables
    from pipeline.takedown.request import Request
    from pipeline.upkeep import forget as takedown

    if (source is None) != every:
        raise typer.BadParameter("name a SOURCE, or give --all")
    request = Request.read(file)
    found = sources.standing(root) if source is None else [sources.opened(source, root)]
    told = {
        storage.root.name: takedown.preview(storage, request)
        if dry_run
        else takedown.forget(storage, request, described)
        for described, storage in found
    }
    for name, done in told.items():
        tables.show(tables.removal(name, done), as_json)
    known = {storage.root.name: described for described, storage in found}
    for name, done in told.items():
        described = known[name]
        if described and done.new and done.manifest:
            held, heard = announced(described, root, done.manifest, debug)
            if held or (described.task and not heard):
                say(f"{name}: {held or UNHEARD.format(name)}", as_json)
    finish(as_json, {"dry_run": dry_run, "sources": {name: asdict(done) for name, done in told.items()}})
    if faults := [done.fault for done in told.values() if done.fault]:
        raise WinnowError(faults[0])


@commands.command(epilog="Example: `winnow score demo --scorer captions`")
def score(
    source: Named,
    scorer: Annotated[str, typer.Option(help="A scorer of the source file, by its name.")],
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Add the columns of one scorer to the newest manifest's pairs, and publish them.

    No list is read, no picture fetched, and no other score computed again. Pictures are decoded only if the scorer
    looks at them; a head needs none. If the scorer fails on a shard, nothing is published.
    """
    from flows import server, sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.upkeep.backfill import add_scorer

    described, storage = sources.opened(source, root)
    add_scorer(described, Manifest.open(storage), scorer)
    with server.chosen(debug):
        from flows.curate import add_score

        published = add_score(source, scorer, str(root))
    tell_manifest(described, root, published, as_json)
    finish(as_json, published | {"source": described.name, "scorer": scorer})


@commands.command(epilog="Example: `winnow publish demo --recipe clip-top30`")
def publish(
    source: Named,
    recipe: Annotated[str | None, typer.Option(help="A named recipe; the source file's own if unset.")] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Publish the newest manifest's pairs under another recipe, in seconds, from the scores that are there already.

    Nothing is fetched or scored. The source file stays as it is, and stays in force: the next `winnow curate` publishes
    its own recipe again. To keep the new one, write it there. A Prefect server that stands is told, so that retraining
    follows.
    """
    from flows import sources
    from pipeline.filtering.recipes import find_recipe
    from pipeline.manifest import publish as commit
    from pipeline.takedown.writing import writing

    described, storage = sources.opened(source, root)
    chosen = find_recipe(recipe) if recipe else described.own_recipe
    with writing(storage):
        published = commit.republish(storage, chosen)
    held, told = announced(described, root, published.id, debug) if published.new else (None, False)
    tell_manifest(described, root, asdict(published) | {"held": held}, as_json)
    if recipe and chosen != described.own_recipe:
        own = f"the next `winnow curate` publishes recipe {described.own_recipe.name} again"
        say(f'{own}, unless {described.path.name} says recipe = "{recipe}"', as_json)
    if published.new and not told and not held:
        say(UNHEARD.format(source), as_json)
    finish(
        as_json,
        asdict(published) | {"source": described.name, "recipe": chosen.name, "announced": told, "held": held},
    )


@commands.command(epilog="Example: `winnow serve`, and in another terminal `prefect deployment run curate/demo`")
def serve(
    port: Annotated[int, typer.Option(help="Of Prefect's server on this machine.", min=1, max=65535)] = 4200,
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Serve every source file as a Prefect deployment with its schedule; retraining follows each manifest by itself.

    Starts Prefect's server on this machine if none answers there, and stops it at the end. Ctrl-C ends it. The server
    asks for a random secret. While it runs, prefect.toml in this folder holds the secret for the `prefect` command and
    for you: the server's pages ask for it.
    """
    from flows import server

    with server.standing(port, debug) as api:
        from flows import deploy

        say(f"Prefect answers on {api.removesuffix('/api')}", to_stderr=False)
        if server.state(api) is server.State.OPEN:
            say(f"warning: {server.UNPROTECTED}: docs/schedule.md", to_stderr=False)
        else:
            say("its pages ask for the auth_string in prefect.toml", to_stderr=False)
        deploy.run(root, tell=lambda line: say(line, to_stderr=False))
