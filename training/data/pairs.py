"""Held-out pairs of pictures and captions, and pairs that do not belong together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CompareError

_TRIES = 1000


Places = npt.NDArray[np.int64]


Truths = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """`picture` and `text`, [pairs], stand together, and `match` says whether they belong together.

    `texts` are all different; they may be left out where nobody reads them.
    """

    texts: tuple[str, ...]
    picture: Places
    text: Places
    match: Truths

    @classmethod
    def of(cls, captions: Sequence[str], picture: Places, match: Truths | None = None) -> "Pairs":
        """Of captions and the picture of each; all belong together unless told otherwise."""
        words = [" ".join(each.lower().split()) for each in captions]
        _, first, text = np.unique(np.array(words, object), return_index=True, return_inverse=True)
        true = np.ones(len(words), bool)
        return cls(tuple(captions[int(at)] for at in first), picture, text, true if match is None else match)

    @property
    def told(self) -> list[Any]:
        """All of it, for a digest."""
        return [list(self.texts), self.picture.tolist(), self.text.tolist(), self.match.tolist()]

    def halved(self, seed: int) -> "Pairs":
        """The same, half of them with the text of another. Raises CompareError as `mismatched` does."""
        text, match = mismatched(self.picture, self.text, seed)
        return replace(self, text=text, match=match)

    def right(self, pictures: int) -> Truths:
        """Which of all texts were said of which of so many pictures, [pictures, texts]."""
        found = np.zeros((pictures, int(self.text.max()) + 1), bool)
        found[self.picture, self.text] = True
        return found


def mismatched(picture: Places, text: Places, seed: int) -> tuple[Places, Truths]:
    """Texts of which a blindly drawn half are another's, never one that was said of the picture; and which are its own.

    Raises CompareError where no other text is found for a picture.
    """
    generator = np.random.default_rng(seed)
    found, match = text.copy(), np.ones(len(text), bool)
    match[generator.permutation(len(text))[: len(text) // 2]] = False
    own, wanting = picture * (text.max(initial=0) + 1) + text, np.flatnonzero(~match)
    for _ in range(_TRIES):
        if not len(wanting):
            return found, match
        found[wanting] = text[generator.integers(len(text), size=len(wanting))]
        codes = picture[wanting] * (text.max() + 1) + found[wanting]
        wanting = wanting[np.isin(codes, own)]
    raise CompareError("too few different captions: for some picture there is none of another to ask for a match with")
