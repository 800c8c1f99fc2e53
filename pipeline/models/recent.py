"""Embeddings of the captions that were encoded last, so that a caption that comes again is not encoded again."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

MOST = 16_384
"""Captions that are held: 32 MB at 512 numbers each."""

Embeddings = npt.NDArray[np.float32]


class Recent:
    """`encode` (captions to float32 [captions, dim]), called only for captions that are not among the last `most`.

    `encoded` counts the captions that `encode` got.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Embeddings], most: int = MOST) -> None:
        self._encode, self._most = encode, most
        self._held: dict[str, Embeddings] = {}
        self.encoded = 0

    def __call__(self, captions: Sequence[str]) -> Embeddings:
        """float32 [captions, dim]."""
        known = {caption: self._held.get(caption) for caption in captions}
        new = [caption for caption, embedding in known.items() if embedding is None]
        fresh = dict(zip(new, self._encode(new), strict=True)) if new else {}
        self.encoded += len(new)
        found = {caption: fresh[caption].copy() if held is None else held for caption, held in known.items()}
        for caption, embedding in found.items():  # the last used ones are last
            self._held.pop(caption, None)
            self._held[caption] = embedding
        for caption in list(self._held)[: max(0, len(self._held) - self._most)]:
            del self._held[caption]
        return np.stack([found[caption] for caption in captions])
