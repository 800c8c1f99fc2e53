"""Bytes from the web into a clean JPEG, in a process of its own with little memory and little time.

`python -m pipeline.images.sandbox` is that process. It imports Pillow and nothing of winnow's, so it starts in a tenth
of a second. A `Decoder` starts it, feeds it, and restarts it when a picture kills it: that costs one row.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, cast

from PIL import AvifImagePlugin, Image

from pipeline.failure import RowError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF", "ICO", "PPM")
"""What may be decoded. No EPS (it starts Ghostscript), no JPEG 2000, no format that browsers never showed."""

_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> PIL.Image.Transpose. From 5 on, width and height change places."""

_REPLY = struct.Struct(">II")
_REQUEST = struct.Struct(">Q")
_WALL = 5
"""The process may take this many times its processor seconds before it is killed from outside: others compute too."""


@dataclass(frozen=True)
class Limits:
    """What a picture may cost, and what is made of it.

    `image_size`: px of the shorter side at most. `seconds` of processor time and `memory` bytes are the decoder's.
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


class Decoder:
    """Decodes one picture at a time, whichever thread asks. Close it, or use it in a `with`."""

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
                self._wire.sendall(_REQUEST.pack(len(data)) + data)
                head, jpeg = self._reply(time.monotonic() + self.limits.seconds * _WALL)
            except OSError as error:
                raise self._fallen(error) from error
        if head["cause"]:
            raise RowError(head["cause"], head["error"])
        return Picture(jpeg, head["width"], head["height"])

    def close(self) -> None:
        """End the process. The next `decode` would start another."""
        if self._wire is not None:
            self._wire.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._wire = self._process = None

    @property
    def pid(self) -> int | None:
        """The process that decodes now."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        self.close()
        self._wire, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.images.sandbox", json.dumps(asdict(self.limits))],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libtiff writes hundreds of lines
            )
        self._wire.settimeout(60)
        if self._wire.recv(1) != b"+":
            raise RuntimeError("the decoder does not start: run `winnow doctor`")

    def _reply(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        assert self._wire is not None
        sizes = _REPLY.unpack(_received(self._wire, _REPLY.size, deadline))
        head, jpeg = (_received(self._wire, size, deadline) for size in sizes)
        return json.loads(head), jpeg

    def _fallen(self, error: OSError) -> RowError:
        """Why the process is of no more use. It is put away."""
        assert self._process is not None
        if isinstance(error, TimeoutError):
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        status = self._process.poll()
        self.close()
        if isinstance(error, TimeoutError) or status == -signal.SIGPROF:
            return RowError("decode_timeout", f"decoding takes more than {self.limits.seconds:g} s")
        return RowError("decode_crash", f"the decoder died of {_death(status)}")


def _death(status: int | None) -> str:
    return signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"


def _received(wire: socket.socket, size: int, deadline: float | None = None) -> bytes:
    """Exactly `size` bytes. Raises TimeoutError, or ConnectionError when the other side is gone."""
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
    """Answer pictures on standard input, a socket, until it ends."""
    wire = socket.socket(fileno=os.dup(0))
    wire.sendall(b"+")
    while True:
        try:
            size = _REQUEST.unpack(_received(wire, _REQUEST.size))[0]
            data = _received(wire, size)
        except ConnectionError:
            return
        # Processor time, not the clock: how busy the machine is must not decide about a row. The signal kills.
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)
        head, jpeg = _outcome(data, limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = json.dumps(head).encode()
        wire.sendall(_REPLY.pack(len(text), len(jpeg)) + text + jpeg)


def _outcome(data: bytes, limits: Limits) -> tuple[dict[str, Any], bytes]:
    try:
        picture = _picture(data, limits)
    except Image.DecompressionBombError:
        return {"cause": "too_many_pixels", "error": f"more than {limits.max_pixels} pixels"}, b""
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly every class there is
        words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return {"cause": "undecodable", "error": words.split(" <_io.")[0]}, b""  # an address in memory says nothing
    return {"cause": None, "width": picture.width, "height": picture.height}, picture.jpeg


def _picture(data: bytes, limits: Limits) -> Picture:
    """The first frame, upright, on white, no larger than asked for."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        scale = min(1.0, limits.image_size / min(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image.draft(
            None, (2 * size[0], 2 * size[1])
        )  # a JPEG is decoded at twice the size wanted, not at sixteen times
        image.load()
        plain = _coloured(image)
        if plain.size != size:
            plain = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
        if plain.mode == "RGBA":
            plain = Image.alpha_composite(Image.new("RGBA", size, "white"), plain).convert("RGB")
        turn = _orientation(image)
    if turn in _TURNS:
        plain = plain.transpose(Image.Transpose(_TURNS[turn]))
        if turn >= 5:
            width, height = height, width
    plain.info = {}  # a comment would be written again
    encoded = BytesIO()
    plain.save(encoded, "JPEG", quality=limits.quality)
    return Picture(encoded.getvalue(), width, height)


def _coloured(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode == "F":
        low, high = cast(tuple[float, float], image.getextrema())
        gain = 255 / ((high - low) or 1)
        image = image.point(lambda value: value * gain - low * gain).convert("L")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # noqa: BLE001 - broken metadata spoils no picture
        return 1


def _confine(limits: Limits) -> None:
    Image.init()  # before the first picture's time runs
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    Image.MAX_IMAGE_PIXELS = limits.max_pixels // 2  # Pillow raises at twice this, as soon as it knows the header
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit: there, only the pixels bound the memory
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))


if __name__ == "__main__":
    asked = Limits(**json.loads(sys.argv[1]))
    _confine(asked)
    _serve(asked)
