"""A decoder for bytes from the web, in a process of its own with little memory and little time.

A `Decoder` starts `pipeline.images.decode_process`, sends it pictures, and restarts it when a picture kills it. That
picture is one failed row.
"""

import contextlib
import json
import signal
import socket
import subprocess
import threading
import time
from dataclasses import asdict
from typing import Any

from pipeline.failure import RowError
from pipeline.images.decode_process import READY, REPLY, REQUEST, Limits, Picture, receive
from pipeline.process import lifeline

_WALL = 5
"""The process is killed from outside after this many times its processor seconds: other processes compute too."""


class Decoder:
    """Decodes one picture at a time, for any thread. Close it, or use it in a `with`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, data: bytes) -> Picture:
        """Raises RowError: undecodable, too_many_pixels, decode_timeout or decode_crash."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._wire is not None
            try:
                self._wire.settimeout(self.limits.seconds * _WALL)
                self._wire.sendall(REQUEST.pack(len(data)) + data)
                head, jpeg = self._reply(time.monotonic() + self.limits.seconds * _WALL)
            except OSError as error:
                raise self._explain(error) from error
        if head["cause"]:
            raise RowError(head["cause"], head["error"])
        return Picture(jpeg, head["width"], head["height"])

    def close(self) -> None:
        """End the process. The next `decode` starts another."""
        if self._wire is not None:
            self._wire.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._wire = self._process = None

    @property
    def pid(self) -> int | None:
        """Of the current process; None if there is none."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        self.close()
        self._wire, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                lifeline.python("pipeline.images.decode_process", json.dumps(asdict(self.limits))),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff writes hundreds of lines
            )
        self._wire.settimeout(60)
        if self._wire.recv(1) != READY:
            raise RuntimeError("the decoder does not start: run `winnow doctor`")

    def _reply(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        assert self._wire is not None
        sizes = REPLY.unpack(receive(self._wire, REPLY.size, deadline))
        head, jpeg = (receive(self._wire, size, deadline) for size in sizes)
        return json.loads(head), jpeg

    def _explain(self, error: OSError) -> RowError:
        """Why the process failed, as the cause of a row. Ends the process."""
        assert self._process is not None
        if isinstance(error, TimeoutError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.poll()
        self.close()
        if isinstance(error, TimeoutError) or status == -signal.SIGPROF:
            return RowError("decode_timeout", f"decoding takes more than {self.limits.seconds:g} s")
        return RowError("decode_crash", f"the decoder died of {_status_name(status)}")


def _status_name(status: int | None) -> str:
    return signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"
