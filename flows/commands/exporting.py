"""Kept pairs for trainers elsewhere, and to Hugging Face's hub."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, ManifestId, RecipeName, Root, SourceName
from flows.commands.printing import echo, print_json

commands = typer.Typer()


class Form(StrEnum):
    """The form of an export."""

    webdataset = "webdataset"
    datasets = "datasets"
    csv = "csv"
    uids = "uids"
    embeddings = "embeddings"


@commands.command("export", epilog="Example: `winnow export demo --to kept --format webdataset`")
def export_pairs(
    source: SourceName,
    to: Annotated[Path, typer.Option(help="The folder to create.", metavar="DIR")],
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="webdataset: tars, also for open_clip and img2dataset; datasets: Parquet for Hugging Face; csv: "
            "pictures and a CSV; uids: a sorted npy for DataComp's resharder; embeddings: npy as clip-retrieval has "
            "them.",
        ),
    ],
    scorer: Annotated[
        str | None,
        typer.Option(help="embeddings: the scorer that made them, if several did.", metavar="NAME"),
    ] = None,
    recipe: RecipeName = None,
    manifest: ManifestId = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Also upload the folder to this data set of Hugging Face's hub, as USER/NAME. It is created private. "
            "Needs a token: HF_TOKEN, or `hf auth login`.",
            metavar="NAME",
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: everybody may see the data set.")] = False,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the kept pairs for a trainer elsewhere, with a dataset card; optionally upload them.

    The card, README.md, has the counts, every filter with its reason and its effect, what was measured, and the
    columns. Title, license and homepage come from the source file. croissant.json is for machines.

    The folder appears when it is complete. A run that was stopped resumes, and so does an upload. Nothing is
    overwritten.
    """
    from flows import sources
    from flows.progress import bars
    from pipeline.export import hub
    from pipeline.export.content import About, Content
    from pipeline.export.export import write
    from pipeline.manifest.manifest import Manifest
    from pipeline.manifest.recipes import find

    if public and not push:
        raise typer.BadParameter("it is about --push", param_hint="--public")
    described, storage = sources.load(source, root)
    target = hub.check(push, form, public) if push else None
    chosen = find(described, storage, recipe) if recipe else None
    about = About(described.title, described.license, described.homepage)
    content = Content(Manifest.open(storage, manifest), form, chosen, scorer, about)
    with bars() as progress:
        exported = write(content, to, progress)
    unchanged = "" if exported.new else ", as before: nothing was written"
    samples = f"{exported.samples:,} samples of " if exported.samples != exported.pairs else ""
    echo(f"{samples}{exported.pairs:,} pairs in {exported.path}{unchanged}", as_json)
    pushed = hub.push(exported.path, target, form) if target else None
    if pushed:
        echo(f"{'public' if pushed.public else 'private'} on the hub: {pushed.address}", as_json)
    facts = {"path": str(exported.path), "manifest": content.manifest.id, "pushed": asdict(pushed) if pushed else None}
    print_json(as_json, asdict(exported) | facts)
