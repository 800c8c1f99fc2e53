"""The pictures of test sets, with their hashes and embeddings, and the search for their nearest one."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
from PIL import Image

from pipeline.images import picture_sets, variants
from pipeline.images.phash import phash
from pipeline.neighbours import hamming
from pipeline.neighbours.cosine import normalize
from pipeline.neighbours.hamming import Hashes
from pipeline.progress import StepProgress
from pipeline.scorers.spec import WINDOW

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

BLOCK = 1024
"""Pictures of the pool whose embeddings are compared with all test pictures at a time."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SetPicture:
    """A test picture, upright and RGB."""

    set: str
    name: str
    sha256: str
    image: Image.Image


@dataclass(frozen=True)
class EmbeddingRule:
    """A leak by embeddings of the scorer `of`: a cosine of at least `similarity`, and hashes within `loose` bits."""

    of: str
    loose: int
    similarity: float


@dataclass(frozen=True)
class LeakIndex:
    """The test pictures. `names` has the columns set and image. `hashes` [pictures, variants] starts with the picture's
    own hash. `vectors` [pictures, dim] are normalised; None without a model."""

    names: pa.Table
    sha256: pa.Array
    hashes: Hashes
    vectors: Floats | None

    @classmethod
    def read(cls, pictures: Iterable[SetPicture], encoder: "Clip | None") -> Self:
        """The index of all pictures, which are read one after another. At most `WINDOW` are held for the encoder."""
        names: list[tuple[str, str, str]] = []
        hashes: list[list[int]] = []
        held: list[npt.NDArray[np.uint8]] = []
        parts: list[Floats] = []
        for each in pictures:
            names.append((each.set, each.name, each.sha256))
            hashes.append([phash(variant) for variant in variants.variants(each.image)])
            if encoder is not None:
                held.append(encoder.prepare(each.image))
            if encoder is not None and len(held) == WINDOW:
                parts.append(encoder.encode_pictures(held))
                held = []
        if encoder is not None and held:
            parts.append(encoder.encode_pictures(held))
        table = pa.table({"set": [name for name, *_ in names], "image": [image for _, image, _ in names]})
        sha256 = pa.array([digest for *_, digest in names], pa.string())
        return cls(table, sha256, np.array(hashes, np.uint64), np.concatenate(parts) if parts else None)

    def by_hash(
        self, hashes: Hashes, radius: int, progress: StepProgress
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """For each hash, the bits to the nearest test picture or variant, and the index of that picture.

        255 and -1 if none is within the radius. Of equals, a picture's own hash comes before all variants.
        """
        bits, target = hamming.nearest_targets(hashes, self.hashes.T.ravel(), radius, progress)
        return bits, np.where(target < 0, -1, target % max(len(self.hashes), 1))

    def by_vector(
        self, embeddings: npt.NDArray[np.float16], hashes: Hashes, rule: EmbeddingRule
    ) -> tuple[Floats, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """For each embedding [n, dim] and hash [n], the highest cosine with any test picture, NaN without an embedding.

        And of the test pictures that the rule finds, the bits to the one with the highest cosine, and its index: 255
        and -1 if it finds none.
        """
        assert self.vectors is not None
        best = np.empty(len(embeddings), np.float32)
        bits, target = np.full(len(embeddings), 255, np.uint8), np.full(len(embeddings), -1)
        for start in range(0, len(embeddings), BLOCK):
            cosines = normalize(embeddings[start : start + BLOCK]) @ self.vectors.T
            best[start : start + BLOCK] = cosines.max(axis=1)
            row, other = np.nonzero(cosines >= rule.similarity)
            apart = np.bitwise_count(hashes[start + row, None] ^ self.hashes[other]).min(axis=1, initial=255)
            near = np.flatnonzero(apart <= rule.loose)
            near = near[np.argsort(cosines[row[near], other[near]], kind="stable")]  # the highest is assigned last
            bits[start + row[near]], target[start + row[near]] = apart[near], other[near]
        return best, bits, target


def open_pictures(sets: Iterable[tuple[str, Path, Iterable[tuple[str, bytes]]]]) -> Iterator[SetPicture]:
    """The decoded pictures of all sets. A set is a name, a path, and names and bytes of pictures."""
    for set_, path, pictures in sets:
        for name, content in pictures:
            digest = hashlib.sha256(content).hexdigest()
            yield SetPicture(set_, name, digest, picture_sets.decode(path, name, content))
