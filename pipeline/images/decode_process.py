"""The process that decodes: bytes from the web into a clean JPEG, with little memory and little time.

`python -m pipeline.images.decode_process LIMITS` runs it. It imports Pillow and nothing of winnow, so it starts in a
tenth of a second. `pipeline.images.sandbox` starts it, sends pictures and restarts it.

Standard input is a socket. A request is the size of a file and the file. A reply is two sizes, a JSON head and a JPEG.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

from PIL import AvifImagePlugin, Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "ICO", "PPM")
"""The formats that are decoded. No EPS (it starts Ghostscript), no JPEG 2000, none that browsers never showed."""

REQUEST = struct.Struct(">Q")
REPLY = struct.Struct(">II")
READY = b"+"
"""Sent once, before the first request."""

_TRANSPOSE = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> PIL.Image.Transpose. From 5 on, width and height change places."""


@dataclass(frozen=True)
class Limits:
    """What a picture may cost, and what is made of it.

    `image_size`: px of the shorter side at most. `quality`: of the JPEG. `seconds` of processor time and `memory` in
    bytes are for the process.
    """

    image_size: int
    quality: int
    max_pixels: int
    seconds: float = 2
    memory: int = 1 << 30


@dataclass(frozen=True)
class Picture:
    """`jpeg` is RGB without metadata; width and height are the original's, upright."""

    jpeg: bytes
    width: int
    height: int


def receive(wire: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """Exactly `size` bytes. Raises TimeoutError after the deadline, ConnectionError if the other side is gone."""
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            wire.settimeout(max(0.001, deadline - time.monotonic()))
        block = wire.recv(min(size - len(data), 1 << 20))
        if not block:
            raise ConnectionResetError
        data += block
    return bytes(data)


def _serve(limits: Limits) -> None:
    """Answer requests on standard input until it ends."""
    wire = socket.socket(fileno=os.dup(0))
    wire.sendall(READY)
    while True:
        try:
            size = REQUEST.unpack(receive(wire, REQUEST.size))[0]
            data = receive(wire, size)
        except ConnectionError:
            return
        # Processor time, not the clock: the load of the machine must not decide about a row. The signal kills.
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        head, jpeg = _outcome(data, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = json.dumps(head).encode()
        wire.sendall(REPLY.pack(len(text), len(jpeg)) + text + jpeg)


def _outcome(data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    try:
        picture = _picture(data, limits)
    except Image.DecompressionBombError:
        return {"cause": "too_many_pixels", "error": f"more than {limits.max_pixels} pixels"}, b""
    except Exception as error:  # noqa: BLE001 - Pillow raises dozens of classes
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"cause": "undecodable", "error": words.split(" <_io.")[0]}, b""  # without the address of an object
    return {"cause": None, "width": picture.width, "height": picture.height}, picture.jpeg


def _picture(data: bytes, limits: Limits) -> Picture:
    """The first frame, upright, on white, no larger than the limits allow."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        scale = min(1.0, limits.image_size / min(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG is decoded at about twice the size needed
        image.load()
        plain = _to_rgb(image)
        if plain.size != size:
            plain = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
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


def _to_rgb(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode == "F":
        low, high = cast(tuple[float, float], image.getextrema())
        gain = 255 / ((high - low) or 1)
        image = image.point(lambda value: value * gain - low * gain).convert("L")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - a picture with broken metadata is still a picture
        return 1


def _confine(limits: Limits) -> None:
    Image.init()  # before the time of the first picture starts
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = limits.max_pixels // 2  # Pillow raises at twice this, on reading the header
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit: only max_pixels bounds the memory there
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))


if __name__ == "__main__":
    limits = Limits(**json.loads(sys.argv[1]))
    _confine(limits)
    _serve(limits)
