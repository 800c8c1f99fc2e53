"""Prefect servers: the one that runs on this machine, or one that runs only as long as a command."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import FrameType
from typing import Literal

import httpx

from flows import access
from pipeline.errors import WinnowError
from pipeline.process import lifeline

HOST, PORT = "127.0.0.1", 4200
START_SECONDS = 180
"""A server's first start creates its database: 12 s on an idle machine, several times that on a busy one."""

ENDING_SECONDS = 10
"""How long a command may take to end after Ctrl-C if the server is gone."""

SEND_SECONDS = 30
"""How long a command waits for its events and logs to be sent."""


def url(port: int = PORT) -> str:
    """The API of a server on this machine."""
    return f"http://{HOST}:{port}/api"


class State(Enum):
    """What a request to an address finds there."""

    SILENT = "nothing answers"
    OTHER = "what answers is not Prefect's API"
    LOCKED = "it asks for a secret that this folder does not have"
    READY = "it accepts this folder's secret"
    OPEN = "it asks for no secret"


UNPROTECTED = (
    "it asks for no secret, so any page in a browser here and any user of this machine can run commands through it"
)
"""What is wrong with a server that was started elsewhere without authentication."""

_WAYS_OUT = {
    State.LOCKED: "set PREFECT_API_AUTH_STRING, or work in the folder where `winnow serve` runs",
    State.OTHER: "an API ends in /api, as in http://127.0.0.1:4200/api",
}


def state(api: str) -> State:
    """Whether a Prefect server answers at this address, and whether it accepts this process."""
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
    answer = httpx.post(f"{api}/flows/filter", json={"limit": 1}, headers=credentials, timeout=5, trust_env=False)
    return answer.is_success


def answers(api: str) -> bool:
    """Whether a Prefect server answers there and accepts this process."""
    return state(api) in (State.READY, State.OPEN)


def find(debug: bool) -> str | None:
    """The API of a running server, by PREFECT_API_URL or on this machine. It is put into the environment, too.

    Raises WinnowError where PREFECT_API_URL names something else, or a server that refuses this process.
    """
    _quieten(debug)
    named = os.environ.get("PREFECT_API_URL")
    api = named.rstrip("/") if named else url()
    seen = state(api)
    if seen in (State.LOCKED, State.OTHER) and named:
        raise WinnowError(f"PREFECT_API_URL is {named}, but {seen.value}: {_WAYS_OUT[seen]}")
    if seen not in (State.READY, State.OPEN):
        return None
    os.environ["PREFECT_API_URL"] = api
    return api


@contextmanager
def connect(debug: bool) -> Iterator[str]:
    """The API that a command uses: that of PREFECT_API_URL, else of a server on this machine, else of a temporary one.

    Puts the API into the environment, so call it before prefect is imported. Without `debug` Prefect logs nothing.
    """
    if api := find(debug):
        with _ending_on_ctrl_c(api):
            yield api
        send_events()
    elif named := os.environ.get("PREFECT_API_URL"):
        raise WinnowError(f"no Prefect server answers at {named}: start it, or unset PREFECT_API_URL")
    else:
        with start(free_port(), "temporary") as api:
            try:
                yield api
            finally:
                send_events()  # what is left would be sent at exit, to a server that is gone


@contextmanager
def _ending_on_ctrl_c(api: str) -> Iterator[None]:
    """After Ctrl-C Prefect tells its server, and tries for minutes if that is gone. Then the process ends without it.

    Nothing is lost: it is as if the process was killed, and the next run resumes.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        threading.Thread(target=_end_without, args=(api,), daemon=True).start()
        signal.default_int_handler(number, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_without(api: str) -> None:
    time.sleep(ENDING_SECONDS)
    if state(api) is State.SILENT:
        line = f"winnow: stopped; Prefect's server at {api} went away; start it, and run the same command to resume\n"
        os.write(2, line.encode())
        os._exit(130)


@contextmanager
def ensure(port: int, debug: bool) -> Iterator[str]:
    """The API of the server on this port. If none answers, one is started, with its pages."""
    _quieten(debug)
    api = url(port)
    seen = state(api)
    if seen in (State.LOCKED, State.OTHER):
        raise WinnowError(f"port {port} is taken, and {seen.value}: stop that program, or choose another --port")
    if seen is State.SILENT:
        secret = access.server_secret()
        with start(port, secret=secret), access.shared(api, secret):
            yield api
    else:
        os.environ["PREFECT_API_URL"] = api
        yield api


@contextmanager
def start(port: int, kind: Literal["temporary", "lasting"] = "lasting", secret: str | None = None) -> Iterator[str]:
    """The API of a new Prefect server on this port. It ends with this process, however this process ends.

    Puts the API and its secret into the environment, so call it before prefect is imported. A temporary server has
    no pages.
    """
    api = os.environ["PREFECT_API_URL"] = url(port)
    os.environ |= access.server_environment(port, secret or access.server_secret())
    command = lifeline.python("flows.server", str(port), kind)
    # A session of its own: Ctrl-C reaches this process first, which still has events and logs for the server.
    server = lifeline.start(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True)
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


def went_away(error: Exception) -> str | None:
    """The line for a request to Prefect's server that found nobody there; None for any other error."""
    api = os.environ.get("PREFECT_API_URL")
    request = getattr(error, "_request", None) if isinstance(error, httpx.TransportError) else None
    if api is None or request is None or not str(request.url).startswith(api):
        return None
    return f"Prefect's server at {api} went away: what is done is stored; start it, and run the same command again"


def send_events() -> None:
    """Wait until the server has all events and logs of this process. Otherwise they are lost when it ends."""
    from prefect.events.worker import EventsWorker

    waiting = threading.Thread(target=EventsWorker.instance().wait_until_empty, daemon=True)
    waiting.start()
    waiting.join(SEND_SECONDS)
    EventsWorker.drain_all(timeout=SEND_SECONDS, at_exit=False)  # logs, too


def _quieten(debug: bool) -> None:
    """Prefect's log would hide the progress bars, and its tracebacks the one line that says what to do.

    What runs log is for Prefect's pages, and is not printed.
    """
    if not debug:
        if "PREFECT_LOGGING_LEVEL" not in os.environ:
            os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
            for of in ("flow_runs", "task_runs"):
                os.environ[f"PREFECT_LOGGING_LOGGERS_PREFECT_{of.upper()}_LEVEL"] = "INFO"
                logging.getLogger(f"prefect.{of}").propagate = False
        for worker in ("EventsWorker", "APILogWorker"):  # their loggers are not below Prefect's
            logging.getLogger(worker).setLevel(logging.CRITICAL)


def free_port() -> int:
    """A free port on loopback."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _serve(port: int, temporary: bool) -> None:
    """Run the server until the process that started it is gone."""
    lifeline.hold()
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")
    os.environ |= {"PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_UI_ENABLED": str(not temporary).lower()}
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=temporary, final=True)
    guarded = access.Guard(app, port)
    uvicorn.run(guarded, host=HOST, port=port, log_level="error", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), temporary=sys.argv[2] == "temporary")
