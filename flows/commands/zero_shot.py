"""Zero-shot classification."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, SourceName
from flows.commands.printing import echo, print_json
from pipeline.errors import SourceError

commands = typer.Typer()


@commands.command("zero-shot", epilog="Example: `winnow zero-shot demo --templates seven --page wrong.html`")
def classify_zero_shot(
    source: SourceName,
    model: Annotated[
        str | None,
        typer.Option(
            help="A scorer of kind clip, a model of [models] that `winnow fit` trained, open_clip:MODEL@WEIGHTS, or "
            "local-dir:FOLDER. Default: the first scorer of kind clip.",
            metavar="MODEL",
        ),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            help="The candidates: task, its classes with their words; imagenet; or a file with a name a line, other "
            "words for it after tabs.",
            metavar="NAMES",
        ),
    ] = "task",
    templates: Annotated[
        list[str] | None,
        typer.Option(
            help="The sentences that a name stands in: one, seven, eighty, or a file with {} in each line. Repeatable. "
            "Default: the three sets.",
            metavar="SET",
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write a page with pictures, wrong and right, and their nearest names to this file.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Classify the test pictures of a source's task by the nearest name, or rank its captions, without any training.

    A name is the mean of its embeddings in the sentences of a set, normalised. A tie counts as wrong. Embeddings are
    stored under the digest of the model's weights.
    """
    from flows import sources
    from flows.console.output import show
    from flows.console.zero_shot import table
    from flows.progress import bars
    from pipeline.demo import world
    from training.data.templates import SETS
    from training.studies import pair_encoders, zero_shot

    described, storage = sources.load(source, root)
    encoder = pair_encoders.find(described, storage, model)
    asked = zero_shot.Asked(names, tuple(dict.fromkeys(templates or SETS)))
    with world.served(described, storage) as served, bars() as progress:
        found = zero_shot.evaluate(served, storage, encoder, asked, progress)
    show(table(found.figures), as_json)
    if page:
        from pipeline.pages import predictions

        if not found.sets:
            raise SourceError(f"{described.name}: --page shows names of pictures, and the task is one of captions")
        about = f"{found.figures['test']['says']}. The nearest of {found.figures['names']:,} names, with their cosines."
        predictions.write(f"{described.name}: {encoder.name}", about, zero_shot.page(storage, found), page)
        echo(str(page), as_json)
    print_json(as_json, found.figures)
