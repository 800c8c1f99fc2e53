"""The demo."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.options import DATA, AsJson, Debug, Root
from flows.commands.printing import count_caught, echo, print_json, print_manifest

if TYPE_CHECKING:
    from pipeline.store.places import Place

commands = typer.Typer()


@commands.command("demo", epilog="Example: `winnow demo`")
def run_demo(root: Root = DATA, as_json: AsJson = False, debug: Debug = False) -> None:
    """Run the whole job on a small rendered world: download, score, filter, publish, train, report. Needs no network.

    `winnow caught demo` shows afterwards which planted faults the filters caught.
    """
    from flows import server, sources
    from flows.console import gain
    from flows.console.output import show
    from pipeline.ledger import checking

    described = checking.check("demo")
    with server.connect(debug):
        from flows.curate import curate
        from flows.retrain import retrain

        published = curate("demo", str(root))
        measured = retrain("demo", str(root), published["id"])
    report = root / described.name / "report.html"
    print_manifest(described, root, published, as_json)
    echo("", as_json)
    show(gain.brief(measured), as_json)
    echo(f"\nThe report: {report}\nNext:", as_json)
    for line in _next(root):
        echo(f"  {line}", as_json)
    caught = count_caught(described, sources.load("demo", root)[1], None, published["id"])
    more = {"source": "demo", "gain": measured, "caught": caught, "report": str(report)}
    print_json(as_json, published | more)


def _next(root: "Place") -> Iterator[str]:
    """Commands to type after the demo. Each works in the folder where the demo was typed."""
    winnow = _installed("winnow")
    option = "" if root == DATA else f" --root {shlex.quote(str(root))}"
    yield f"{winnow} sql @link-rot --source demo{option}"
    yield f"{winnow} funnel demo --recipe demo --recipe clip-top30{option}"
    yield f"{winnow} caught demo{option}"
    yield f"{winnow} train demo{option}"
    yield f"{winnow} explore demo{option}"


def _installed(program: str) -> str:
    """The program as it can be typed here. If its environment is not activated, this is a path."""
    path = Path(sys.prefix, "bin", program)
    return program if shutil.which(program) or not path.exists() else shlex.quote(os.path.relpath(path))
