"""Which Prefect server a command talks to: the one that stands, or one that lives only as long as the command."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

import httpx

from flows import access
from pipeline.errors import WinnowError

HOST, PORT = "127.0.0.1", 4200
START_SECONDS = 180
"""A server's first start makes its database: 12 s on an idle machine, a multiple on a busy one."""

SETTLE_SECONDS = 30


def address(port: int = PORT) -> str:
    """The API of a server on this machine."""
    return f"http://{HOST}:{port}/api"


class State(Enum):
    """What a request to an address finds."""

    SILENT = "nothing answers"
    OTHER = "what answers is not Prefect's API"
    LOCKED = "it asks for a secret that this folder does not have"
    READY = "it accepts this folder's secret"
    OPEN = "it asks nobody for a secret"


UNPROTECTED = (
    "it asks nobody for a secret: any page in a browser here, and any user of this machine, can run commands through it"
)
"""What is wrong with a server that somebody else started without authentication."""

_WAYS_OUT = {
    State.LOCKED: "set PREFECT_API_AUTH_STRING, or work in the folder where `winnow serve` runs",
    State.OTHER: "an API ends in /api, as in http://127.0.0.1:4200/api",
}


def state(api: str) -> State:
    """Whether a Prefect server is at this address, and whether it lets this process in."""
    credentials = access.credentials()
    try:
        health = httpx.get(f"{api}/health", timeout=5, trust_env=False)
        if not health.is_success or health.text.strip().lower() != "true":
            return State.OTHER
        if _admits(api, {}):
            return State.OPEN
        return State.READY if credentials and _admits(api, credentials) else State.LOCKED
    except httpx.TransportError:
        return State.SILENT
    except (httpx.HTTPError, httpx.InvalidURL):
        return State.OTHER


def _admits(api: str, credentials: Mapping[str, str]) -> bool:
    asked = httpx.post(f"{api}/flows/filter", json={"limit": 1}, headers=credentials, timeout=5, trust_env=False)
    return asked.is_success


def answers(api: str) -> bool:
    """Whether a Prefect server is there that lets this process in."""
    return state(api) in (State.READY, State.OPEN)


def found(debug: bool) -> str | None:
    """The API of a running server, by PREFECT_API_URL or on this machine. It is put into the environment, too.

    Raises WinnowError where PREFECT_API_URL names something else, or a server that refuses this process.
    """
    _quieten(debug)
    named = os.environ.get("PREFECT_API_URL")
    known = named.rstrip("/") if named else address()
    seen = state(known)
    if seen in (State.LOCKED, State.OTHER) and named:
        raise WinnowError(f"PREFECT_API_URL is {named}, but {seen.value}: {_WAYS_OUT[seen]}")
    if seen not in (State.READY, State.OPEN):
        return None
    os.environ["PREFECT_API_URL"] = known
    return known


@contextmanager
def chosen(debug: bool) -> Iterator[str]:
    """The API to use: of PREFECT_API_URL, else of the server that stands on this machine, else of a temporary one.

    It is put into the environment, so this comes before prefect is imported. Without `debug` Prefect says nothing.
    """
    if known := found(debug):
        yield known
        settle()
    elif named := os.environ.get("PREFECT_API_URL"):
        raise WinnowError(f"no Prefect server answers at {named}: start it, or unset PREFECT_API_URL")
    else:
        with started(free_port(), "temporary") as api:
            yield api
            settle()


@contextmanager
def standing(port: int, debug: bool) -> Iterator[str]:
    """The API of the server that answers on this port; one is started, with its pages, if none does."""
    _quieten(debug)
    api = address(port)
    seen = state(api)
    if seen in (State.LOCKED, State.OTHER):
        raise WinnowError(f"port {port} is taken, and {seen.value}: stop that program, or choose another --port")
    if seen is State.SILENT:
        secret = access.server_secret()
        with started(port, secret=secret), access.shared(api, secret):
            yield api
    else:
        os.environ["PREFECT_API_URL"] = api
        yield api


@contextmanager
def started(port: int, kind: str = "standing", secret: str | None = None) -> Iterator[str]:
    """A Prefect server of our own on this port, gone afterwards however this process ends; its API.

    It and its secret are put into the environment, so this comes before prefect is imported.
    """
    api = os.environ["PREFECT_API_URL"] = address(port)
    os.environ |= access.server_environment(port, secret or access.server_secret())
    command = [sys.executable, "-m", "flows.server", str(port), kind]
    # A session of its own: Ctrl-C reaches this process first, which still has things to say to the server.
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(api):
            if server.poll() is not None:
                raise WinnowError("Prefect's server could not start: `winnow doctor` looks for the cause")
            if time.monotonic() > deadline:
                raise WinnowError(f"Prefect's server did not answer within {START_SECONDS} s: try again, or see doctor")
            time.sleep(0.2)
        yield api
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def settle() -> None:
    """Wait until the server has every event that was emitted here: one that its process takes along is lost."""
    from prefect.events.worker import EventsWorker

    waiting = threading.Thread(target=EventsWorker.instance().wait_until_empty, daemon=True)
    waiting.start()
    waiting.join(SETTLE_SECONDS)
    EventsWorker.drain_all(timeout=SETTLE_SECONDS, at_exit=False)  # logs, too


def _quieten(debug: bool) -> None:
    """Prefect's log would drown the progress bars, and its tracebacks the one line that says what to do."""
    if not debug:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        for worker in ("EventsWorker", "APILogWorker"):  # their loggers are none of Prefect's own
            logging.getLogger(worker).setLevel(logging.CRITICAL)


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _serve(port: int, temporary: bool) -> None:
    """Be the server until stdin ends, which it does when the process at its other end is gone."""
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ |= {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_ENABLED": str(not temporary).lower()}
    threading.Thread(target=_watch, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=temporary, final=True)
    guarded = access.Guard(app, port)
    uvicorn.run(guarded, host=HOST, port=port, log_level="error", timeout_graceful_shutdown=3)


def _watch() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), temporary=sys.argv[2] == "temporary")
