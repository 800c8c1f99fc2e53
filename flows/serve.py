"""`winnow serve`: all deployments on one machine, until Ctrl-C or SIGTERM."""

import asyncio
from collections.abc import Callable
from typing import Any, cast
from uuid import UUID

from prefect.runner import Runner

from flows import deploy, interrupted
from pipeline.process import lifeline
from pipeline.store.places import Place

AT_ONCE = 4
"""Runs of all deployments together."""


class _Runner(Runner):
    """Ends at SIGTERM as at Ctrl-C. Prefect 3.8's own handler leaves runs at work, and prints tracebacks."""

    async def start(self, run_once: bool = False, webserver: bool | None = None) -> None:
        """Work until cancelled."""
        self._loop, self._working = asyncio.get_running_loop(), asyncio.current_task()
        await super().start(run_once, webserver)

    def handle_sigterm(self, *_: Any) -> None:
        """Cancel `start`. SIGINT would not do: a shell's background job ignores it."""
        if self._loop and self._working:
            self._loop.call_soon_threadsafe(self._working.cancel)


def run(root: Place, echo: Callable[[str], None], own: bool) -> None:
    """Serve all deployments until Ctrl-C or SIGTERM, on the API of the environment. `echo` prints a line.

    If the server is this command's `own`, runs that its end interrupts are scheduled again, and so are those that an
    earlier end left unfinished. On another server they may be at work elsewhere.
    """
    served = deploy.deployments(root.resolve(), echo)
    runner = _Runner(pause_on_shutdown=True, limit=AT_ONCE)
    added = []
    for each in served:
        added.append(cast(UUID, runner.add_deployment(each)))
        description = f"   {each.description}" if each.description else ""
        echo(f"  {each.flow_name}/{each.name}{description}")  # it can be run by this name from now on
    if own and (count := interrupted.schedule_again(added)):
        echo(f"{count} runs that were interrupted are resumed")
    lifeline.lead()
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, asyncio.CancelledError):
        echo("stopping")
    finally:
        if own:
            interrupted.schedule_again(added)
