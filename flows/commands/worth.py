"""What a manifest was worth, and taking it to trainers elsewhere."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Chosen, Debug, Named, Root, finish, say, tell_gain
from pipeline.errors import SourceError

commands = typer.Typer()

Recipe = Annotated[str | None, typer.Option(help="What a named recipe keeps; what was published if unset.")]


class Form(StrEnum):
    """How a subset is written for others."""

    webdataset = "webdataset"
    datasets = "datasets"
    csv = "csv"


@commands.command(epilog="Example: `winnow train demo`, or `winnow train demo --recipe clip-top30`")
def train(
    source: Named,
    manifest: Chosen = None,
    recipe: Recipe = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure what a manifest was worth: train on what was kept, on everything, and on as much taken blindly.

    Trains nothing twice, and goes on at the trial where it was stopped. Writes the report as well. With --recipe the
    same is measured for what a recipe would keep that was not published.
    """
    from flows import server, sources
    from pipeline.filtering.recipes import find_recipe
    from pipeline.manifest.manifest import Manifest

    described, storage = sources.opened(source, root)
    found = Manifest.open(storage, manifest)
    if recipe:
        found.check(*find_recipe(recipe).filters)
    if described.task is None:
        raise SourceError(f"{described.name}: there is no [task] to measure the gain on; `winnow report` needs none")
    with server.chosen(debug):
        from flows.retrain import retrain

        gain = retrain(source, str(root), manifest, recipe)
    tell_gain(gain, as_json)
    finish(as_json, gain)


@commands.command(epilog="Example: `winnow encoders demo --encoder hog --encoder timm:resnet50@resnet50.safetensors`")
def encoders(
    source: Named,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="timm:MODEL or open_clip:MODEL, with @ and a tag, a .safetensors file or `random` behind it; "
            "local-dir:FOLDER; hog; pixels; a table in braces; a learner of the source's. Several times if need be."
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(help="Stored pictures that costs are measured on.", min=16)] = 256,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Train each network end to end as well, on a small budget: slow.")
    ] = False,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare frozen encoders on a source's task: what a linear probe on each is worth, and what each costs here.

    Without --encoder: those of the source's learners, and ten that people ask for, whose weights are on a hub. Leaves
    encoders.svg and encoders.json beside the report, which shows them when it is next written.
    """
    from flows import sources
    from flows.console import encoders as shown
    from flows.console import tables

    described, storage = sources.opened(source, root)
    found = shown.compared(described, storage, encoder, manifest, pictures, finetune)
    tables.show(shown.table(found), as_json)
    for line in shown.toml(found):
        say(line, as_json)
    finish(as_json, found)


@commands.command(epilog="Example: `winnow export demo --to kept --format webdataset`")
def export(
    source: Named,
    to: Annotated[Path, typer.Option(help="The folder to make.", metavar="DIR")],
    form: Annotated[
        Form, typer.Option("--format", help="For open_clip and webdataset, or for Hugging Face's datasets.")
    ],
    recipe: Recipe = None,
    manifest: Chosen = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write what is kept for a trainer elsewhere: webdataset tars, Parquet for datasets, or pictures with a CSV.

    The folder appears when it is whole. A run that was stopped goes on where it was; nothing is overwritten.
    """
    from flows import sources
    from flows.progress import shown
    from pipeline.filtering.recipes import find_recipe
    from pipeline.manifest import export as written
    from pipeline.manifest.manifest import Manifest

    _, storage = sources.opened(source, root)
    found, chosen = Manifest.open(storage, manifest), find_recipe(recipe) if recipe else None
    with shown() as tell:
        made = written.write(found, chosen, form, to, tell)
    there = "" if made.new else ", as before: nothing was written"
    say(f"{made.pairs:,} pairs in {made.path}{there}", as_json)
    finish(as_json, asdict(made) | {"path": str(made.path), "manifest": found.id})
