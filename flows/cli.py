"""The command line. Heavy libraries are imported inside commands, so that --help answers at once."""

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.errors import SourceError, WinnowError

if TYPE_CHECKING:
    from pipeline.source import Source
    from pipeline.storage import Storage


class Plainly(TyperGroup):
    """One line instead of a traceback, unless --debug asks for it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Usage errors are typer's own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; run the same command to go on", 130)
        except WinnowError as error:
            if ctx.obj:
                raise
            _fail(str(error))
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.obj or hasattr(error, "exit_code"):  # with an exit code it is about wrong usage
                raise
            _fail(f"{type(error).__name__}: {error} (this is a fault of winnow: report it with what --debug shows)")


def _fail(message: str, status: int = 1) -> None:
    line = "".join(each if each.isprintable() else " " for each in message)  # what strangers wrote may be in it
    typer.echo(f"winnow: {line}", err=True)
    raise typer.Exit(status)


app = typer.Typer(
    cls=Plainly,
    help="Turn a noisy list of (image URL, caption) rows into a training set worth more, and measure by how much.",
    epilog="Start with: `winnow demo`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


class Format(StrEnum):
    """How the answer to a query is given."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Precision(StrEnum):
    """What a model computes in; auto is bfloat16 where the processor has it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Decoder(StrEnum):
    """What decodes and resizes stored pictures."""

    pillow = "pillow"
    simd = "pillow-simd"
    torchvision = "torchvision"


def main() -> None:
    """The console script. 0: done; 1: failed, one line on stderr; 2: wrong usage; 130: stopped by Ctrl-C."""
    app()


@app.command(epilog="Example: `winnow demo`")
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
    _tell_manifest(described, root, published, as_json)
    _tell_gain(gain, as_json)
    _say("\nWhat was planted in the pool, which nothing above has read:\n", as_json)
    planted = _tell_caught(described, storage, None, published["id"], as_json)
    _say(f"\nThe report: {report}\n\nNext:", as_json)
    for line in _next(root):
        _say(f"  {line}", as_json)
    _say("\nWhile that serves, in another terminal:", as_json)
    _say(f"  PREFECT_API_URL=http://127.0.0.1:4200/api {_installed('prefect')} deployment run curate/demo", as_json)
    found = {"source": "demo", "gain": gain, "caught": planted, "report": str(report)}
    _finish(as_json, published | found)


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


@app.command(epilog="Example: `winnow curate data_manifests/cc3m.toml`")
def curate(source: Named, root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """Bring a source's manifest up to date: fetch and score new pairs, apply the recipe, publish.

    Safe to stop at any moment and to run again: it goes on where it was, and does nothing twice.
    """
    from flows import server, sources

    described = sources.checked(source)  # a wrong source file is told at once, not after Prefect's start
    with server.chosen(debug):
        from flows.curate import curate as run

        published = run(source, str(root))
    _tell_manifest(described, root, published, as_json)
    _finish(as_json, published | {"source": described.name})


@app.command(epilog="Example: `winnow score demo --scorer captions`")
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
    from pipeline.addition import addition
    from pipeline.manifest import Manifest

    described, storage = sources.opened(source, root)
    addition(described, Manifest.open(storage), scorer)
    with server.chosen(debug):
        from flows.curate import add_score

        published = add_score(source, scorer, str(root))
    _tell_manifest(described, root, published, as_json)
    _finish(as_json, published | {"source": described.name, "scorer": scorer})


@app.command(epilog="Example: `winnow calibrate demo`")
def calibrate(
    source: Named, labels: Labels = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Find the thresholds of a source's filters on a labelled sample, by a rule, and print them. Changes no file.

    The sample is a list with the columns url, caption and label: `calibration.labels` of the source file, or --labels.
    Unless the newest manifest has its scores, it is fetched and scored first, as the source's own pairs are. For each
    filter that names the labels that it `catches`: of the thresholds between two neighbouring observed values, the one
    with the best F1 at finding these labels among pairs that are good or have one of them; of several the laxest;
    rounded towards the lax side. A pair without a score counts as not caught. To freeze a threshold is up to you.
    """
    from flows import labels as shown
    from flows import printing, server, sources
    from pipeline import calibrate as rule

    described = sources.checked(source)
    rule.rows(described)
    storage = sources.opened(source, root)[1]
    if rule.scored(described, storage, labels) is None:
        with server.chosen(debug):
            from flows.curate import sample

            sample(source, str(root), str(labels) if labels else None)
    found = rule.measure(described, storage, labels)
    printing.show(shown.calibration(found), as_json)
    for line in shown.toml(found):
        _say(line, as_json)
    _finish(as_json, found)


@app.command(epilog="Example: `winnow caught demo`")
def caught(
    source: Named,
    labels: Labels = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Check a manifest against labels: how many pairs of each label each filter dropped, and what was lost with them.

    Labels come from --labels, `calibration.labels` of the source file, or what the demo knows of its own pairs.
    """
    from flows import sources

    described, storage = sources.opened(source, root)
    _finish(as_json, _tell_caught(described, storage, labels, manifest, as_json))


@app.command(epilog="Example: `winnow train demo`")
def train(
    source: Named, manifest: Chosen = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Measure what a manifest was worth: train on what was kept, on everything, and on as much taken blindly.

    Trains nothing twice, and goes on at the trial where it was stopped. Writes the report as well.
    """
    from flows import server, sources
    from pipeline.manifest import Manifest

    described, storage = sources.opened(source, root)
    Manifest.open(storage, manifest)
    if described.task is None:
        raise SourceError(f"{described.name}: there is no [task] to measure the gain on; `winnow report` needs none")
    with server.chosen(debug):
        from flows.retrain import retrain

        gain = retrain(source, str(root), manifest)
    _tell_gain(gain, as_json)
    _finish(as_json, gain)


@app.command(epilog='Example: `winnow sql "select kept, count(*), avg(clip_similarity) from rows group by kept"`')
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
    from flows import answers, printing, sources
    from pipeline import queries
    from pipeline import query as typed

    if listed:
        for name, each in queries.QUERIES.items():
            _say(f"@{name}: {each.what}\n    {each.sql}", as_json)
        _finish(as_json, {name: asdict(each) for name, each in queries.QUERIES.items()})
        return
    form = Format.json if as_json else form
    if query is None:
        raise typer.BadParameter("give a SELECT, @NAME, or - for standard input; --list shows the names")
    if form is Format.parquet and out is None:
        raise typer.BadParameter("--format parquet needs --out FILE")
    if form is Format.table and out is not None:
        raise typer.BadParameter("a table is for the terminal; with --out choose --format csv, json or parquet")
    text = sys.stdin.read() if query == "-" else queries.named(query)
    answer = typed.run(text, sources.published(root, source or []), deadline=deadline)
    if out is not None:
        answers.put(answer, form, out)
        _say(f"{len(answer):,} rows in {out}", to_stderr=True)
    elif form is Format.table:
        printing.show(printing.answer(answer), to_stderr=False)
    else:
        answers.write(answer, form, sys.stdout)


@app.command(epilog="Example: `winnow funnel demo --recipe clip-top30 --recipe datacomp-basic-like`")
def funnel(
    source: Named,
    recipe: Recipes = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what recipes would keep, side by side, from the scores that are there already.

    Of each filter: the pairs that pass it alone, that pass it and all before it, that fail, that have no score, and
    that it alone drops: as many more would be kept without it. Then which filters drop the same pairs.
    """
    from flows import printing, sources
    from pipeline.manifest import Manifest

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    compared = found.compare([sources.recipe(name) for name in recipe] if recipe else [described.chosen])
    printing.show(printing.comparison(compared), as_json)
    _finish(as_json, {"manifest": found.id} | asdict(compared))


@app.command(epilog="Example: `winnow audit demo --recipe clip-top30`")
def audit(
    source: Named,
    recipe: Recipes = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show whom recipes remove: the share by language, domain, length and words of the caption.

    The tables show the groups that are surely removed more often than the whole, by 95 % Wilson intervals; --json has
    the largest groups of each kind.
    """
    from flows import printing, sources
    from pipeline import audit as removed
    from pipeline.manifest import Manifest

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    chosen = [sources.recipe(name) for name in recipe] if recipe else [described.chosen]
    audits = [removed.audit(found, each) for each in chosen]
    for each in audits:
        printing.show(printing.audit(each), as_json)
    _finish(as_json, {"manifest": found.id, "audits": [asdict(each) for each in audits]})


@app.command(epilog="Example: `winnow publish demo --recipe clip-top30`")
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
    from flows import server, sources
    from pipeline import publish as commit

    described, storage = sources.opened(source, root)
    chosen = sources.recipe(recipe) if recipe else described.chosen
    with storage.lock():
        published = commit.republish(storage, chosen)
    held, told = None, False
    if published.new and server.found(debug):
        from flows.curate import follow

        held = follow(described, root, published.id)
        told = held is None
    _tell_manifest(described, root, asdict(published) | {"held": held}, as_json)
    if recipe and chosen != described.chosen:
        own = f"the next `winnow curate` publishes recipe {described.chosen.name} again"
        _say(f'{own}, unless {described.path.name} says recipe = "{recipe}"', as_json)
    if published.new and not told and not held:
        _say(f"no Prefect server answers, so that no training follows by itself: `winnow train {source}`", as_json)
    _finish(
        as_json,
        asdict(published) | {"source": described.name, "recipe": chosen.name, "announced": told, "held": held},
    )


@app.command(
    epilog="Example: `winnow diff demo`, or `winnow diff demo -3 -1 --rows 5`",
    context_settings={"ignore_unknown_options": True},
)
def diff(
    source: Named,
    before: Annotated[str, typer.Argument(help="A manifest's id or its beginning, or -2: the last but one.")] = "-2",
    after: Annotated[str, typer.Argument(help="The same of the manifest to compare with it; -1 is the newest.")] = "-1",
    rows: Annotated[int, typer.Option(help="Examples to show of each way that rows went.", min=0)] = 0,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is different between two manifests: which rows changed sides and why, and how far columns drifted.

    Drift is told for all downloaded pairs and for the kept ones apart, since another recipe drifts by design.
    """
    from flows import printing, sources
    from pipeline import diff as difference
    from pipeline.manifest import Manifest

    _, storage = sources.opened(source, root)
    found = difference.between(Manifest.open(storage, before), Manifest.open(storage, after), rows)
    printing.show(printing.difference(found), as_json)
    _finish(as_json, asdict(found))


@app.command(epilog="Example: `winnow report demo`")
def report(
    source: Named, manifest: Chosen = None, root: Root = DATA, as_json: AsJson = False, debug: Debug = False
) -> None:
    """Write a page to look at: funnel, histograms, pairs kept and dropped, failures by cause, the gain if measured."""
    from flows import sources
    from pipeline import report as page
    from pipeline.manifest import Manifest
    from pipeline.trials import gain_of

    _, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    path = storage.root / "report.html"
    page.write(storage, found, gain_of(storage, found.id), path)
    _say(str(path), as_json)
    _finish(as_json, {"report": str(path), "manifest": found.id})


@app.command(epilog="Example: `winnow explore demo`")
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
    from pipeline.explore import app as page
    from pipeline.explore.questions import Explorer, offered
    from pipeline.explore.rows import Rows
    from pipeline.manifest import Manifest

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    _say(f"reading {found.counts.pool:,} downloaded pairs", to_stderr=True)

    with (
        contextlib.suppress(KeyboardInterrupt),
        storage.scratch() as scratch,
        page.listening(Explorer(Rows(found, scratch), offered(found, described.chosen)), port) as (address, answer, _),
    ):
        _say(address, to_stderr=False)
        _say("whoever has this address has the page: keep it to yourself; Ctrl-C ends it", to_stderr=True)
        if browse:
            import webbrowser

            webbrowser.open(address)
        answer()


@app.command(epilog="Example: `winnow serve`, and in another terminal `prefect deployment run curate/demo`")
def serve(
    port: Annotated[int, typer.Option(help="Of Prefect's server on this machine.", min=1, max=65535)] = 4200,
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Serve every source file as a Prefect deployment with its schedule; retraining follows each manifest by itself.

    Starts Prefect's server on this machine if none answers there, and stops it at the end. Ctrl-C ends it.
    """
    from flows import server

    with server.standing(port, debug) as api:
        from flows import deploy

        _say(f"Prefect answers on {api.removesuffix('/api')}", to_stderr=False)
        deploy.run(root, tell=lambda line: _say(line, to_stderr=False))


@app.command(epilog="Example: `winnow bench --model ViT-B-32 --pairs 500`")
def bench(
    model: Annotated[str, typer.Option(help="A name of open_clip's; its weights are random.")] = "ViT-B-32",
    precision: Annotated[Precision, typer.Option(help="Of the weights and the passes.")] = Precision.auto,
    pairs: Annotated[int, typer.Option(help="Pairs that are scored in a repeat.", min=64)] = 500,
    side: Annotated[int, typer.Option(help="Pixels of the pictures' shorter side.", min=32, max=4096)] = 224,
    decoder: Annotated[Decoder, typer.Option(help="Of the pictures.")] = Decoder.pillow,
    batch: Annotated[
        int | None, typer.Option(help="Pictures or captions of one pass; found by itself if unset.", min=1, max=4096)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Figures are medians of so many.", min=1)] = 5,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure how fast this machine scores pairs, beside what it could do and beside the loop that people write.

    Everything is made here: no network, no data, no weights. On a processor it takes some minutes.
    """
    from flows import printing
    from pipeline import bench as measured

    plan = measured.Plan(model, precision.value, pairs, side, decoder.value, batch, repeats)
    found = measured.run(plan, tell=lambda line: _say(line, to_stderr=True))
    printing.show(printing.bench(found), as_json)
    _finish(as_json, found)


@app.command(epilog="Example: `winnow doctor`")
def doctor(root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """Look for what is missing or wrong on this machine, and print the command that mends it."""
    from flows import doctor as machine

    findings = []
    for finding in machine.examine(root):
        findings.append(finding)
        _say(f"{finding.state:>5}  {finding.what}: {finding.found}", as_json)
        if finding.mend:
            _say(f"       {finding.mend}", as_json)
    _finish(as_json, {"findings": [asdict(finding) for finding in findings]})
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def _tell_manifest(described: "Source", root: Path, published: Mapping[str, Any], to_stderr: bool) -> None:
    from flows import printing
    from pipeline.manifest import Manifest
    from pipeline.storage import Storage

    found = Manifest.open(Storage(root / described.name), published["id"])
    printing.show(printing.counts(described.name, found.counts), to_stderr)
    if found.recipe.filters:
        funnel = found.funnel(found.recipe)
        printing.show(printing.funnel(found.recipe.name, found.counts.pool, funnel), to_stderr)
    _say(f"manifest {found.id}{'' if published['new'] else ', as before: nothing changed'}", to_stderr)
    if held := published.get("held"):
        _say(held, to_stderr)


def _tell_gain(gain: Mapping[str, Any], to_stderr: bool) -> None:
    from flows import printing
    from training.gain import table

    printing.show(table(gain), to_stderr)


def _tell_caught(
    described: "Source", storage: "Storage", labels: Path | None, manifest: str | None, to_stderr: bool
) -> Mapping[str, Any]:
    from flows import labels as shown
    from flows import printing
    from pipeline import caught, labelled
    from pipeline.manifest import Manifest

    path = labelled.located(described, storage, labels)
    known = labelled.Labelled.read(path, described.calibration.good)
    found = caught.count(Manifest.open(storage, manifest), known)
    printing.show(shown.caught(found), to_stderr)
    return found


def _say(line: str, to_stderr: bool) -> None:
    typer.echo(line, err=to_stderr)


def _finish(as_json: bool, value: Mapping[str, Any]) -> None:
    if as_json:
        from flows import printing

        sys.stderr.flush()
        printing.as_json(value)
