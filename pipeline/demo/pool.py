"""The plan of a pool: pairs of scenes and captions as on the web, some of them with a fault.

Nothing outside this package reads the plan. The pipeline sees URLs, captions and bytes.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from pipeline.demo import faults
from pipeline.demo.captions import caption
from pipeline.demo.spam import spam
from pipeline.scenes import rendering, scenes

VERSION = 3
"""Raised when the same seed gives another plan, or another file for a picture."""

POOL, TEST, CALIBRATION, TRAINING = range(4)
"""Streams of scenes. Two streams of one seed share no scene."""

STREAMS: Mapping[str, int] = {"pool": POOL, "calibration": CALIBRATION}
"""The streams that can be served, by their name in source files."""

CLEAN = "clean"
FAULTS: Mapping[str, float] = {
    "swapped": 0.22,
    "spam": 0.05,
    "blurred": 0.05,
    "washed_out": 0.04,
    "watermarked": 0.05,
    "over_compressed": 0.04,
    "near_duplicate": 0.05,
    "test_copy": 0.02,
    "written": 0.03,
}
"""Pairs with a fault, as a share of the URLs: the caption of another picture; a text that is no caption; four kinds of
damage (`pipeline.demo.faults`); another copy of a clean picture of the pool; a picture of the test set, every other one
byte for byte; the caption, written into the picture. Without a test set there are no copies of it."""

WRITTEN = "written"
"""The fault that clean pairs get after all others were dealt out."""

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
"""URLs that fail, as a share of the URLs; `pipeline.demo.web` has their behaviour."""

_SHARED, _REPEATED = 0.01, 0.005
"""Shares of lines with a second caption for a clean picture, and of repeated lines."""


BOMB_SIDE = 12_000
"""Pixels a side of the decompression bomb."""


@dataclass(frozen=True)
class Line:
    """One line of the list of pairs: the number of a picture, its caption, and its label: "clean" or a fault."""

    picture: int
    caption: str
    label: str


@dataclass(frozen=True)
class Shot:
    """The picture at a URL: a scene, and the fault of the picture: `WRITTEN`, or a name in `faults.APPLIED`."""

    stream: int
    scene: int
    fault: str | None = None


@dataclass(frozen=True)
class Plan:
    """All lines, in random order, and all pictures by number."""

    lines: Sequence[Line]
    shots: Mapping[int, Shot]


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, stream, number])


def scene(seed: int, stream: int, number: int) -> scenes.Scene:
    """A scene. Nothing is rendered."""
    return scenes.draw(_random(seed, stream, number))


def captions(seed: int, stream: int, number: int, count: int) -> list[str]:
    """The first `count` captions of a scene. Nothing is rendered."""
    drawn = scene(seed, stream, number)
    words = np.random.default_rng([seed, stream, number, 1])
    return [caption(drawn, words) for _ in range(count)]


def photograph(seed: int, stream: int, number: int) -> rendering.Picture:
    """The rendered picture of a scene, without a fault."""
    random = _random(seed, stream, number)
    return rendering.render(scenes.draw(random), random)


def file(seed: int, number: int, shot: Shot) -> bytes:
    """The JPEG with this number. A scene without a fault has the same bytes at every URL."""
    picture = photograph(seed, shot.stream, shot.scene)
    if shot.fault == WRITTEN:
        (words,) = captions(seed, shot.stream, shot.scene, 1)
        picture = faults.written(picture, words, np.random.default_rng([seed, shot.stream, number, 3]))
    elif shot.fault is not None:
        picture = faults.APPLIED[shot.fault](picture, np.random.default_rng([seed, shot.stream, number, 3]))
    return jpeg(picture, seed, shot.scene)


def jpeg(picture: rendering.Picture, seed: int, number: int) -> bytes:
    """The picture as a JPEG of quality 82 to 95, which depends on the scene."""
    made = BytesIO()
    quality = int(np.random.default_rng([seed, number, 2]).integers(82, 96))
    Image.fromarray(picture).save(made, "JPEG", quality=quality)
    return made.getvalue()


def files(seed: int, shots: Mapping[int, Shot]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each picture."""
    for number, shot in shots.items():
        yield name(number), file(seed, number, shot)


def clean(stream: int, numbers: Iterable[int]) -> dict[int, Shot]:
    """Scenes without a fault, each under its own number."""
    return {number: Shot(stream, number) for number in numbers}


def name(number: int) -> str:
    """The file name of a picture. It does not reveal the fault."""
    return f"{number:06d}.jpg"


def plan(seed: int, pairs: int, stream: int = POOL, test_images: int = 0) -> Plan:
    """A plan of `pairs` lines. Each fault has its share of the URLs, and at least one."""
    random = np.random.default_rng([seed, stream])
    shared, repeated = round(pairs * _SHARED), round(pairs * _REPEATED)
    pictures = pairs - shared - repeated
    labels = _assign(pictures, random, test_images)
    shots = clean(stream, range(pictures))
    words = [captions(seed, stream, number, 1)[0] for number in range(pictures)]
    places = {label: [number for number in range(pictures) if labels[number] == label] for label in labels}
    for label in faults.DEGRADING:
        shots |= {number: Shot(stream, number, label) for number in places[label]}
    for number in places["spam"]:
        words[number] = spam(random)
    good = [int(number) for number in random.permutation(places[CLEAN])]
    for number in good[shared : shared + max(1, round(pictures * FAULTS[WRITTEN]))]:
        shots[number] = Shot(stream, number, WRITTEN)
        labels[number] = WRITTEN
    for number, original in zip(places["near_duplicate"], reversed(good), strict=False):
        shots[number] = Shot(stream, original, "near_duplicate")
        words[number] = captions(seed, stream, original, 3)[2]
    copied = np.resize(random.permutation(test_images), len(places.get("test_copy", ())))
    for index, (number, original) in enumerate(zip(places.get("test_copy", ()), copied.tolist(), strict=True)):
        shots[number] = Shot(TEST, original, "re_encoded" if index % 2 else None)
        words[number] = captions(seed, TEST, original, 1)[0]
    swapped = random.permutation(places["swapped"])
    own = [words[number] for number in swapped]
    for number, before, other in zip(swapped, own, np.roll(own, 1).tolist(), strict=True):
        words[number] = other
        labels[number] = "swapped" if other != before else CLEAN
    lines = [Line(number, words[number], labels[number]) for number in range(pictures)]
    second = [Line(number, captions(seed, stream, number, 2)[1], CLEAN) for number in good[:shared]]
    again = [lines[number] for number in random.permutation(pictures)[:repeated]]
    whole = lines + second + again
    return Plan([whole[index] for index in random.permutation(len(whole))], shots)


def _assign(pictures: int, random: np.random.Generator, test_images: int) -> list[str]:
    shares = {**FAULTS, **WEB_FAULTS}
    del shares[WRITTEN]
    if not test_images:
        del shares["test_copy"]
    kinds = [kind for kind, share in shares.items() for _ in range(max(1, round(pictures * share)))]
    labels = kinds + [CLEAN] * (pictures - len(kinds))
    return [labels[index] for index in random.permutation(pictures)]


def bomb() -> bytes:
    """A PNG of 140 KB that unpacks to 144 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = [packer.compress(bytes(BOMB_SIDE + 1)) for _ in range(BOMB_SIDE)]
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 0, 0, 0, 0)
    body = b"".join(rows) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
