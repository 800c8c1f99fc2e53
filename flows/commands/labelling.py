"""Labels of pairs: taking them in, and writing pairs for the tools that make them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.options import DATA, AsJson, Debug, ManifestId, RecipeName, Root, ShowUnsafe, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


@commands.command("labels", epilog="Example: `winnow labels mine project-1.json anna.zip`")
def take_labels(
    source: SourceName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Exports of Label Studio (.json) or CVAT (.zip, .json, .xml), or lists.", metavar="[FILE]..."
        ),
    ] = None,
    labeller: Annotated[
        str | None,
        typer.Option(help="Who labelled, where a file does not say it. Default: the file's name.", metavar="NAME"),
    ] = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Take labels of a source's pairs in, and show who labelled how many pairs as what.

    Files are Label Studio's exports in JSON or JSON-MIN, CVAT's as Datumaro or CVAT for images, and lists with the
    columns url, caption, label and perhaps labeller. Labels of several people are kept apart. Of two labels by one
    person for one pair the later counts. Without files, nothing is taken in.
    """
    from flows import sources
    from flows.console.labels import labellers, taken_in
    from flows.console.output import show
    from pipeline.manifest.manifest import Manifest
    from pipeline.review.label_files import take_in
    from pipeline.review.labels import KEY, Labels

    described, storage = sources.load(source, root)
    found = take_in(described, Manifest.open(storage), files, labeller) if files else None
    table = Labels(storage).table
    if found:
        for line in taken_in(found):
            echo(line, as_json)
    show(labellers(table, storage.address(KEY)), as_json)
    counts = table.group_by(["labeller", "label"]).aggregate([("uid", "count")]).to_pylist()
    listed = [{"labeller": row["labeller"], "label": row["label"], "pairs": row["uid_count"]} for row in counts]
    print_json(as_json, {"taken_in": found and asdict(found), "labels": listed, "file": storage.address(KEY)})


@commands.command("annotate", epilog="Example: `winnow annotate mine --to to-label --format label-studio --pairs 200`")
def write_tasks(
    source: SourceName,
    to: Annotated[Path, typer.Option(help="The folder to write. It must not exist.", metavar="DIR")],
    form: Annotated[
        Literal["label-studio", "cvat"], typer.Option("--format", help="The tool that will read the folder.")
    ] = "label-studio",
    pairs: Annotated[int, typer.Option(help="How many pairs.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Draws other pairs.")] = 0,
    recipe: RecipeName = None,
    which: Annotated[
        Literal["all", "kept", "dropped"], typer.Option("--show", help="Pairs that the recipe keeps, drops, or all.")
    ] = "all",
    near: Annotated[
        str | None,
        typer.Option(help="A filter: the pairs nearest to its threshold, from both sides.", metavar="FILTER"),
    ] = None,
    labelled: Annotated[
        bool | None, typer.Option("--labelled/--unlabelled", help="Only pairs that have a label, or have none.")
    ] = None,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="Show the labellers the labels that the pairs have.")
    ] = False,
    prefix: Annotated[
        str | None,
        typer.Option(help="Label Studio: what stands before the name of a picture. Default: local files."),
    ] = None,
    show_unsafe: ShowUnsafe = False,
    manifest: ManifestId = None,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a sample of pairs as a folder of pictures, with tasks for Label Studio or CVAT.

    The labels to choose from are those that the source knows: its good ones and those that its filters catch, or else
    the four of `winnow explore`. Take the result in with `winnow labels`.
    """
    from flows import sources
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.recipes import find
    from pipeline.manifest.shown_pictures import ShownPictures
    from pipeline.review import tasks
    from pipeline.review.label_files import choices

    described, storage = sources.load(source, root)
    found = Manifest.open(storage, manifest)
    chosen = find(described, storage, recipe) if recipe else None
    drawn = tasks.draw(found, tasks.Sample(pairs, seed, chosen, which, near, labelled))
    words = choices(described)
    pictures = ShownPictures.of(found, show_unsafe)
    folder = tasks.write(found, drawn, tasks.Project(form, words, prefix, with_labels), to, pictures)
    echo(f"{folder}: {len(drawn):,} pairs to label as {', '.join(words)}", as_json)
    print_json(as_json, {"to": str(folder), "pairs": len(drawn), "labels": list(words)})
