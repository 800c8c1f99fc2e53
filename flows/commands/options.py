"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer


def _remember(context: typer.Context, debug: bool) -> bool:
    context.find_root().obj = debug  # read by flows.cli
    return debug


DATA = Path("data")
"""The default of `--root`."""

SourceName = Annotated[str, typer.Argument(help="A source file, or its name in data_manifests/.", metavar="SOURCE")]
Root = Annotated[Path, typer.Option(help="The folder of all results. Each source has a folder in it.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and everything else on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.", callback=_remember)]
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
        help="A list with the columns url, caption and label. Default: that of the source file.",
        metavar="FILE",
    ),
]
