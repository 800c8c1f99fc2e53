"""What a manifest was worth."""

import typer

from flows.command import DATA, AsJson, Chosen, Debug, Named, Root, finish, tell_gain
from pipeline.errors import SourceError

commands = typer.Typer()


@commands.command(epilog="Example: `winnow train demo`")
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
    tell_gain(gain, as_json)
    finish(as_json, gain)
