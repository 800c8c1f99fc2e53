"""What a manifest was worth."""

from typing import Annotated

import typer

from flows.command import DATA, AsJson, Chosen, Debug, Named, Root, finish, say, tell_gain
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
    encoders.svg and encoders.json beside the report.
    """
    from flows import encoders as shown
    from flows import printing, sources

    described, storage = sources.opened(source, root)
    found = shown.compared(described, storage, encoder, manifest, pictures, finetune)
    printing.show(shown.table(found), as_json)
    for line in shown.toml(found):
        say(line, as_json)
    finish(as_json, found)
