"""Decoders for bytes from the web, in processes of their own with little memory and little time.

`Decoders` starts `pipeline.images.decode_process`, which keeps a few processes at work and replaces one that a picture
kills. That picture is one failed row.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
from dataclasses import asdict

from pipeline.failure import RowError, parse_row_error
from pipeline.images.decode_process import HEAD, PROCESS, READY, REQUEST, STATUS, receive
from pipeline.images.decoding import Picture
from pipeline.images.limits import Limits
from pipeline.process import confinement, endings, lifeline, unnamed

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
        for _ in range(_TRIES):
            process, head, content = self._ask(data)
            if process:
                break
        else:
            raise RuntimeError("the decoders do not run: run `winnow doctor`")
        if len(head) < HEAD.size or len(content) < HEAD.unpack(head)[1]:
            raise self._explain(process)
        decoded, _, width, height = HEAD.unpack(head)
        if not decoded:
            raise parse_row_error(content.decode()) or AssertionError("it has a cause")
        return Picture(content, width, height)

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
            confinement.environment(),
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

    def _ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        """The process number of the first decoder that is free, and head and content of its reply.

        What a decoder that dies has not sent is missing; all of it, if it had taken no request yet.
        """
        assert self._requests is not None
        with self._requests.connect(REQUEST.pack(len(data))) as wire:
            with contextlib.suppress(ConnectionError):
                wire.sendall(data)
            with contextlib.suppress(ConnectionError):
                start = receive(wire, PROCESS.size + HEAD.size)
                process, head = start[: PROCESS.size], start[PROCESS.size :]
                content = receive(wire, HEAD.unpack(head)[1]) if len(head) == HEAD.size else b""
                return PROCESS.unpack(process)[0] if process else 0, head, content
        return 0, b"", b""

    def _explain(self, decoder: int) -> RowError:
        """Why the decoder died, as the cause of a row."""
        assert self._control is not None
        with self._control.connect(PROCESS.pack(decoder)) as asking:
            status = STATUS.unpack(receive(asking, STATUS.size))[0]
        if status == -signal.SIGPROF:
            return RowError("decode_timeout", f"decoding takes more than {self.limits.seconds:g} s")
        return RowError("decode_crash", f"the decoder died of {endings.name(status)}")
