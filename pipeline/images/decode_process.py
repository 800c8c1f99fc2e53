"""The processes that decode: bytes from the web into a clean JPEG, with little memory and little time.

`python -m pipeline.images.decode_process LIMITS COUNT REQUESTS CONTROL` runs them; the last two are inherited
descriptors (`pipeline.process.unnamed`). It imports Pillow and a few small modules, so it starts in a tenth of a
second, and forks COUNT decoders. When one dies it forks another. `pipeline.images.sandbox` starts it.

A decoder takes one connection at a time, whose first message is the size of a file. It sends its process number, reads
the file, and sends a head and a JPEG, or a head, a cause and the words of an error. The first message of a connection
to CONTROL is the number of a decoder that has died. The reply is the status that it died with.
"""

import contextlib
import json
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import NoReturn

from PIL import Image

from pipeline.images import decoding
from pipeline.images.limits import WALL, Limits
from pipeline.process import lifeline
from pipeline.process.endings import Endings
from pipeline.process.unnamed import Acceptor

PROCESS = struct.Struct(">I")
REQUEST = struct.Struct(">Q")
HEAD = struct.Struct(">?QII")
"""Of a reply: whether a JPEG follows, the bytes of what follows, and width and height of the picture."""
STATUS = struct.Struct(">i")
CLOCK = struct.Struct("d")

READY = b"+"
"""Printed once, when requests can be sent."""


def receive(wire: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the other side ends before."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest and (count := wire.recv_into(rest, len(rest), socket.MSG_WAITALL)):
        rest = rest[count:]
    return bytes(data[: size - len(rest)])


_End = Endings | Acceptor


def _hide(limits: Limits) -> decoding.Hide:
    if not limits.blur_faces:
        return lambda picture: picture
    from pipeline.images.face_blur import FaceBlur

    return FaceBlur()


class Supervisor:
    """Keeps `count` decoders at work, and kills those that take too long."""

    def __init__(self, limits: Limits, count: int, requests: Acceptor, control: Acceptor) -> None:
        self._limits, self._requests, self._control = limits, requests, control
        self._hide = _hide(limits)
        self._began = memoryview(mmap.mmap(-1, CLOCK.size * count))
        self._decoders: dict[int, int] = {}
        self._died: dict[int, int] = {}
        self._endings = Endings()
        for place in range(count):
            self._fork(place)

    def run(self) -> NoReturn:
        """Replace decoders that died, and answer questions about them, until this process is killed."""
        wall = WALL * self._limits.seconds
        ends: tuple[_End, ...] = (self._endings, self._control)
        while True:
            readable, _, _ = select.select(ends, [], [], wall / 4)
            self._kill_late(wall)
            if self._endings in readable:
                self._endings.clear()
                for decoder in tuple(self._decoders):
                    self._reap(decoder, os.WNOHANG)
            if self._control in readable:
                message, asking = self._control.accept()
                decoder = PROCESS.unpack(message)[0]
                if decoder in self._decoders:
                    self._reap(decoder, 0)
                with asking, contextlib.suppress(OSError):
                    asking.sendall(STATUS.pack(self._died.pop(decoder, 0)))

    def _fork(self, place: int) -> None:
        began = self._began[place * CLOCK.size : (place + 1) * CLOCK.size]
        CLOCK.pack_into(began, 0, 0.0)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                self._endings.leave()
                self._control.close()
                _serve(self._requests, self._limits, self._hide, began)
            os._exit(1)
        self._decoders[child] = place

    def _kill_late(self, wall: float) -> None:
        for decoder, place in self._decoders.items():
            began = CLOCK.unpack_from(self._began, place * CLOCK.size)[0]
            if began and time.monotonic() - began > wall:
                os.kill(decoder, signal.SIGPROF)  # as at the limit of processor time

    def _reap(self, decoder: int, options: int) -> None:
        """Replace a decoder that died."""
        done, status = os.waitpid(decoder, options)
        if done:
            self._died[decoder] = os.waitstatus_to_exitcode(status)
            self._fork(self._decoders.pop(decoder))


def _serve(requests: Acceptor, limits: Limits, hide: decoding.Hide, began: memoryview) -> None:
    """Answer requests until this process is killed. A client that has ended costs nothing."""
    while True:
        message, wire = requests.accept()
        with wire, contextlib.suppress(ConnectionError):
            wire.sendall(PROCESS.pack(os.getpid()))
            size = REQUEST.unpack(message)[0]
            data = receive(wire, size)
            if len(data) < size:
                continue
            CLOCK.pack_into(began, 0, time.monotonic())
            # Processor time, not the clock: the load of the machine must not decide about a row. The signal kills.
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            reply = _reply(data, limits, hide)
            signal.setitimer(signal.ITIMER_PROF, 0)
            CLOCK.pack_into(began, 0, 0.0)
            wire.sendall(reply)


def _reply(data: bytes, limits: Limits, hide: decoding.Hide) -> bytes:
    try:
        picture = decoding.decode(data, limits, hide)
    except Image.DecompressionBombError:
        return _refusal("too_many_pixels", f"more than {limits.max_pixels} pixels")
    except Exception as error:  # noqa: BLE001 - Pillow raises dozens of classes
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _refusal("undecodable", words.split(" <_io.")[0])  # without the address of an object
    return HEAD.pack(True, len(picture.jpeg), picture.width, picture.height) + picture.jpeg


def _refusal(cause: str, error: str) -> bytes:
    words = f"{cause}: {error}".encode(errors="replace")
    return HEAD.pack(False, len(words), 0, 0) + words


def _confine(limits: Limits) -> None:
    decoding.prepare(limits)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit: only max_pixels bounds the memory there
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))


def main(limits: Limits, count: int, requests: int, control: int) -> NoReturn:
    """Confine this process and run decoders."""
    lifeline.hold()
    _confine(limits)
    supervisor = Supervisor(limits, count, Acceptor.of(requests), Acceptor.of(control))
    os.write(1, READY)
    supervisor.run()


if __name__ == "__main__":
    main(Limits(**json.loads(sys.argv[1])), *map(int, sys.argv[2:]))
