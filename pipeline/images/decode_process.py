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
import re
import resource
import select
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Literal, NoReturn, Self, TypeAlias

from PIL import AvifImagePlugin, Image, PngImagePlugin

from pipeline.extras import require
from pipeline.images import colours, grey
from pipeline.images.plain_jpeg import is_plain
from pipeline.process import lifeline
from pipeline.process.endings import Endings
from pipeline.process.unnamed import Acceptor

if TYPE_CHECKING:
    from pipeline.settings.download import Download

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "ICO", "PPM")
"""The formats that are decoded. No EPS (it starts Ghostscript), no JPEG 2000, none that browsers never showed."""

PROCESS = struct.Struct(">I")
REQUEST = struct.Struct(">Q")
HEAD = struct.Struct(">?QII")
"""Of a reply: whether a JPEG follows, the bytes of what follows, and width and height of the picture."""
STATUS = struct.Struct(">i")
CLOCK = struct.Struct("d")

WALL = 5

FACE_SECONDS, FACE_MEMORY = 10, 2 << 30
"""The limits of a process that blurs faces: it holds a network, which takes longer than decoding."""

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
    bytes are for a process. It is killed after `WALL` times as many seconds by the clock: other processes compute too.
    With `keep_plain`, a JPEG that is as it should be (`pipeline.images.plain_jpeg`) is decoded, and not made again.
    With `blur_faces`, faces are blurred (`pipeline.images.face_blur`), and a JPEG with a face is always made again.
    """

    image_size: int
    quality: int
    max_pixels: int
    resample: Resample = "hamming"
    seconds: float = 2
    memory: int = 1 << 30
    keep_plain: bool = False
    blur_faces: bool = False

    @classmethod
    def of(cls, download: "Download") -> Self:
        """The limits that a source file sets. Raises ModelError if it blurs faces and the extra is not installed."""
        limits = cls(download.image_size, download.quality, download.max_pixels, download.resample)
        if not download.blur_faces:
            return limits
        require("faces", "blur_faces = true in [download]")
        return replace(limits, seconds=FACE_SECONDS, memory=FACE_MEMORY, blur_faces=True)


@dataclass(frozen=True)
class Picture:
    """`jpeg` is RGB without metadata, and empty if the original is; width and height are the original's, upright."""

    jpeg: bytes
    width: int
    height: int


def receive(wire: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the other side ends before."""
    data = bytearray(size)
    rest = memoryview(data)
    while rest and (count := wire.recv_into(rest, len(rest), socket.MSG_WAITALL)):
        rest = rest[count:]
    return bytes(data[: size - len(rest)])


_End = Endings | Acceptor

Hide: TypeAlias = Callable[[Image.Image], Image.Image]
"""Makes a part of a picture unrecognisable. Returns the same object if there is nothing to hide."""


def _hide(limits: Limits) -> Hide:
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


def _serve(requests: Acceptor, limits: Limits, hide: Hide, began: memoryview) -> None:
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


def _reply(data: bytes, limits: Limits, hide: Hide) -> bytes:
    try:
        picture = _whole_picture(data, limits, hide)
    except Image.DecompressionBombError:
        return _refusal("too_many_pixels", f"more than {limits.max_pixels} pixels")
    except Exception as error:  # noqa: BLE001 - Pillow raises dozens of classes
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _refusal("undecodable", words.split(" <_io.")[0])  # without the address of an object
    return HEAD.pack(True, len(picture.jpeg), picture.width, picture.height) + picture.jpeg


def _refusal(cause: str, error: str) -> bytes:
    words = f"{cause}: {error}".encode(errors="replace")
    return HEAD.pack(False, len(words), 0, 0) + words


def _whole_picture(data: bytes, limits: Limits, hide: Hide) -> Picture:
    """The picture, also of a JPEG that lacks its end marker and no pixel, as browsers show it."""
    try:
        return _picture(data, limits, hide)
    except OSError:
        if not data.startswith(_JPEG_START) or data.endswith(b"\xff") or _last_marker(data) != _JPEG_SCAN:
            raise
        limits = replace(limits, keep_plain=False)  # it is made of other bytes
        ended, other = (_picture(data + tail + _JPEG_END, limits, hide) for tail in (b"", _NOISE))
        if ended != other:  # what follows is read as pixels: some are missing
            raise
        return ended


def _last_marker(data: bytes) -> bytes:
    """The last marker of a JPEG but those within a scan."""
    markers: list[bytes] = re.findall(rb"\xff[^\x00\xd0-\xd7\xff]", data)
    return markers[-1] if markers else b""


def _picture(data: bytes, limits: Limits, hide: Hide) -> Picture:
    """The first frame, upright, on white, no larger than the limits allow, without what is to be hidden."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        size = load(image, limits)
        plain_file = limits.keep_plain and image.format == "JPEG" and size == (width, height) and is_plain(data)
        if plain_file and hide(image) is image:
            return Picture(b"", width, height)
        plain = resize(_eight_bits(image), size, limits)
        plain = colours.to_srgb(plain, image.info.get("icc_profile"))
        if plain.mode == "RGBA":
            plain = Image.alpha_composite(Image.new("RGBA", size, "white"), plain).convert("RGB")
        turn = _orientation(image)
    if turn in _TRANSPOSE:
        plain = plain.transpose(Image.Transpose(_TRANSPOSE[turn]))
        if turn >= 5:
            width, height = height, width
    plain = hide(plain)
    plain.info = {}  # else the comment would be written
    return Picture(encode(plain, limits), width, height)


def load(image: Image.Image, limits: Limits) -> tuple[int, int]:
    """Decode, a JPEG at about twice the size that is needed. Returns the width and height to store."""
    width, height = image.size
    scale = min(1.0, limits.image_size / min(width, height), MAX_SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image.draft(None, (2 * size[0], 2 * size[1]))
    image.load()
    return size


def resize(image: Image.Image, size: tuple[int, int], limits: Limits) -> Image.Image:
    """The picture at this size."""
    if image.size == size:
        return image
    return image.resize(size, Image.Resampling[limits.resample.upper()], reducing_gap=3)


def encode(image: Image.Image, limits: Limits) -> bytes:
    """The JPEG that is stored."""
    encoded = BytesIO()
    image.save(encoded, "JPEG", quality=limits.quality)
    return encoded.getvalue()


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
