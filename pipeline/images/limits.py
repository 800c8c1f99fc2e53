"""What a picture may cost, and what is made of it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from pipeline.extras import require

if TYPE_CHECKING:
    from pipeline.settings.download import Download

WALL = 5

FACE_SECONDS, FACE_MEMORY = 10, 2 << 30
"""The limits of a process that blurs faces: it holds a network, which takes longer than decoding."""

Resample = Literal["hamming", "lanczos"]
"""How a picture becomes smaller, in the words of Pillow."""


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
