"""Whom a program calls: a hook of Python's audit events in each of its processes, from their start.

On Linux with a C compiler a library before the C library tells the same of what is no Python.
"""

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HOOK = """
import json, os, sys
_TOLD = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
         "socket.gethostbyname", "socket.gethostbyaddr")

def _told(event, arguments):
    if event in _TOLD:
        place = arguments[0] if isinstance(arguments[0], (str, bytes, type(None))) else arguments[1]
        if not isinstance(place, tuple) and event in ("socket.connect", "socket.bind"):
            return  # a socket of this machine's file system
        port = arguments[1] if event == "socket.getaddrinfo" else None
        host, port = place[:2] if isinstance(place, tuple) else (place, port)
        line = json.dumps([event, str(host), str(port), sys.orig_argv[1:5]]) + "\\n"
        file = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())
        os.close(file)

sys.addaudithook(_told)
"""

NATIVE = sys.platform.startswith("linux") and shutil.which("cc") is not None

SHY = (
    *("CI", "GITHUB_ACTIONS", "DO_NOT_TRACK", "NO_ALBUMENTATIONS_UPDATE", "ORT_DISABLE_TELEMETRY"),
    "PREFECT_SERVER_ANALYTICS_ENABLED",
)
"""Variables that would keep others quiet where winnow does not."""


def environment(folder: Path) -> dict[str, str]:
    """What a program's processes need to be watched; the folder takes what they do."""
    (folder / "sitecustomize.py").write_text(HOOK)
    told = {"WATCHED": str(folder / "watched")}
    if NATIVE:
        code, library = Path(__file__).with_suffix(".c"), str(folder / "watched.so")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, str(code), "-ldl"], check=True)
        told["LD_PRELOAD"] = library
    paths = [str(folder), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    kept = {name: value for name, value in os.environ.items() if name not in SHY}
    return kept | told | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def calls(folder: Path) -> list[list]:
    """[event, host, port, the first words of the process] of each call."""
    return [json.loads(line) for line in (folder / "watched").read_text().splitlines()]


def away(told: list[list]) -> list[list]:
    """The calls that leave this machine, or let others in."""
    return [call for call in told if not _local(call[1])]


def _local(host: str) -> bool:
    return host in ("localhost", "None") or ipaddress.ip_address(host).is_loopback
