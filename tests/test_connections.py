"""Nobody is called but whom the source names: each process of a run tells whom it calls, looks up, or listens to."""

import subprocess
import sys

import network_watch
import pytest
import served_sources

from flows import server

COMMANDS = ("funnel", "publish", "diff", "audit", "report", "doctor")
ALL = """
import sys
from flows.cli import app
toml, root, *commands = sys.argv[1:]
for command in commands:
    asked = [] if command == "doctor" else [toml]
    recipe = ["--recipe", "everything"] if command == "publish" else []
    app([command, *asked, "--root", root, *recipe], standalone_mode=False)
app(["sql", "select count(*) from rows", "--root", root], standalone_mode=False)
"""


def run(folder, *words):
    """Run Python with these words, in a folder without settings of Prefect's."""
    told = {name: value for name, value in network_watch.environment(folder).items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=told | {"PREFECT_HOME": str(folder / "prefect"), "HOME": str(folder)},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(server.answers(server.url()), reason="a Prefect server stands on this machine")
def test_a_run_calls_the_source_and_its_own_server_and_nobody_else(tmp_path, httpserver_folder):
    toml, root = served_sources.described(tmp_path / "lists", httpserver_folder), tmp_path / "root"
    run(tmp_path, "-m", "flows", "curate", toml, "--root", root)
    run(tmp_path, "-c", ALL, toml, root, *COMMANDS)
    calls = network_watch.calls(tmp_path)

    seen = {"socket.connect", "socket.bind", "socket.getaddrinfo"} | (
        {"connect", "bind"} if network_watch.NATIVE else set()
    )
    assert {event for event, *_ in calls} >= seen
    assert network_watch.away(calls) == []

    api = {who[who.index("flows.server") + 1] for *_, who in calls if "flows.server" in who}
    source = httpserver_folder[1].rpartition(":")[2]
    reached = {port for event, _, port, _ in calls if event in ("socket.connect", "connect")}
    assert source in reached
    assert len(api & reached) == 1
    assert reached <= {source, str(server.PORT), *api}
