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
    model: Annotated[str, typer.Argument(help="The name of a table [models.NAME].", metavar="MODEL")],
    recipe: RecipeName = None,
    everything: Annotated[bool, typer.Option("--all", help="Train on all downloaded pairs, kept or not.")] = False,
    seed: Annotated[int, typer.Option(help="Of the heads and of the order of the pairs.", min=0)] = 0,
    to: Annotated[Path | None, typer.Option(help="A folder that gets a copy of the model.", metavar="FOLDER")] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a dual encoder on the kept pairs of the newest manifest, and save it for use as a scorer.

    Pictures of the task's test set never train. If the source has one, the model is ranked on it. A run that was
    stopped resumes at its last checkpoint, and a second run does nothing. `winnow train` measures instead what the
    manifest is worth.
    """
    from flows import sources
    from flows.console.fit import summary, toml
    from flows.console.output import show
    from flows.progress import bars
    from pipeline.demo import world
    from training.studies.fit import Request, copy, fit

    described, storage = sources.load(source, root)
    with world.served(described, storage) as served, bars() as progress:
        fitted = fit(served, storage, Request(model, recipe, everything, seed), progress)
    folder = copy(fitted, to) if to else fitted.folder
    show(summary(fitted.record), as_json)
    if not fitted.new:
        echo("trained before: nothing was done", as_json)
    for line in toml(model, folder, fitted.record):
        echo(line, as_json)
    print_json(as_json, {**fitted.record, "folder": str(folder), "new": fitted.new})
