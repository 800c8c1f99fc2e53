"""Nobody is called but whom the source names: each process of a run tells whom it calls, looks up, or listens to."""

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import small

from flows import server

WATCH = """
import json, os, sys
_TOLD = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
         "socket.gethostbyname", "socket.gethostbyaddr")

def _told(event, arguments):
    if event in _TOLD:
        place = arguments[0] if isinstance(arguments[0], (str, bytes, type(None))) else arguments[1]
        port = arguments[1] if event == "socket.getaddrinfo" else None
        host, port = place[:2] if isinstance(place, tuple) else (place, port)
        line = json.dumps([event, str(host), str(port), sys.orig_argv[1:4]]) + "\\n"
        file = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

sys.addaudithook(_told)
"""

COMMANDS = ("funnel", "publish", "diff", "audit", "report")
ALL = """
import sys
from flows.cli import app
toml, root, *commands = sys.argv[1:]
for command in commands:
    app([command, toml, "--root", root, *["--recipe", "everything"] * (command == "publish")], standalone_mode=False)
app(["sql", "select count(*) from rows", "--root", root], standalone_mode=False)
"""


def watched(folder, *words):
    """Run Python with these words. Each of its processes is watched from its start, if it is Python's."""
    here = Path(__file__).parent.parent
    told = {"PYTHONPATH": f"{folder}{os.pathsep}{here}", "WATCHED": str(folder / "watched"), "HOME": str(folder)}
    asked = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        env=asked | told | {"PREFECT_HOME": str(folder / "prefect")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(server.answers(server.address()), reason="a Prefect server stands on this machine")
def test_a_run_calls_the_source_and_its_own_server_and_nobody_else(tmp_path, httpserver_folder):
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    toml, root = small.described(tmp_path / "lists", httpserver_folder), tmp_path / "root"
    watched(tmp_path, "-m", "flows", "curate", toml, "--root", root)
    watched(tmp_path, "-c", ALL, toml, root, *COMMANDS)
    calls = [json.loads(line) for line in (tmp_path / "watched").read_text().splitlines()]

    assert {event for event, *_ in calls} >= {"socket.connect", "socket.bind", "socket.getaddrinfo"}
    for event, host, port, who in calls:
        local = host in ("localhost", "None") or ipaddress.ip_address(host).is_loopback
        assert local, f"{event} {host}:{port} by {who}"

    api = {who[2] for *_, who in calls if who[:2] == ["-m", "flows.server"]}
    source = httpserver_folder[1].rpartition(":")[2]
    reached = {port for event, _, port, _ in calls if event == "socket.connect"}
    assert source in reached
    assert len(api & reached) == 1
    assert reached <= {source, str(server.PORT), *api}
