"""Broken pictures without end: `python tests/broken_pictures.py [PICTURES]` counts what the decoder makes of them.

Picture number n is always the same one: a small picture of some format, with a few of its bytes changed, moved, left
out or made up. Each must come back as a JPEG or with a counted cause, and cost no more than the limits say.
"""

import io
import os
import random
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image, ImageCms

from pipeline.failure import RowError
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders

LIMITS = Limits(image_size=256, quality=95, max_pixels=50_000_000)
CAUSES = ("undecodable", "too_many_pixels", "decode_timeout", "decode_crash")
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG = b"\x89PNG\r\n\x1a\n"


@cache
def originals() -> tuple[bytes, ...]:
    """Small pictures: every format that is decoded, in the modes that it has."""
    grey = Image.linear_gradient("L").resize((60, 44))
    colour = Image.merge("RGB", [grey, grey.transpose(Image.Transpose.ROTATE_180), grey.point(lambda v: 255 - v)])
    clear = colour.copy()
    clear.putalpha(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    moving = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    kinds = [
        (colour, "JPEG", {"exif": exif}),
        (colour, "JPEG", {"progressive": True, "icc_profile": bytes(200)}),
        (colour, "JPEG", {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}),
        (colour.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"restart_marker_rows": 1}),
        (colour, "PNG", {"exif": exif}),
        (clear, "PNG", {}),
        (colour.quantize(16), "PNG", {"transparency": 3}),
        (colour, "PNG", moving),
        (colour, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True}),
        (clear, "WEBP", moving),
        (colour, "GIF", moving),
        (colour.quantize(32), "GIF", {"transparency": 3}),
        (colour, "TIFF", {}),
        (clear, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate", **moving}),
        (colour, "TIFF", {"compression": "jpeg"}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (grey.convert("F"), "TIFF", {}),
        (grey.convert("I;16"), "PNG", {}),
        (colour, "BMP", {}),
        (clear, "ICO", {}),
        (grey, "PPM", {}),
        (colour, "AVIF", {}),
    ]
    return tuple(_encoded(*kind) for kind in kinds)


def _encoded(image: Image.Image, kind: str, options: dict) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def picture(number: int) -> bytes:
    """Broken picture number so and so."""
    chance = random.Random(number)
    data = bytearray(chance.choice(originals()))
    for _ in range(chance.randint(1, 4)):
        chance.choice(CHANGES)(data, chance)
    return _checked(bytes(data)) if data.startswith(PNG) and chance.random() < 0.7 else bytes(data)


def _somewhere(data: bytearray, chance: random.Random) -> int:
    """Headers are hit as often as all the rest."""
    return chance.randrange(min(len(data), chance.choice((64, 512, len(data)))) or 1)


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_somewhere(data, chance) % len(data)] ^= 1 << chance.randrange(8)


def _edge(data: bytearray, chance: random.Random) -> None:
    """A number becomes one that is seldom thought of."""
    order, size = chance.choice("<>"), chance.choice("BHI")
    number = struct.pack(order + size, chance.choice(EDGES) & (1 << 8 * struct.calcsize(size)) - 1)
    place = _somewhere(data, chance)
    data[place : place + len(number)] = number


def _cut(data: bytearray, chance: random.Random) -> None:
    place = _somewhere(data, chance)
    del data[place : place + chance.choice((1, 4, 40, len(data)))]


def _repeat(data: bytearray, chance: random.Random) -> None:
    place = _somewhere(data, chance)
    data[place:place] = data[place : place + chance.choice((1, 4, 40, 400))] * chance.choice((1, 2, 50))


def _noise(data: bytearray, chance: random.Random) -> None:
    place = _somewhere(data, chance)
    made = chance.randbytes(chance.choice((1, 4, 40)))
    data[place : place + len(made) * chance.randrange(2)] = made


def _graft(data: bytearray, chance: random.Random) -> None:
    """A piece of another picture."""
    other, place = chance.choice(originals()), _somewhere(data, chance)
    start = chance.randrange(len(other))
    data[place : place + chance.choice((0, 40, len(data)))] = other[start : start + chance.choice((8, 200, len(other)))]


CHANGES = (_flip, _flip, _edge, _edge, _cut, _repeat, _noise, _graft)


def _checked(data: bytes) -> bytes:
    """A PNG with right sums, so that what is wrong in it is looked at."""
    made, place = data[:8], 8
    while place + 12 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + size > len(data):
            break
        body = data[place + 4 : place + 8 + size]
        made += data[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + size
    return made + data[place:]


@dataclass
class Tally:
    """`counts` by cause, None for a picture. `slowest` in seconds, `largest` the decoder's memory in bytes."""

    counts: Counter = field(default_factory=Counter)
    slowest: float = 0
    largest: int = 0
    killers: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def tally(pictures: Iterable[tuple[str, bytes]], workers: int = 2) -> Tally:
    """Decode all, each of the workers with a decoder of its own. A picture has a name, by which it is found again."""
    found, lock, coming = Tally(), threading.Lock(), iter(pictures)

    def work() -> None:
        with Decoders(LIMITS) as decoder:
            while True:
                with lock:
                    name, data = next(coming, (None, b""))
                if name is None:
                    return
                begun = time.monotonic()
                cause, wrong = _outcome(decoder, data)
                seconds, memory = time.monotonic() - begun, _memory(decoder.pid)
                with lock:
                    found.counts[cause] += 1
                    found.slowest, found.largest = max(found.slowest, seconds), max(found.largest, memory)
                    found.killers += [f"{name}: {cause}"] if cause in ("decode_crash", "decode_timeout") else []
                    found.wrong += [f"{name}: {wrong}"] if wrong else []

    with ThreadPoolExecutor(workers) as pool:
        for each in [pool.submit(work) for _ in range(workers)]:
            each.result()
    return found


def _outcome(decoder: Decoders, data: bytes) -> tuple[str | None, str | None]:
    """The cause, None for a picture; and what is wrong with the answer."""
    try:
        made = decoder.decode(data)
    except RowError as failure:
        return failure.cause, None if failure.cause in CAUSES and failure.error else f"{failure} is no cause"
    except Exception as error:  # noqa: BLE001 - the parent must survive
        return "no answer", f"{type(error).__name__}: {error}"
    with Image.open(io.BytesIO(made.jpeg)) as image:
        image.load()
        fits = image.format == "JPEG" and image.mode == "RGB" and min(image.size) <= LIMITS.image_size
        return None, None if fits and not image.getexif() else f"it became {image.format} {image.mode} {image.size}"


def _memory(pid: int | None) -> int:
    """The most that the process ever had, in bytes; 0 where that is not told."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def numbered(count: int) -> Iterable[tuple[str, bytes]]:
    return ((f"picture {number}", picture(number)) for number in range(count))


def hostile() -> list[tuple[str, bytes]]:
    """The hostile files of WINNOW_DATA; none without it."""
    folder = Path(os.environ["WINNOW_DATA"], "hostile", "files") if "WINNOW_DATA" in os.environ else None
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())] if folder else []


def table(found: dict[str, Tally]) -> str:
    """Markdown: a line for each set of pictures."""
    lines = ["| pictures | " + " | ".join(("all", "decoded", *CAUSES, "slowest, s", "most memory, MiB")) + " |"]
    lines.append("|---" * (len(CAUSES) + 5) + "|")
    for name, each in found.items():
        cells = [each.counts.total(), each.counts[None], *(each.counts[cause] for cause in CAUSES)]
        told = [f"{cell:,}" for cell in cells] + [f"{each.slowest:.2f}", f"{each.largest >> 20}"]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def main(count: int) -> int:
    found = {"broken": tally(numbered(count))} | ({"hostile": tally(files)} if (files := hostile()) else {})
    print(table(found))
    for each in found.values():
        print(*each.killers, *each.wrong, sep="\n", file=sys.stderr)
    return any(each.wrong for each in found.values())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
