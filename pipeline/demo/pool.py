"""A pool of pairs as the web would have it: scenes with captions, some of them spoiled, and who spoiled which.

Nothing outside this package reads the plan; what the pipeline sees is addresses, captions and bytes.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from pipeline.demo import scenes
from pipeline.demo.captions import caption

VERSION = 1
"""Raised whenever the same seed plans another pool."""

POOL, TEST, CALIBRATION, TRAINING = range(4)
"""Streams of scenes. Two streams of one seed share no scene."""

STREAMS: Mapping[str, int] = {"pool": POOL, "calibration": CALIBRATION}
"""Those that can be served, by the names that source files give them."""

CLEAN = "clean"
PICTURE_FAULTS: Mapping[str, float] = {"swapped": 0.28, "blurred": 0.10}
"""Spoiled pairs by kind, as a share of the pictures: another picture's caption; out of focus."""

WEB_FAULTS: Mapping[str, float] = {
    "http_404": 0.020,
    "http_500": 0.010,
    "slow": 0.005,
    "dead": 0.005,
    "truncated": 0.010,
    "html": 0.010,
    "bomb": 0.003,
    "private": 0.005,
    "opt_out": 0.010,
}
"""Addresses that misbehave, as a share of the pictures; `pipeline.demo.web` says how."""

_SHARED, _REPEATED = 0.01, 0.005
"""Lines that give a clean picture a second caption, and lines that stand there twice."""


BOMB_SIDE = 12_000
"""Pixels a side of the decompression bomb."""


@dataclass(frozen=True)
class Line:
    """One line of the list of pairs; `fault` is what is wrong with it."""

    picture: int
    caption: str
    fault: str


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])


def captions(seed: int, stream: int, number: int, count: int) -> list[str]:
    """The first `count` captions of a scene, without a picture being drawn."""
    random = _random(seed, stream, number)
    scene = scenes.draw(random)
    words = np.random.default_rng([seed, stream, number, 1])
    return [caption(scene, words) for _ in range(count)]


def photograph(seed: int, stream: int, number: int, fault: str = CLEAN) -> scenes.Picture:
    """The picture of a scene; out of focus if its fault is "blurred"."""
    random = _random(seed, stream, number)
    picture = scenes.render(scenes.draw(random), random)
    if fault == "blurred":
        blurred: scenes.Picture = cv2.GaussianBlur(picture, (0, 0), float(random.uniform(1.6, 4)))
        return blurred
    return picture


def jpeg(picture: scenes.Picture, seed: int, number: int) -> bytes:
    """The picture's file, as a camera or a web site would compress it."""
    file = BytesIO()
    quality = int(np.random.default_rng([seed, number, 2]).integers(82, 96))
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def files(seed: int, stream: int, faults: Mapping[int, str]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each picture of `faults` (number -> its fault)."""
    for number, fault in faults.items():
        yield name(number), jpeg(photograph(seed, stream, number, fault), seed, number)


def name(number: int) -> str:
    """The picture's file name, which tells nothing of its fault."""
    return f"{number:06d}.jpg"


def plan(seed: int, pairs: int, stream: int = POOL) -> list[Line]:
    """The whole list, `pairs` lines, in no order: most are clean, each fault has its share, and one line at least."""
    random = np.random.default_rng([seed, stream])
    shared, repeated = round(pairs * _SHARED), round(pairs * _REPEATED)
    pictures = pairs - shared - repeated
    faults = _assign(pictures, random)
    own = [captions(seed, stream, number, 1)[0] for number in range(pictures)]
    told = list(own)
    swapped = random.permutation([number for number in range(pictures) if faults[number] == "swapped"])
    for number, other in zip(swapped, np.roll(swapped, 1), strict=True):
        told[number] = own[other]
        faults[number] = "swapped" if own[other] != own[number] else CLEAN
    lines = [Line(number, told[number], faults[number]) for number in range(pictures)]
    clean = random.permutation([number for number in range(pictures) if faults[number] == CLEAN])
    second = [Line(int(number), captions(seed, stream, number, 2)[1], CLEAN) for number in clean[:shared]]
    again = [lines[number] for number in random.permutation(pictures)[:repeated]]
    whole = lines + second + again
    return [whole[index] for index in random.permutation(len(whole))]


def _assign(pictures: int, random: np.random.Generator) -> list[str]:
    shares = {**PICTURE_FAULTS, **WEB_FAULTS}
    kinds = [kind for kind, share in shares.items() for _ in range(max(1, round(pictures * share)))]
    faults = kinds + [CLEAN] * (pictures - len(kinds))
    return [faults[index] for index in random.permutation(pictures)]


def faults_of(lines: Sequence[Line]) -> dict[int, str]:
    """The fault of every picture, by number."""
    return {line.picture: line.fault for line in sorted(lines, key=lambda line: line.picture)}


def bomb() -> bytes:
    """A PNG of 140 KB that unpacks to 144 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(BOMB_SIDE + 1)) for _ in range(BOMB_SIDE)]
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 0, 0, 0, 0)
    body = b"".join(rows) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
