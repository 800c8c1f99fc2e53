"""Picture and caption augmented together, so that the caption stays true. The rules know words, not where objects are:

* A flip swaps left and right in the caption. If one of them may be no side ("right now", "he left the house"), the
  picture is not flipped.
* Hue stays if the caption names a colour; brightness, contrast and saturation still change.
* A picture is not cropped if the caption says where things are ("behind", "on the edge", "left"): a crop could cut one
  of them away. With a CLIP scorer it is also not cropped if the crop alone lowers the similarity of picture and caption
  by more than a margin. Without boxes it is unknown what a crop cuts away: it keeps at least half of the area, and a
  loss that CLIP does not see goes unnoticed.

Besides these rules, a guard rejects versions whose similarity falls by more than the margin, for whatever reason.
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
"""Words that another hue would make untrue. Black, white and grey have no hue."""

PLACES = words(
    "left right top bottom upper lower corner edge side beside between behind above below under underneath beneath "
    "over front foreground background middle center centre distance next near around surrounded across opposite"
)
"""Words that say where things are."""

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
    """The caption of the flipped picture: left and right change places, in their case. None if one may be no side."""
    for side in _SIDE.finditer(caption):
        is_side = _BEFORE.search(caption[: side.start()]) or _AFTER.search(caption[side.end() :]) or side[2]
        if not is_side:
            return None
    return _SIDE.sub(lambda side: _in_case_of(side[1], _OTHER[side[1].lower()]) + (side[2] or ""), caption)


def allowed_steps(steps: Iterable[str], caption: str) -> tuple[str, ...]:
    """The steps of a picture policy that the rules allow."""
    caption_words = words(caption)
    left = list(steps)
    if mirrored(caption) is None:
        left = [each for each in left if each != "flip"]
    if caption_words & COLOURS:
        left = ["shade" if each == "jitter" else each for each in left]
    if caption_words & PLACES:
        left = [each for each in left if each != "crop"]
    return tuple(left)


@dataclass(frozen=True)
class Version:
    """A pair's picture and caption, both augmented, and the steps that were applied."""

    pixels: picture_policies.Pixels
    caption: str
    applied: tuple[str, ...]


def augment(pixels: picture_policies.Pixels, caption: str, steps: Sequence[str], words: str, seed: int) -> Version:
    """A pair after the `allowed_steps` of a picture policy, and the caption policy `words`."""
    made, applied = picture_policies.apply(pixels, steps, seed)
    flipped = mirrored(caption) if "flip" in applied else caption
    assert flipped is not None
    reworded, step = caption_policies.augment(flipped, words, seed)
    return Version(made, reworded, applied + step)


class Guard:
    """A CLIP that measures how well picture and caption fit, and the `margin` by which that may fall."""

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


def _in_case_of(written: str, word: str) -> str:
    """The word in the case of another."""
    if written.isupper():
        return word.upper()
    return word.capitalize() if written[0].isupper() else word
