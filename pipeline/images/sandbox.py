"""Decoders for bytes from the web, in processes of their own with little memory and little time.

`Decoders` starts `pipeline.images.decode_process`, which keeps a few processes at work and replaces one that a picture
kills. That picture is one failed row.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from dataclasses import asdict
from typing import Any

from pipeline.failure import RowError
from pipeline.images.decode_process import PROCESS, READY, REPLY, REQUEST, STATUS, Limits, Picture, receive
from pipeline.process import lifeline, unnamed

_WALL = 5
"""A process is killed from outside after this many times its processor seconds: other processes compute too."""

_TRIES = 10

_START = 60
"""Seconds that the processes may take to start."""


class Decoders:
    """`count` processes, each with one picture at a time. Close it, or use it in a `with`.

    Any thread of this process may call `decode`, and any of the forks that were made after `start`. A picture goes to
    the first process that is free.
    """

    def __init__(self, limits: Limits, count: int = 1) -> None:
        self.limits, self._count = limits, count
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: unnamed.Caller | None = None
        self._control: unnamed.Caller | None = None

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, data: bytes) -> Picture:
        """Raises RowError: undecodable, too_many_pixels, decode_timeout or decode_crash."""
        if self._requests is None:
            self.start()
        wire, decoder = self._free()
        with wire:
            try:
                wire.settimeout(self.limits.seconds * _WALL)
                wire.sendall(REQUEST.pack(len(data)))
                wire.sendall(data)
                head, jpeg = self._reply(wire, time.monotonic() + self.limits.seconds * _WALL)
            except OSError as error:
                raise self._explain(decoder, error) from error
        if head["cause"]:
            raise RowError(head["cause"], head["error"])
        return Picture(jpeg, head["width"], head["height"])

    def start(self) -> None:
        """Start the processes, unless they run. Raises RuntimeError if they do not start."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._start()

    def close(self) -> None:
        """End the processes. The next `decode` starts others."""
        with self._lock:
            self._end()

    @property
    def pid(self) -> int | None:
        """Of the process that forks them, which leads their process group; None if there is none."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        self._requests, requests = unnamed.pair()
        self._control, control = unnamed.pair()
        ends = [requests.fileno(), control.fileno()]
        self._process = lifeline.start(
            lifeline.python(
                "pipeline.images.decode_process", json.dumps(asdict(self.limits)), str(self._count), *map(str, ends)
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libtiff writes hundreds of lines
            pass_fds=ends,
            start_new_session=True,  # its own process group, which is killed together and does not see Ctrl-C
        )
        requests.close()
        control.close()
        assert self._process.stdout is not None
        with self._process.stdout as ready:
            started = select.select([ready], [], [], _START)[0] and ready.read(1) == READY
        if not started:
            self._end()
            raise RuntimeError("the decoders do not start: run `winnow doctor`")

    def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for end in (self._requests, self._control):
            if end is not None:
                end.close()
        self._process = self._requests = self._control = None

    def _free(self) -> tuple[socket.socket, int]:
        """A connection to the first decoder that is free, and its process number."""
        assert self._requests is not None
        for _ in range(_TRIES):
            with contextlib.ExitStack() as held:
                wire = held.enter_context(self._requests.connect())
                with contextlib.suppress(ConnectionError):  # it died while it had nothing to do
                    decoder = PROCESS.unpack(receive(wire, PROCESS.size))[0]
                    held.pop_all()
                    return wire, decoder
        raise RuntimeError("the decoders do not run: run `winnow doctor`")

    def _reply(self, wire: socket.socket, deadline: float) -> tuple[dict[str, Any], bytes]:
        sizes = REPLY.unpack(receive(wire, REPLY.size, deadline))
        head, jpeg = (receive(wire, size, deadline) for size in sizes)
        return json.loads(head), jpeg

    def _explain(self, decoder: int, error: OSError) -> RowError:
        """Why the process failed, as the cause of a row. Ends the process."""
        assert self._control is not None
        with self._control.connect(PROCESS.pack(decoder)) as asking:
            status = STATUS.unpack(receive(asking, STATUS.size))[0]
        if isinstance(error, TimeoutError) or status == -signal.SIGPROF:
            return RowError("decode_timeout", f"decoding takes more than {self.limits.seconds:g} s")
        return RowError("decode_crash", f"the decoder died of {_status_name(status)}")


def _status_name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
