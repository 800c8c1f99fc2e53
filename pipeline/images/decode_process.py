"""The processes that decode: bytes from the web into a clean JPEG, with little memory and little time.

`python -m pipeline.images.decode_process LIMITS COUNT REQUESTS CONTROL` runs them; the last two are inherited
descriptors (`pipeline.process.unnamed`). It imports Pillow and a few small modules, so it starts in a tenth of a second,
and forks COUNT decoders. When one dies it forks another. `pipeline.images.sandbox` starts it and sends pictures.

A decoder takes one connection at a time. It sends its process number, reads the size of a file and the file, and sends
two sizes, a JSON head and a JPEG. A connection to CONTROL kills the decoder that the first message names and gets the
status that it died with.
"""

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NoReturn

from PIL import AvifImagePlugin, Image, PngImagePlugin

from pipeline.images import colours, grey
from pipeline.process import lifeline
from pipeline.process.unnamed import Acceptor

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "ICO", "PPM")
"""The formats that are decoded. No EPS (it starts Ghostscript), no JPEG 2000, none that browsers never showed."""

PROCESS = struct.Struct(">I")
REQUEST = struct.Struct(">Q")
REPLY = struct.Struct(">II")
STATUS = struct.Struct(">i")
READY = b"+"
"""Printed once, when requests can be sent."""

Resample = Literal["hamming", "lanczos"]
"""How a picture becomes smaller, in the words of Pillow."""

MAX_SIDE = 65_500
"""px of a JPEG, as libjpeg writes it."""

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_NOISE = bytes(number * 97 % 251 for number in range(1, 200))

_TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> PIL.Image.Transpose. From 5 on, width and height change places."""


@dataclass(frozen=True)
class Limits:
    """What a picture may cost, and what is made of it.

    `image_size`: px of the shorter side at most. `quality`: of the JPEG. `seconds` of processor time and `memory` in
    bytes are for a process.
    """

    image_size: int
    quality: int
    max_pixels: int
    resample: Resample = "hamming"
    seconds: float = 2
    memory: int = 1 << 30


@dataclass(frozen=True)
class Picture:
    """`jpeg` is RGB without metadata; width and height are the original's, upright."""

    jpeg: bytes
    width: int
    height: int


def receive(wire: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """So many bytes. Raises TimeoutError at the deadline, ConnectionError if the other side is gone."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        if deadline is not None:
            wire.settimeout(max(0.001, deadline - time.monotonic()))
        count = wire.recv_into(rest)
        if not count:
            raise ConnectionResetError
        rest = rest[count:]
    return bytes(data)


class Supervisor:
    """Keeps `count` decoders running."""

    def __init__(self, limits: Limits, count: int, requests: Acceptor, control: Acceptor) -> None:
        self._limits, self._requests, self._control = limits, requests, control
        self._decoders: set[int] = set()
        self._died: dict[int, int] = {}
        self._woken, self._alarm = socket.socketpair()
        for end in (self._woken, self._alarm):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)
        for _ in range(count):
            self._fork()

    def run(self) -> NoReturn:
        """Replace decoders that died, and answer questions about them, until this process is killed."""
        while True:
            readable, _, _ = select.select([self._woken, self._control], [], [])
            if self._woken in readable:
                self._woken.recv(1 << 10)
                self._reap()
            if self._control in readable:
                message, asking = self._control.accept()
                with asking, contextlib.suppress(OSError):
                    asking.sendall(STATUS.pack(self._end(PROCESS.unpack(message)[0])))

    def _fork(self) -> None:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (self._woken, self._alarm, self._control):
                    end.close()
                _serve(self._requests, self._limits)
            os._exit(1)
        self._decoders.add(child)

    def _reap(self, block: int | None = None) -> None:
        """Replace those that died; wait for the one of that number."""
        for decoder in [block] if block else tuple(self._decoders):
            done, status = os.waitpid(decoder, 0 if block else os.WNOHANG)
            if done:
                self._decoders.remove(decoder)
                self._died[decoder] = os.waitstatus_to_exitcode(status)
                self._fork()

    def _end(self, decoder: int) -> int:
        """Kill a decoder unless it is dead. The status that it died with."""
        if decoder in self._decoders:
            os.kill(decoder, signal.SIGKILL)
            self._reap(decoder)
        return self._died.pop(decoder, 0)


def _serve(requests: Acceptor, limits: Limits) -> None:
    """Answer requests until this process is killed. A client that has ended costs nothing."""
    while True:
        _, wire = requests.accept()
        with wire, contextlib.suppress(ConnectionError):
            wire.sendall(PROCESS.pack(os.getpid()))
            data = receive(wire, REQUEST.unpack(receive(wire, REQUEST.size))[0])
            # Processor time, not the clock: the load of the machine must not decide about a row. The signal kills.
            signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            head, jpeg = _outcome(data, limits)
            signal.setitimer(signal.ITIMER_PROF, 0)
            text = json.dumps(head).encode()
            wire.sendall(REPLY.pack(len(text), len(jpeg)) + text + jpeg)


def _outcome(data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    try:
        picture = _whole_picture(data, limits)
    except Image.DecompressionBombError:
        return {"cause": "too_many_pixels", "error": f"more than {limits.max_pixels} pixels"}, b""
    except Exception as error:  # noqa: BLE001 - Pillow raises dozens of classes
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"cause": "undecodable", "error": words.split(" <_io.")[0]}, b""  # without the address of an object
    return {"cause": None, "width": picture.width, "height": picture.height}, picture.jpeg


def _whole_picture(data: bytes, limits: Limits) -> Picture:
    """The picture, also of a JPEG that lacks its end marker and no pixel, as browsers show it."""
    try:
        return _picture(data, limits)
    except OSError:
        if not data.startswith(_JPEG_START) or data.endswith(b"\xff") or _last_marker(data) != _JPEG_SCAN:
            raise
        ended, other = (_picture(data + tail + _JPEG_END, limits) for tail in (b"", _NOISE))
        if ended != other:  # what follows is read as pixels: some are missing
            raise
        return ended


def _last_marker(data: bytes) -> bytes:
    """The last marker of a JPEG but those within a scan."""
    markers: list[bytes] = re.findall(rb"\xff[^\x00\xd0-\xd7\xff]", data)
    return markers[-1] if markers else b""


def _picture(data: bytes, limits: Limits) -> Picture:
    """The first frame, upright, on white, no larger than the limits allow."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        scale = min(1.0, limits.image_size / min(width, height), MAX_SIDE / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at about twice the size needed
        image.load()
        plain = _eight_bits(image)
        if plain.size != size:
            plain = plain.resize(size, Image.Resampling[limits.resample.upper()], reducing_gap=3)
        plain = colours.to_srgb(plain, image.info.get("icc_profile"))
        if plain.mode == "RGBA":
            plain = Image.alpha_composite(Image.new("RGBA", size, "white"), plain).convert("RGB")
        turn = _orientation(image)
    if turn in _TRANSPOSE:
        plain = plain.transpose(Image.Transpose(_TRANSPOSE[turn]))
        if turn >= 5:
            width, height = height, width
    plain.info = {}  # else the comment would be written
    encoded = BytesIO()
    plain.save(encoded, "JPEG", quality=limits.quality)
    return Picture(encoded.getvalue(), width, height)


def _eight_bits(image: Image.Image) -> Image.Image:
    """L, RGB or CMYK, or RGBA where something is transparent."""
    if grey.is_deep(image):
        image = grey.shallow(image)
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        return 1


class _PngChunks(PngImagePlugin.PngStream):
    """Of a PNG whose colour profile is broken or unpacks to megabytes: the picture is read without the profile."""

    def chunk_iCCP(self, pos: int, length: int) -> bytes:  # noqa: N802 - Pillow calls it by the name of the chunk
        """The bytes of the chunk; none, which fit no checksum, if the profile cannot be read."""
        with contextlib.suppress(ValueError, IndexError):
            return super().chunk_iCCP(pos, length)
        return b""

    def crc(self, cid: bytes, data: bytes) -> None:
        """Check a chunk. Raises SyntaxError for a wrong checksum of another chunk than the profile's."""
        try:
            super().crc(cid, data)
        except SyntaxError:
            if cid != b"iCCP":
                raise
            self.im_info.pop("icc_profile", None)


def _confine(limits: Limits) -> None:
    Image.init()  # before the time of the first picture starts
    PngImagePlugin.PngStream = _PngChunks  # type: ignore[misc]
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = limits.max_pixels // 2  # Pillow raises at twice this, on reading the header
    warnings.simplefilter("ignore")
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
