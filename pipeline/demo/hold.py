"""The client of the demo's server: it starts the server, or shares one that runs, and releases it afterwards."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.demo.web import HOST
from pipeline.errors import SourceError
from pipeline.process import lifeline

_START = 15.0  # seconds for a server to start
_STOP = 3.0  # seconds for the server of another world to stop after its last run


@contextlib.contextmanager
def hold(folder: Path, port: int, key: str) -> Iterator[None]:
    """Serve the world in `folder` on loopback meanwhile. Raises SourceError if something else has the port."""
    process: subprocess.Popen[bytes] | None = None
    begun = time.monotonic()
    try:
        while True:
            connection, answer = _ask(port)
            if answer == key.encode():
                break
            connection.close()
            waited = time.monotonic() - begun
            if answer is not None and waited > _STOP:
                raise SourceError(_taken(port, answer))
            if answer is None and (process is None or process.poll() is not None):
                if waited > _START:
                    raise SourceError(f"the demo's server on port {port} does not start: set another [demo] port")
                words = lifeline.python("pipeline.demo.web", str(folder), str(port), key)
                # A session of its own: Ctrl-C in one terminal must not end the server that another run shares.
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )  # fmt: skip
            time.sleep(0.05)
        with connection:
            yield
    finally:
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # another run still holds it
                process.wait(1)


def _taken(port: int, answer: bytes) -> str:
    who = "another demo world" if len(answer) == 8 and answer.isalnum() else "another program"
    return f"port {port} is taken by {who}: stop it, or set [demo] port to a free one"


def _ask(port: int) -> tuple[socket.socket, bytes | None]:
    """A connection that holds the server, and the key of its world; None without a server, b"" for another program."""
    connection = socket.socket()
    connection.settimeout(5)
    try:
        connection.connect((HOST, port))
    except OSError:
        return connection, None
    try:
        connection.sendall(b"GET /winnow-demo/hold HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as file:
            head = [file.readline(1000) for _ in range(5)]
            while head[-1].strip():
                head = [file.readline(1000)]
            return connection, file.read(8)
    except OSError:
        return connection, b""
