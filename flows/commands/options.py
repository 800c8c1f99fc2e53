"""The options that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.errors import SourceError
from pipeline.store.places import Place, place


def _remember(context: typer.Context, debug: bool) -> bool:
    context.find_root().obj = debug  # read by flows.cli
    return debug


def _place(text: str | Path) -> Place:
    try:
        return place(text)
    except SourceError as error:
        raise typer.BadParameter(str(error)) from None


DATA = Path("data")
"""The default of `--root`."""

SourceName = Annotated[str, typer.Argument(help="A source file, or its name in data_manifests/.", metavar="SOURCE")]
_ROOT = typer.Option(
    parser=_place,
    help="The folder of all results, or s3://BUCKET/PREFIX (gs://, az://). Each source has a folder in it.",
    metavar="DIR",
)
if TYPE_CHECKING:
    Root = Annotated[Place, _ROOT]
else:
    Root = Annotated[object, _ROOT]  # Typer takes no union, and leaves the type to the parser
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.", callback=_remember)]
EngineOption = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        "--engine", help="local (this machine) or ray (a cluster). Default: that of the source file.", metavar="NAME"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of a Ray cluster's head. Default: that of the source file, else RAY_ADDRESS.",
        metavar="HOST:PORT",
    ),
]
ManifestId = Annotated[
    str | None,
    typer.Option(
        "--manifest", help="The id of a manifest, or its first characters. Default: the newest.", metavar="ID"
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="The name of a recipe. Default: the one that was published.", metavar="NAME"),
]
RecipeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe", help="The name of a recipe; repeatable. Default: the one of the source file.", metavar="NAME"
    ),
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        help="A list with the columns url, caption, label and perhaps labeller. Default: that of the source file.",
        metavar="FILE",
    ),
]
ShowUnsafe = Annotated[
    bool, typer.Option("--show-unsafe", help="Show pictures that a scorer calls unsafe; else they are veiled.")
]
