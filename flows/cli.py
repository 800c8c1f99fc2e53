"""The command line. Heavy libraries are imported inside commands, so that --help answers at once."""

import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from flows.commands import (
    choosing,
    composition,
    curation,
    demo,
    deploying,
    exporting,
    fitting,
    labelling,
    learning,
    machine,
    reading,
    searching,
    sweeping,
    upkeep,
    watching,
    zero_shot,
)
from flows.console import stdout
from pipeline.errors import WinnowError
from pipeline.process import user_code
from pipeline.store.disk import disk_broken


class OneLineErrors(TyperGroup):
    """Prints one line instead of a traceback, unless --debug is given."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Usage errors stay typer's own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _fail("stopped; run the same command to resume", 130)
        except WinnowError as error:
            if ctx.obj:
                raise
            _fail(str(error))
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.obj or hasattr(error, "exit_code"):  # an exit code means wrong usage
                raise
            if broken := disk_broken(error) or _server_went_away(error):
                _fail(broken)
            _fail(f"{type(error).__name__}: {error} (this is a bug in winnow: report it with the output of --debug)")


class OwnOutput(TyperCommand):
    """A command whose answer has stdout to itself. Its help is printed before."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        stdout.reserve()
        return super().invoke(ctx)


def _server_went_away(error: Exception) -> str | None:
    if "prefect" not in sys.modules:
        return None
    from flows import server

    return server.went_away(error)


def _fail(message: str, status: int = 1) -> None:
    line = "".join(each if each.isprintable() else " " for each in message)  # it may contain text from strangers
    typer.echo(f"winnow: {line}", err=True)
    raise typer.Exit(status)


app = typer.Typer(
    cls=OneLineErrors,
    help="Turn a noisy list of (image URL, caption) rows into a training set worth more, and measure by how much.",
    epilog="Start with: `winnow demo`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for each in (
    demo,
    curation,
    upkeep,
    learning,
    exporting,
    fitting,
    sweeping,
    zero_shot,
    composition,
    reading,
    searching,
    choosing,
    labelling,
    watching,
    machine,
    deploying,
):
    for command in each.commands.registered_commands:
        command.cls = OwnOutput
    app.add_typer(each.commands)


def main() -> None:
    """The console script. Exit status 0: done; 1: failed, one line on stderr; 2: wrong usage; 130: Ctrl-C."""
    try:
        if sys.argv[1:2] == ["sql"] and len(sys.argv) > 2 and not {"-h", "--help", "--list"} & set(sys.argv):
            from pipeline.query import sandbox

            sandbox.prepare()
        app()
    except SystemExit as end:
        user_code.end_process(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
