"""Spatial relations and composition."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


@commands.command("composition", epilog="Example: `winnow composition demo --page relations.html`")
def measure_composition(
    source: SourceName,
    model: Annotated[
        str | None,
        typer.Option(
            help="A scorer of kind clip, a model of [models] that `winnow fit` trained, open_clip:MODEL@WEIGHTS, or "
            "local-dir:FOLDER. Default: the first scorer of kind clip.",
            metavar="MODEL",
        ),
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option(
            "--list",
            help="A JSON or Parquet list in the form of What'sUp, SugarCrepe or ARO, or with image, right, wrong and "
            "kind, in place of drawn pictures.",
            metavar="FILE",
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="The folder of the pictures of --list. Default: that of the list.", metavar="DIR"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write a page with pictures and captions to this file.", metavar="FILE", dir_okay=False),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure whether a model tells "in front of" from "behind", left from right, above from below.

    Pictures are drawn in pairs, so that no word, order, colour or size answers. A pair counts only if both of its
    pictures are right; a model that always says "in front of" has 0. Control pictures differ in what is there.
    Results are stored under the digest of the model's weights.
    """
    from flows import sources
    from flows.console.composition import table
    from flows.console.output import show
    from flows.progress import bars
    from training.data import contrast_lists, relations
    from training.studies import composition, pair_encoders

    if pictures and not given:
        raise typer.BadParameter("--pictures is the folder of a --list")
    described, storage = sources.load(source, root)
    encoder = pair_encoders.find(described, storage, model)
    contrasts = contrast_lists.read(given, pictures or given.parent) if given else relations.drawn()
    with bars() as progress:
        found = composition.measure(storage, encoder, contrasts, progress)
    show(table(found, composition.sentence(found)), as_json)
    if page:
        from pipeline.pages import predictions

        predictions.write(
            f"{encoder.name}: composition", composition.sentence(found), composition.page(found, contrasts), page
        )
        echo(str(page), as_json)
    print_json(as_json, found)
