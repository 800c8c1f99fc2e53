"""A team's Prefect server: register deployments for the workers of a pool."""

from typing import Annotated

import typer

from flows.commands.options import DATA, Debug, Root
from flows.commands.printing import echo
from pipeline.errors import WinnowError

commands = typer.Typer()


@commands.command("deploy", epilog="Example: `winnow deploy cc3m --root s3://bucket/results`")
def register_deployments(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Source files, or names in data_manifests/. Default: all.", metavar="[SOURCE]..."),
    ] = None,
    pool: Annotated[str, typer.Option(help="The work pool. It is created if it does not exist.", metavar="NAME")] = (
        "winnow"
    ),
    kind: Annotated[
        str, typer.Option("--type", help="The type of a pool that is created: process, docker, kubernetes ...")
    ] = "process",
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Register sources as deployments on the Prefect server of PREFECT_API_URL, for workers of a pool to run.

    Registers `curate/NAME` for each source with its schedule, `retrain/on-manifest`, `reconcile/hourly`, and
    automations that run dead runs again. Safe to repeat. Workers start in the same folder, with
    `prefect worker start --pool winnow`.
    """
    from flows import server

    if server.find(debug) is None:
        raise WinnowError(
            "no Prefect server answers: start one with `prefect server start`, or name it in PREFECT_API_URL"
        )
    from flows import register
    from pipeline.sources import loading

    files = [loading.find(name) for name in sources] if sources else None
    register.register(root, pool, kind, files, lambda line: echo(line, to_stderr=False))
