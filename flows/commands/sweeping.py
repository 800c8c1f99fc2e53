"""Training a grid of models."""

from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


@commands.command("sweep", epilog="Example: `winnow sweep flickr batches`")
def sweep_models(
    source: SourceName,
    name: Annotated[str, typer.Argument(help="The name of a table [sweeps.NAME].", metavar="NAME")],
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Train a model with every combination of the settings of a grid, and compare the results.

    Trains on the kept pairs of the newest manifest, and ranks the task's test set. Prints a table, and whether
    observations of published studies hold here. Trains nothing twice: a run that was stopped resumes.
    """
    from flows import sources
    from flows.console.output import show
    from flows.console.sweep import table
    from flows.progress import bars
    from pipeline.demo import world
    from training.studies.sweep import run
    from training.studies.sweep_files import write

    described, storage = sources.load(source, root)
    with world.served(described, storage) as served, bars() as progress:
        found = run(served, storage, name, progress)
    written = write(found, storage)
    show(table(found), as_json)
    for path in written:
        echo(str(path), as_json)
    print_json(as_json, {**found, "files": [str(path) for path in written]})
