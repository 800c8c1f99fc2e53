"""What a manifest is worth to learners, here and elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, ManifestId, RecipeName, Root, SourceName
from flows.commands.printing import echo, print_json
from pipeline.errors import SourceError

if TYPE_CHECKING:
    from pipeline.sources.source import Source
    from pipeline.store.places import Place
    from pipeline.store.storage import Storage

commands = typer.Typer()


@commands.command("train", epilog="Example: `winnow train demo`")
def train_learners(
    source: SourceName,
    manifest: ManifestId = None,
    recipe: RecipeName = None,
    pools: Annotated[
        int | None,
        typer.Option(
            help="Measure on so many pools drawn anew, 3 or more, for intervals over pools. For sources with [demo].",
            min=3,
            max=100,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="kind = vqa: write a page of pictures with questions, answers and predictions to this file.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what a manifest is worth: train on the kept pairs, on all pairs, and on a random subset of equal size.

    Trains nothing twice: a run that was stopped resumes with the next trial. Writes the report as well. With --recipe,
    the kept pairs are those that this recipe would keep. The intervals are about this pool and these filters; with
    --pools, each pool is curated and measured, and the intervals are about new pools.
    """
    from flows import server, sources
    from flows.console import gain
    from flows.console.output import show
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.recipes import find

    described, storage = sources.load(source, root)
    if described.task is None:
        raise SourceError(f"{described.name}: there is no [task] to measure the gain on; `winnow report` needs none")
    if page and described.task.kind != "vqa":
        raise SourceError(f"{described.name}: --page shows answers to questions; the task is {described.task.kind}")
    if pools:
        if manifest or recipe or page:
            raise typer.BadParameter("--pools curates each pool, so it takes neither --manifest, --recipe nor --page")
        _over_pools(source, pools, root, as_json, debug)
        return
    found = Manifest.open(storage, manifest)
    if recipe:
        found.check(*find(described, storage, recipe).filters)
    with server.connect(debug):
        from flows.retrain import retrain

        measured = retrain(source, str(root), manifest, recipe)
    show(gain.table(measured), as_json)
    if page:
        _answers(described, storage, found.id, recipe, page)
        echo(str(page), as_json)
    print_json(as_json, measured)


def _answers(source: "Source", storage: "Storage", manifest: str, recipe: str | None, page: Path) -> None:
    """Write the page of questions and answers."""
    from pipeline.pages import predictions
    from training.studies.answer_examples import examples

    about = f"Models of the first seed, trained on the filtered pairs; manifest {manifest}"
    shown = examples(source, storage, manifest, recipe)
    predictions.write(f"{source.name}: questions and answers", about, shown, page)


def _over_pools(source: str, count: int, root: "Place", as_json: bool, debug: bool) -> None:
    from flows import server
    from flows.console import gain
    from flows.console.output import show

    with server.connect(debug):
        from flows.pools import train_pools

        measured = train_pools(source, count, str(root))
    show(gain.over_pools(measured), as_json)
    print_json(as_json, measured)


@commands.command("encoders", epilog="Example: `winnow encoders demo --encoder hog --encoder timm:resnet50`")
def compare_encoders(
    source: SourceName,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="timm:MODEL or open_clip:MODEL, optionally with @TAG, @FILE.safetensors or @random; local-dir:FOLDER; "
            "hog; pixels; a TOML table in braces; the name of a learner of the source. Repeatable.",
            metavar="ENCODER",
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(help="Stored pictures to measure costs on.", min=16)] = 256,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Also train each network end to end, on a small budget. Slow.")
    ] = False,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare frozen encoders on a source's task: the score of a linear probe on each, and the cost of each.

    Without --encoder, these are the encoders of the source's learners and ten well-known ones from a model hub. Writes
    encoders.svg and encoders.json beside the report. The next report shows them.
    """
    from flows import encoders, sources
    from flows.console.encoders import table, toml
    from flows.console.output import show

    described, storage = sources.load(source, root)
    found = encoders.compare(described, storage, encoder or (), manifest, pictures, finetune)
    show(table(found), as_json)
    for line in toml(found):
        echo(line, as_json)
    print_json(as_json, found)
