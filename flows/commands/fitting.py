"""Training one model, to use it."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, RecipeName, Root, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


@commands.command("fit", epilog="Example: `winnow fit flickr small`")
def fit_model(
    source: SourceName,
    model: Annotated[
        str,
        typer.Argument(
            help="The name of a table [models.NAME] of the source file, which docs/small-clips.md explains.",
            metavar="MODEL",
        ),
    ],
    recipe: RecipeName = None,
    everything: Annotated[bool, typer.Option("--all", help="Train on all downloaded pairs, kept or not.")] = False,
    seed: Annotated[int, typer.Option(help="Of the heads and of the order of the pairs.", min=0)] = 0,
    folds: Annotated[
        int | None, typer.Option(help="Train so many models, each for other shards.", min=2, max=20)
    ] = None,
    to: Annotated[Path | None, typer.Option(help="A folder that gets a copy of the model.", metavar="FOLDER")] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a dual encoder on the kept pairs of the newest manifest, and save it for use as a scorer.

    Pictures of the task's test set never train. If the source has one, the model is ranked on it: Rank@k, intervals,
    chance. The model is a folder under the results, and the lines that name it in a source file are printed. A run that
    was stopped resumes at its last checkpoint, and a second run does nothing. With --folds each model leaves out the
    shards that it scores. `winnow train` measures instead what the manifest is worth.
    """
    from flows import sources
    from flows.console.fit import summary, toml
    from flows.console.output import show
    from flows.progress import bars
    from pipeline.demo import world
    from training.studies.fit import Request
    from training.studies.fit_folds import fit_folds, folder_of

    described, storage = sources.load(source, root)
    request = Request(model, recipe, everything, seed)
    with world.served(described, storage) as served, bars() as progress:
        fitted = fit_folds(served, storage, request, folds, progress)
    folder, records = folder_of(fitted, to), [each.record for each in fitted]
    for record in records:
        show(summary(record), as_json)
    new = any(each.new for each in fitted)
    if not new:
        echo("trained before: nothing was done", as_json)
    for line in toml(model, folder, records[0]):
        echo(line, as_json)
    about = {"folds": records} if folds else records[0]
    print_json(as_json, {**about, "folder": str(folder), "new": new})
