"""Measurements of pixels, without a model: light, colour, sharpness, compression, borders, a perceptual hash."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.images.phash import phash
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec

VERSION = 4

SIDE = 224
"""The shorter side at which sharpness is measured, because it depends on the size."""

LONGEST = 4 * SIDE
"""A longer side above this is scaled down to it."""

BLOCK = 8
"""The side of a JPEG block, in pixels."""

PLAIN, STRAY = 8, 0.02
"""A line belongs to the border if all but `STRAY` of its pixels differ by at most `PLAIN` grey levels from the edge."""

UNSEEN = 1
"""Grey levels of an invisible step. They are added to both sides of the ratio, so that faint blocks count little."""

Floats = npt.NDArray[np.float32]


class PixelsSpec(Spec):
    """Measured on the stored picture. Width and height are the download's."""

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["pixels"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """brightness: mean luma (ITU-R BT.601), 0 to 255.
        contrast: its standard deviation (RMS contrast, Peli 1990), 0 to 127.5.
        entropy: of the luma's histogram (Shannon), in bits, 0 to 8.
        colourfulness: Hasler & Suesstrunk 2003 (M3), 0 grey, 15 slightly, 45 averagely, 82 highly colourful.
        sharpness: variance of the Laplacian (Pech-Pacheco et al. 2000) at 224 px, 0 upwards.
        blockiness: luma steps on the 8 px grid of the upload's JPEG blocks against steps elsewhere (see `blockiness`):
        about 1 without visible blocks, above 1.6 for qualities up to 12 at full size, less where it is stored smaller.
        border: share of the area in plain bands along the edges (letterbox, frame), 0 to 1; 1 for one plain area.
        phash: 64 bits of a DCT (imagehash); similar pictures differ in few bits.
        digest: blake2b-128, in hex, of size and RGB pixels: the same picture, whatever file it came in.
        """
        measured = ("brightness", "contrast", "entropy", "colourfulness", "sharpness", "blockiness", "border")
        return {**dict.fromkeys(measured, pa.float32()), "phash": pa.uint64(), "digest": pa.string()}

    def identity(self) -> Mapping[str, Any]:
        """Versions of what decodes and computes."""
        packages = ("pillow", "opencv-python-headless", "imagehash")
        return {"version": VERSION, **{package: version(package) for package in packages}}

    def load(self) -> Scorer:
        """The scorer, which has no weights."""
        return Pixels()


class Measured(NamedTuple):
    """The measurements of one picture. `steps` is the result of `steps`."""

    brightness: float
    contrast: float
    entropy: float
    colourfulness: float
    sharpness: float
    border: float
    phash: int
    digest: str
    steps: tuple[Floats, Floats]


class Pixels:
    """Measures in the decode pool. `score` collects, and computes blockiness with the size of the upload."""

    embedding_dim = None

    def __init__(self) -> None:
        import cv2

        cv2.setNumThreads(1)  # the decode pool uses every core
        self.preparation = measure

    def prepare(self, image: Image.Image) -> Measured:
        """All measurements that need the pixels."""
        return measure(image)

    def score(self, batch: Batch) -> Columns:
        """The columns of `PixelsSpec`."""
        pictures: Sequence[Measured] = batch.images
        sizes = zip(batch.extra["width"].to_pylist(), batch.extra["height"].to_pylist(), strict=True)
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.array([getattr(picture, name) for picture in pictures], np.float32)
            for name in ("brightness", "contrast", "entropy", "colourfulness", "sharpness", "border")
        }
        columns["blockiness"] = np.array(
            [blockiness(picture.steps, size) for picture, size in zip(pictures, sizes, strict=True)], np.float32
        )
        columns["phash"] = np.array([picture.phash for picture in pictures], np.uint64)
        return {**columns, "digest": pa.array([picture.digest for picture in pictures], pa.string())}


def measure(image: Image.Image) -> Measured:
    """All measurements of an RGB picture that need its pixels."""
    import cv2

    grey, rgb = image.convert("L"), np.asarray(image)
    luma = np.asarray(grey)
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(luma))
    return Measured(
        mean,
        deviation,
        entropy(luma),
        colourfulness(rgb),
        sharpness(luma),
        border(luma),
        phash(grey),
        digest(rgb),
        steps(luma),
    )


def digest(rgb: npt.NDArray[np.uint8]) -> str:
    """32 hex digits that two pictures share if their pixels are the same."""
    return hashlib.blake2b(repr(rgb.shape).encode() + rgb.tobytes(), digest_size=16).hexdigest()


def entropy(luma: npt.NDArray[np.uint8]) -> float:
    """Shannon's, in bits, of the histogram of grey levels."""
    counts = np.bincount(luma.ravel(), minlength=256)
    shares = counts[counts > 0] / luma.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # of one grey level it would be -0


def colourfulness(rgb: npt.NDArray[np.uint8]) -> float:
    """M3 of Hasler & Suesstrunk, "Measuring colourfulness in natural images" (2003): of red-green and yellow-blue."""
    import cv2

    red, green, blue = cv2.split(rgb)
    first = cv2.subtract(red, green, dtype=cv2.CV_16S)
    second = cv2.subtract(cv2.add(red, green, dtype=cv2.CV_16S), cv2.add(blue, blue, dtype=cv2.CV_16S))  # of twice M3's
    (mean, deviation), (mean_2, deviation_2) = cv2.meanStdDev(first), cv2.meanStdDev(second)
    return float(np.hypot(deviation, deviation_2 / 2).item() + 0.3 * np.hypot(mean, mean_2 / 2).item())


def sharpness(luma: npt.NDArray[np.uint8]) -> float:
    """Variance of the Laplacian after scaling the shorter side to `SIDE`."""
    import cv2

    height, width = luma.shape
    scale = SIDE / min(height, width)
    size = (min(round(width * scale), LONGEST), min(round(height * scale), LONGEST))
    scaled = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return float(cv2.Laplacian(scaled, cv2.CV_32F).var(dtype=np.float64))


def border(luma: npt.NDArray[np.uint8]) -> float:
    """Share of the area outside the smallest rectangle that holds everything but plain bands of the edges' grey."""
    height, width = luma.shape[:2]
    top, bottom = _band(luma), _band(luma[::-1])
    rows = height - top - bottom
    if rows <= 0:
        return 1.0
    inside = luma[top : top + rows].T
    columns = width - _band(inside) - _band(inside[::-1])
    return float(1 - rows * max(columns, 0) / luma.size)


def _band(lines: npt.NDArray[np.uint8]) -> int:
    """The number of first lines that are plain and have the grey level of the first one."""
    import cv2

    grey = float(np.median(lines[0]))
    plain = cv2.inRange(np.ascontiguousarray(lines), grey - PLAIN, grey + PLAIN)
    stray = (plain == 0).mean(axis=1) > STRAY
    return int(stray.argmax()) if stray.any() else len(lines)


def steps(luma: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """The mean absolute difference between neighbouring columns, float32 [width - 1], and rows, [height - 1]."""
    import cv2

    across = cv2.absdiff(luma[:, 1:], luma[:, :-1]) if luma.shape[1] > 1 else luma[:, :0]
    down = cv2.absdiff(luma[1:], luma[:-1]) if luma.shape[0] > 1 else luma[:0]
    return across.mean(axis=0, dtype=np.float32), down.mean(axis=1, dtype=np.float32)


def blockiness(steps: tuple[Floats, Floats], uploaded: tuple[int, int]) -> float:
    """How much larger luma steps are on the borders of the upload's 8 x 8 blocks than elsewhere, as a ratio.

    `uploaded` is the upload's width and height.
    The boundary differences of Wang, Bovik & Evans ("Blind measurement of blocking artifacts in images", 2000) and of
    Wang, Sheikh & Bovik (2002). winnow stores the picture again, often smaller, so the grid is scaled with it. Blocks
    under two stored pixels give 1, as a picture of one colour does. Blocks that a later crop moved off the grid are not
    found.
    """
    on = off = on_weight = off_weight = 0.0
    for profile, size in zip(steps, uploaded, strict=True):
        pitch = BLOCK * (len(profile) + 1) / size
        if pitch < 2:
            continue
        places = np.arange(1, len(profile) + 1) / pitch
        near = np.clip(1 - np.abs(places - np.round(places)) * pitch, 0, 1)
        on, on_weight = on + float(near @ profile), on_weight + float(near.sum())
        off, off_weight = off + float((1 - near) @ profile), off_weight + float((1 - near).sum())
    if not on_weight or not off_weight:
        return 1.0
    return (on / on_weight + UNSEEN) / (off / off_weight + UNSEEN)
