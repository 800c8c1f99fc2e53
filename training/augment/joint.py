"""Picture and caption augmented together, so that the caption stays true. The rules know words, and no object's place:

* A flip swaps left and right in the caption. Where one of them is not plainly a side ("right now", "he left the
  house"), the picture is not flipped.
* Hue is left alone where the caption names a colour; brightness, contrast and saturation still change.
* A crop is refused where the caption says what stands where ("behind", "on the edge", "left"): it could cut away one
  of them. Where a CLIP is at hand it is refused, too, if the picture's similarity to its caption falls by more than a
  margin by the crop alone. Without boxes nobody knows what was cut away: a crop keeps half of the area or more, and
  what a CLIP does not miss is not missed.

Beside the rules, a guard rejects versions whose similarity falls by more than the margin, whatever did it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.scorers.clip import ClipSpec
from training.augment import caption_policies, picture_policies

if TYPE_CHECKING:  # it imports torch
    from pipeline.models.clip import Clip

VERSION = 1
"""Raised whenever the rules would make other versions."""

Similarity = npt.NDArray[np.float32]

_WORD = re.compile(r"[^\W\d_]+")


def words(caption: str) -> frozenset[str]:
    """In lower case."""
    return frozenset(_WORD.findall(caption.lower()))


COLOURS = words(
    "red orange yellow green blue purple pink brown beige tan cream ivory gold golden silver silvery bronze copper "
    "crimson scarlet maroon burgundy magenta rose salmon coral peach tangerine amber mustard lime olive emerald teal "
    "turquoise cyan aqua navy indigo cobalt violet lavender lilac khaki blond blonde brunette redhead ginger "
    "colored coloured colorful colourful multicolored multicoloured rainbow reddish greenish bluish yellowish"
)
"""Words that a turned hue would make untrue. Black, white and grey have no hue."""

PLACES = words(
    "left right top bottom upper lower corner edge side beside between behind above below under underneath beneath "
    "over front foreground background middle center centre distance next near around surrounded across opposite"
)
"""Words that say what stands where."""

_SIDE = re.compile(r"\b(left|right)(most)?\b", re.IGNORECASE)
_BEFORE = re.compile(
    r"\b(on|to|from|at|far|facing|upper|lower|top|bottom"
    r"|(on|to|from|at|in|towards?) (the|its|his|her|their|my|your) ((very|far|upper|lower|top|bottom) )?)[\s-]*$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"^[\s-]*(of|(hand )?(side|corner|edge|half|part|third|end|lane|wall)"
    r"|(hand|arm|leg|foot|knee|elbow|shoulder|ear|eye|paw|wing|shoe|glove)s?)\b",
    re.IGNORECASE,
)
_OTHER = {"left": "right", "right": "left"}


def mirrored(caption: str) -> str | None:
    """The caption of the flipped picture: left and right change places, as written. None where one may be no side."""
    for side in _SIDE.finditer(caption):
        plainly = _BEFORE.search(caption[: side.start()]) or _AFTER.search(caption[side.end() :]) or side[2]
        if not plainly:
            return None
    return _SIDE.sub(lambda side: _as(side[1], _OTHER[side[1].lower()]) + (side[2] or ""), caption)


def allowed(steps: Iterable[str], caption: str) -> tuple[str, ...]:
    """The steps that the rules leave of a picture policy."""
    said = words(caption)
    left = list(steps)
    if mirrored(caption) is None:
        left = [each for each in left if each != "flip"]
    if said & COLOURS:
        left = ["shade" if each == "jitter" else each for each in left]
    if said & PLACES:
        left = [each for each in left if each != "crop"]
    return tuple(left)


@dataclass(frozen=True)
class Version:
    """A pair's picture and caption, both augmented, and the steps that were taken."""

    pixels: picture_policies.Pixels
    caption: str
    taken: tuple[str, ...]


def version(pixels: picture_policies.Pixels, caption: str, steps: Sequence[str], words: str, seed: int) -> Version:
    """Those steps of a picture policy that `allowed` left, and a caption policy, on a pair."""
    made, taken = picture_policies.taken(pixels, steps, seed)
    flipped = mirrored(caption) if "flip" in taken else caption
    assert flipped is not None
    reworded, step = caption_policies.version(flipped, words, seed)
    return Version(made, reworded, taken + step)


class Guard:
    """A CLIP that says how well picture and caption fit, and by how much they may fit worse than before."""

    def __init__(self, clip: "Clip", margin: float) -> None:
        self.margin = margin
        self._clip = clip

    @classmethod
    def load(cls, spec: ClipSpec, margin: float) -> "Guard":
        """The CLIP that scored the source. Raises ModelError."""
        return cls(cast("Clip", spec.load()), margin)

    def similarity(self, pictures: Sequence[picture_policies.Pixels], captions: Sequence[str]) -> Similarity:
        """Cosines, [pairs]."""
        seen = self._clip.encode_pictures([self._clip.prepare(Image.fromarray(each)) for each in pictures])
        made: Similarity = np.einsum("nd,nd->n", seen, self._clip.encode_captions(captions))
        return made


def _as(written: str, word: str) -> str:
    """The word in the case of what was written."""
    return word.upper() if written.isupper() else word.capitalize() if written[0].isupper() else word
