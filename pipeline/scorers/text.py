"""Text in the stored picture: how much, whether it is the caption, and how well the picture fits without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import Field

from pipeline.errors import SourceError
from pipeline.images import text_detector
from pipeline.images.text_detector import TextDetector
from pipeline.scorers.captions import plain_words
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Batch, Columns, Scorer, SharingSpec, Spec

VERSION = 1


class TextSpec(SharingSpec):
    """Finds lines of text with PP-OCR's detector (`pipeline.images.text_detector`).

    With `of`, a clip scorer, it masks the text and scores the picture again (T-MARS: Maini et al. 2023, arXiv
    2307.03132).
    """

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["text"]
    side: int = Field(
        320, ge=64, le=2048, description="pictures with a shorter side below this are enlarged to it before the search"
    )
    recognition: bool = Field(
        False, description="read the text, for the column words_read; takes several times as long where there is text"
    )
    of: str | None = Field(None, description="a scorer of kind clip that scores the pictures again without their text")

    def columns(self) -> Mapping[str, pa.DataType]:
        """area: the share of the picture that boxes around text cover, 0 to 1. boxes: their number, one a line of text.

        With `recognition`, words_read: the share of the caption's distinct words that stand in the picture, 0 to 1;
        NULL for a caption without words. With `of`, masked_similarity: the cosine of caption and picture, -1 to 1, with
        every box filled with its mean colour. It is the similarity of `of` where there is no text.
        """
        columns: dict[str, pa.DataType] = {"area": pa.float32(), "boxes": pa.int32()}
        if self.recognition:
            columns["words_read"] = pa.float32()
        if self.of is not None:
            columns["masked_similarity"] = pa.float32()
        return columns

    def identity(self) -> Mapping[str, Any]:
        """Version, settings, and the models with the digests of their weights. Raises ModelError without the extra."""
        models = text_detector.identity(self.recognition, f"the scorer {self.kind}")
        return {"version": VERSION, "side": self.side, "rescored": self.of is not None, "models": models}

    def check(self, of: Spec) -> None:
        """Raises SourceError unless `of` has a CLIP that can score another picture."""
        if not isinstance(of, ClipSpec):
            raise SourceError(f"of: {self.of!r} is of kind {of.kind}; name a clip scorer, which scores again")

    def load(self, of: Callable[[], Any] | None = None) -> Scorer:
        """The scorer with its networks. Raises ModelError without the extra."""
        detector = TextDetector(self.side, self.recognition)
        return Text(self, detector, None if of is None else of())


@dataclass(frozen=True)
class Seen:
    """One picture. `masked` is the clip scorer's `prepare` of the picture without its text."""

    area: float
    boxes: int
    words: frozenset[str]
    masked: npt.NDArray[np.uint8] | None


class Text:
    """Finds and masks text in the decode pool, with one thread for each picture. `clip` scores the masked pictures."""

    embedding_dim = None

    def __init__(self, spec: TextSpec, detector: TextDetector, clip: Any) -> None:
        self._spec, self._detector, self._clip = spec, detector, clip

    def prepare(self, image: Image.Image) -> Seen:
        """What is known of a picture without its caption."""
        pixels = np.asarray(image)
        found = self._detector.find(pixels)
        masked = None
        if self._clip is not None:
            without = Image.fromarray(text_detector.masked(pixels, found)) if len(found.boxes) else image
            masked = self._clip.prepare(without)
        words = frozenset(word for line in found.lines for word in plain_words(line))
        return Seen(text_detector.covered(pixels.shape, found), len(found.boxes), words, masked)

    def score(self, batch: Batch) -> Columns:
        """The columns of `TextSpec`."""
        seen: Sequence[Seen] = batch.images
        columns: dict[str, Any] = {
            "area": np.array([each.area for each in seen], np.float32),
            "boxes": np.array([each.boxes for each in seen], np.int32),
        }
        if self._spec.recognition:
            read = [share_read(caption, each.words) for caption, each in zip(batch.captions, seen, strict=True)]
            columns["words_read"] = pa.array(read, pa.float32())
        if self._clip is not None:
            columns["masked_similarity"] = self._similarity(seen, batch.captions)
        return columns

    def _similarity(self, seen: Sequence[Seen], captions: Sequence[str]) -> npt.NDArray[np.float32]:
        pictures = self._clip.encode_pictures([each.masked for each in seen])
        similarity: npt.NDArray[np.float32] = np.einsum("nd,nd->n", pictures, self._clip.embed_captions(captions))
        return similarity


def share_read(caption: str, words: frozenset[str]) -> float | None:
    """The share of a caption's distinct words that are among `words`; None without words."""
    own = set(plain_words(caption))
    return len(own & words) / len(own) if own else None
