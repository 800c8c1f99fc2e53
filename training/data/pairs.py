"""Held-out pairs of pictures and captions, matched and mismatched."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import CompareError

_TRIES = 1000

Positions = npt.NDArray[np.int64]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pairs:
    """Pairs of a picture and a text, `picture` and `text`: [pairs]; and whether they match, `match`: [pairs].

    `texts` are distinct; empty if only their embeddings are needed.
    """

    texts: tuple[str, ...]
    picture: Positions
    text: Positions
    match: Mask

    @classmethod
    def of(cls, captions: Sequence[str], picture: Positions, match: Mask | None = None) -> "Pairs":
        """Pairs of captions and their pictures. Without `match` all pairs match."""
        words = [" ".join(each.lower().split()) for each in captions]
        _, first, text = np.unique(np.array(words, object), return_index=True, return_inverse=True)
        texts = tuple(captions[int(at)] for at in first)
        return cls(texts, picture, text, np.ones(len(words), bool) if match is None else match)

    @property
    def content(self) -> list[Any]:
        """All fields, for a digest."""
        return [list(self.texts), self.picture.tolist(), self.text.tolist(), self.match.tolist()]

    def half_mismatched(self, seed: int) -> "Pairs":
        """The pairs, half of them with the text of another pair. Raises CompareError as `mismatch` does."""
        text, match = mismatch(self.picture, self.text, seed)
        return replace(self, text=text, match=match)

    def relevance(self, pictures: int) -> Mask:
        """Which texts belong to which pictures, [pictures, texts]. `pictures` is the number of pictures."""
        relevant = np.zeros((pictures, int(self.text.max()) + 1), bool)
        relevant[self.picture, self.text] = True
        return relevant


def mismatch(picture: Positions, text: Positions, seed: int) -> tuple[Positions, Mask]:
    """Texts of which a random half is replaced by texts of other pictures, and which pairs still match.

    Raises CompareError if no other text is found for a picture.
    """
    generator = np.random.default_rng(seed)
    texts, match = text.copy(), np.ones(len(text), bool)
    match[generator.permutation(len(text))[: len(text) // 2]] = False
    own, missing = picture * (text.max(initial=0) + 1) + text, np.flatnonzero(~match)
    for _ in range(_TRIES):
        if not len(missing):
            return texts, match
        texts[missing] = text[generator.integers(len(text), size=len(missing))]
        codes = picture[missing] * (text.max() + 1) + texts[missing]
        missing = missing[np.isin(codes, own)]
    raise CompareError("too few different captions: for some picture there is no other caption to mismatch")
