"""This machine: its deployments, its speed, and what it lacks."""

import itertools
from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root
from flows.commands.printing import echo, print_json

commands = typer.Typer()


class Precision(StrEnum):
    """The floating-point type of a model; auto is bfloat16 where the processor has it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Decoder(StrEnum):
    """The library that decodes and resizes stored pictures."""

    pillow = "pillow"
    simd = "pillow-simd"
    torchvision = "torchvision"


@commands.command(
    "serve", epilog="Example: `winnow serve`, and in another terminal `prefect deployment run curate/demo`"
)
def serve_deployments(
    port: Annotated[int, typer.Option(help="The port of Prefect's server on this machine.", min=1, max=65535)] = 4200,
    root: Root = DATA,
    debug: Debug = False,
) -> None:
    """Serve every source file as a Prefect deployment with its schedule. New manifests start retraining automatically.

    Starts a Prefect server on this machine if none answers, and stops it at the end. Ctrl-C stops it. The server asks
    for a random secret. While it runs, prefect.toml in this folder holds the secret, for the `prefect` command and for
    you: the server's pages ask for it.
    """
    from flows import server

    own = server.state(server.url(port)) is server.State.SILENT
    with server.ensure(port, debug) as api:
        from flows import serve

        echo(f"Prefect answers on {api.removesuffix('/api')}", to_stderr=False)
        if server.state(api) is server.State.OPEN:
            echo(f"warning: {server.UNPROTECTED}: docs/schedule.md", to_stderr=False)
        else:
            echo("its pages ask for the auth_string in prefect.toml", to_stderr=False)
        serve.run(root, lambda line: echo(line, to_stderr=False), own)


@commands.command("bench", epilog="Example: `winnow bench --model ViT-B-32 --pairs 500`")
def measure_speed(
    model: Annotated[str, typer.Option(help="An open_clip model. Its weights are random.")] = "ViT-B-32",
    precision: Annotated[Precision, typer.Option(help="Of the weights and the passes.")] = Precision.auto,
    pairs: Annotated[int, typer.Option(help="Pairs to score in each repeat.", min=64)] = 500,
    side: Annotated[int, typer.Option(help="Pixels of the pictures' shorter side.", min=32, max=4096)] = 224,
    decoder: Annotated[Decoder, typer.Option(help="The decoder of the pictures.")] = Decoder.pillow,
    batch: Annotated[
        int | None,
        typer.Option(help="Pictures or captions in one pass. Default: chosen automatically.", min=1, max=4096),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Repeats. Figures are medians of them.", min=1)] = 5,
    choose: Annotated[
        bool, typer.Option("--choose", help="Measure a funnel and a selection instead, compared with masks in pandas.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of the manifest that --choose generates.", min=1)] = 1_000_000,
    download: Annotated[
        bool,
        typer.Option("--download", help="Measure downloads from a server on loopback instead, beside img2dataset's."),
    ] = False,
    pictures: Annotated[int, typer.Option(help="Pictures that --download fetches in each repeat.", min=64)] = 4_000,
    delay: Annotated[
        float, typer.Option(help="Milliseconds that the server of --download waits before each response.", min=0)
    ] = 0.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure how fast this machine scores pairs, compared with the model alone and with a simple loop.

    It generates everything: no network, no data, no weights. Takes some minutes on a processor. With --choose it
    measures how fast six filters count and select --rows published rows, compared with masks in pandas. With --download
    it measures how fast --pictures are fetched, decoded and stored, compared with img2dataset and with one core.
    """
    if choose and download:
        raise typer.BadParameter("take one of --choose and --download")
    from flows.console import bench
    from flows.console.output import show

    def progress(line: str) -> None:
        echo(line, to_stderr=True)

    if choose:
        from pipeline.bench import choosing

        found = choosing.run(rows, repeats, tell=progress)
        show(bench.choosing(found), as_json)
    elif download:
        from pipeline.bench import downloading

        found = downloading.run(downloading.Workload(pictures, delay=delay / 1000, repeats=repeats), tell=progress)
        show(bench.downloading(found), as_json)
    else:
        from pipeline.bench import scoring

        workload = scoring.Workload(model, precision.value, pairs, side, decoder.value, batch, repeats)
        found = scoring.run(workload, tell=progress)
        show(bench.scoring(found), as_json)
    print_json(as_json, found)


@commands.command("doctor", epilog="Example: `winnow doctor`")
def check_machine(
    deep: Annotated[bool, typer.Option("--deep", help="Read all results, and find damaged ones.")] = False,
    root: Root = DATA,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Look for what is missing or wrong on this machine, and print the commands that fix it."""
    from flows import doctor

    findings = []
    for finding in itertools.chain(doctor.examine(root), doctor.stored(root) if deep else ()):
        findings.append(finding)
        echo(f"{finding.state:>5}  {finding.what}: {finding.found}", as_json)
        if finding.fix:
            echo(f"       {finding.fix}", as_json)
    rows = [{"what": each.what, "state": each.state, "found": each.found, "mend": each.fix} for each in findings]
    print_json(as_json, {"findings": rows})
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
