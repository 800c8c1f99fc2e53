"""What this machine does, and what it lacks."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from flows.commands.options import DATA, AsJson, Debug, Root, finish, say

commands = typer.Typer()


class Precision(StrEnum):
    """What a model computes in; auto is bfloat16 where the processor has it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class Decoder(StrEnum):
    """What decodes and resizes stored pictures."""

    pillow = "pillow"
    simd = "pillow-simd"
    torchvision = "torchvision"


@commands.command(epilog="Example: `winnow bench --model ViT-B-32 --pairs 500`, or `winnow bench --choose`")
def bench(
    model: Annotated[str, typer.Option(help="A name of open_clip's; its weights are random.")] = "ViT-B-32",
    precision: Annotated[Precision, typer.Option(help="Of the weights and the passes.")] = Precision.auto,
    pairs: Annotated[int, typer.Option(help="Pairs that are scored in a repeat.", min=64)] = 500,
    side: Annotated[int, typer.Option(help="Pixels of the pictures' shorter side.", min=32, max=4096)] = 224,
    decoder: Annotated[Decoder, typer.Option(help="Of the pictures.")] = Decoder.pillow,
    batch: Annotated[
        int | None, typer.Option(help="Pictures or captions of one pass; found by itself if unset.", min=1, max=4096)
    ] = None,
    repeats: Annotated[int, typer.Option(help="Figures are medians of so many.", min=1)] = 5,
    choose: Annotated[
        bool, typer.Option("--choose", help="Measure a funnel and a selection instead, beside masks in pandas.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of the manifest that --choose makes up.", min=1)] = 1_000_000,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure how fast this machine scores pairs, beside what it could do and beside the loop that people write.

    Everything is made here: no network, no data, no weights. On a processor it takes some minutes. With --choose: how
    fast six filters count and select --rows published rows, beside the same filters as masks in pandas.
    """
    from flows.console import tables

    if choose:
        from pipeline.bench import choosing

        found = choosing.run(rows, repeats, tell=lambda line: say(line, to_stderr=True))
        tables.show(tables.choosing(found), as_json)
    else:
        from pipeline.bench import scoring as measured

        workload = measured.Workload(model, precision.value, pairs, side, decoder.value, batch, repeats)
        found = measured.run(workload, tell=lambda line: say(line, to_stderr=True))
        tables.show(tables.bench(found), as_json)
    finish(as_json, found)


@commands.command(epilog="Example: `winnow doctor`")
def doctor(root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """Look for what is missing or wrong on this machine, and print the command that mends it."""
    from flows.commands import examination as machine

    findings = []
    for finding in machine.examine(root):
        findings.append(finding)
        say(f"{finding.state:>5}  {finding.what}: {finding.found}", as_json)
        if finding.mend:
            say(f"       {finding.mend}", as_json)
    finish(as_json, {"findings": [asdict(finding) for finding in findings]})
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
