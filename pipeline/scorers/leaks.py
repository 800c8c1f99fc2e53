"""Pictures of the pool that are in a test set, or nearly: who trains on them has seen the answers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image
from pydantic import Field, model_validator

from pipeline.errors import ModelError, SourceError
from pipeline.images import picture_sets, variants
from pipeline.images.phash import phash
from pipeline.neighbours import hamming
from pipeline.neighbours.cosine import unit
from pipeline.neighbours.hamming import Hashes
from pipeline.progress import StepProgress
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import WINDOW, Columns, Pool, PoolSpec, Spec, scatter
from pipeline.settings.fields import ExistingPath
from pipeline.settings.task import TestSet

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

VERSION = 2
"""Raised whenever the same pool and sets would get other columns."""

BLOCK = 1024
"""Pictures of the pool whose embeddings are compared with all test pictures at a time."""

Floats = npt.NDArray[np.float32]


class LeaksSpec(PoolSpec):
    """How near each picture is to the nearest one of named test sets."""

    kind: Literal["leaks"]
    of: str = Field("pixels", description="the scorer that made the hashes")
    radius: int = Field(4, ge=0, le=12, description="bits of 64 in which a leaked picture's hash may differ")
    embeddings: str | None = Field(None, description="a clip scorer: its embeddings are compared as well")
    loose: int = Field(10, ge=0, le=32, description="bits, where the embeddings agree")
    similarity: float | None = Field(
        None, gt=0, le=1, description="the least cosine of embeddings that agree; means nothing to another model"
    )
    sets: dict[str, ExistingPath] = Field(
        {}, description="by name a folder, a tar, or a Parquet file with the pictures in a column image"
    )
    test: TestSet | None = Field(None, description="and the pictures that a list names; unset, those of task.test")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.embeddings is None) != (self.similarity is None):
            raise ValueError("embeddings and similarity go together: whose cosine, and from which on they agree")
        return self

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose model encodes the test pictures, if one is named, and the one that made the hashes."""
        return (self.embeddings, self.of) if self.embeddings else (self.of,)

    @property
    def model_of(self) -> str | None:
        """The scorer whose model encodes the test pictures, if one is named."""
        return self.embeddings

    def columns(self) -> Mapping[str, pa.DataType]:
        """leaked: whether a test picture has the same bytes; or it, or a variant (`pipeline.images.variants`), has a
        perceptual hash within `radius`, or one within `loose` and an embedding with a cosine of `similarity` or more.
        distance: bits to that hash, 0 for the same bytes; set, image: which one it is, of several the nearest by hash,
        or else by embedding. With `embeddings`, similarity: the highest cosine with any test picture, -1 to 1.

        All are NULL where there is no hash; distance, set and image where nothing leaked; similarity where there is no
        embedding.
        """
        named = {"leaked": pa.bool_(), "distance": pa.uint8(), "set": pa.string(), "image": pa.string()}
        return named | ({"similarity": pa.float32()} if self.embeddings else {})

    def identity(self) -> Mapping[str, Any]:
        """The version, the settings, and the digests of all files of the sets."""
        sets = {name: picture_sets.digest(path) for name, path in self.sets.items()}
        test = picture_sets.digest(self.test.folder, _listed(self.test)) if self.test else None
        settings = {"version": [VERSION, variants.VERSION], "radius": self.radius}
        settings |= {"loose": self.loose, "similarity": self.similarity} if self.embeddings else {}
        return {**settings, "sets": sets, **({"test": test} if test else {})}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` makes no 64-bit hash, `embeddings` is no model, or a set is empty."""
        if scorers[self.of].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.of!r} makes no phash; set of to a scorer of kind pixels")
        if self.embeddings and not isinstance(scorers[self.embeddings], ClipSpec):
            raise SourceError(
                f"{self.embeddings!r} cannot encode test pictures; set embeddings to a scorer of kind clip"
            )
        for name, path in self.sets.items():
            if not picture_sets.files(path):
                raise SourceError(f"there is no picture in {path}, which sets.{name} means")

    def load(self, of: Callable[[], Any] | None = None) -> "Leaks":
        """The hashes of the sets' pictures, and their embeddings. Raises ModelError for one that is none."""
        if not self.sets and not self.test:
            raise ModelError("there is no test set to compare with: name one in the scorer's sets, or in [task.test]")
        sets = [(name, path, picture_sets.read(path)) for name, path in self.sets.items()]
        if self.test is not None:
            folder = self.test.folder
            sets.append(("test", folder, picture_sets.read_files(folder, _listed(self.test))))
        known = Known.read(_opened(sets), of() if of else None)
        if not len(known.names):
            raise ModelError("the test sets hold no picture: there is nothing to compare with")
        agree = Agree(self.embeddings, self.loose, self.similarity) if self.embeddings and self.similarity else None
        return Leaks(f"{self.of}_phash", self.radius, known, agree)


@dataclass(frozen=True)
class Evaluated:
    """A test picture, upright and RGB."""

    set: str
    name: str
    sha256: str
    image: Image.Image


@dataclass(frozen=True)
class Agree:
    """The scorer whose embeddings are compared; within how many bits, and with which cosine at least, it is a leak."""

    of: str
    loose: int
    similarity: float


@dataclass(frozen=True)
class Known:
    """Test pictures: `names` has the columns set and image; `hashes` [pictures, versions], its own first; `vectors`
    [pictures, dim], normalised, None without a model."""

    names: pa.Table
    sha256: pa.Array
    hashes: Hashes
    vectors: Floats | None

    @classmethod
    def read(cls, pictures: Iterable[Evaluated], encoder: "Clip | None") -> Self:
        """Of all pictures, one after the other: as many are held as the encoder takes at once."""
        names: list[tuple[str, str, str]] = []
        hashes: list[list[int]] = []
        held: list[npt.NDArray[np.uint8]] = []
        parts: list[Floats] = []
        for each in pictures:
            names.append((each.set, each.name, each.sha256))
            hashes.append([phash(version) for version in variants.variants(each.image)])
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
        """By hash, the bits to the nearest test picture or version of one, and which it is: 255 and -1 if none is
        within the radius. Of equals, a picture's own hash comes before all versions."""
        bits, target = hamming.nearest_targets(hashes, self.hashes.T.ravel(), radius, progress)
        return bits, np.where(target < 0, -1, target % max(len(self.hashes), 1))

    def by_vector(
        self, embeddings: npt.NDArray[np.float16], hashes: Hashes, agree: Agree
    ) -> tuple[Floats, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """By embedding [n, dim] and hash [n]: the highest cosine with a test picture, NaN where it is no embedding; and
        the bits to that of the test pictures that agree which has the highest cosine, and which it is: 255 and -1 if
        none does."""
        assert self.vectors is not None
        best = np.empty(len(embeddings), np.float32)
        bits, target = np.full(len(embeddings), 255, np.uint8), np.full(len(embeddings), -1)
        for start in range(0, len(embeddings), BLOCK):
            cosines = unit(embeddings[start : start + BLOCK]) @ self.vectors.T
            best[start : start + BLOCK] = cosines.max(axis=1)
            row, other = np.nonzero(cosines >= agree.similarity)
            apart = np.bitwise_count(hashes[start + row, None] ^ self.hashes[other]).min(axis=1, initial=255)
            near = np.flatnonzero(apart <= agree.loose)
            near = near[np.argsort(cosines[row[near], other[near]], kind="stable")]  # the highest is written last
            bits[start + row[near]], target[start + row[near]] = apart[near], other[near]
        return best, bits, target


class Leaks:
    """Compares with the test pictures, which are few beside the pool."""

    def __init__(self, hashes: str, radius: int, known: Known, agree: Agree | None = None) -> None:
        self._hashes, self._radius, self._known, self._agree = hashes, radius, known, agree

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `LeaksSpec`."""
        column = pool.column(self._hashes).combine_chunks()
        present, hashes = column.is_valid().to_numpy(zero_copy_only=False), column.drop_null().to_numpy()
        distinct, picture = np.unique(hashes, return_inverse=True)
        distance, target = (each[picture] for each in self._known.by_hash(distinct, self._radius, progress))
        same = pc.index_in(
            pool.column("sha256").filter(column.is_valid()).combine_chunks(), value_set=self._known.sha256
        )
        target = np.where(same.is_valid(), pc.fill_null(same, 0), target)
        distance[same.is_valid()] = 0
        more = {}
        if self._agree is not None:
            embeddings = (stored[:, 0] for stored in pool.embeddings(self._agree.of))
            cosine, bits, other = self._compared(embeddings, pc.fill_null(column, 0).to_numpy(), self._agree)
            far = target < 0
            distance, target = np.where(far, bits[present], distance), np.where(far, other[present], target)
            more["similarity"] = pa.array(cosine[present], mask=np.isnan(cosine[present]))
        none = target < 0
        chosen = pa.array(target, mask=none)
        found = {
            "leaked": pa.array(~none),
            "distance": pa.array(distance, mask=none),
            **{name: self._known.names[name].combine_chunks().take(chosen) for name in ("set", "image")},
            **more,
        }
        return scatter(found, present)

    def _compared(
        self, embeddings: Iterable[npt.NDArray[np.float16]], hashes: Hashes, agree: Agree
    ) -> tuple[Floats, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """As `Known.by_vector`, shard after shard."""
        found, start = [], 0
        for vectors in embeddings:
            found.append(self._known.by_vector(vectors, hashes[start : start + len(vectors)], agree))
            start += len(vectors)
        cosine, bits, target = (np.concatenate(each) for each in zip(*found, strict=True))
        return cosine, bits, target


def _listed(test: TestSet) -> list[Path]:
    """The pictures that the list of a test set names, relative to its folder: others in the folder are none of it."""
    try:
        if test.location.suffix == ".parquet":
            table = pq.read_table(test.location, columns=[test.image])
        else:
            table = pyarrow.csv.read_csv(test.location).select([test.image])
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise ModelError(f"{test.location.name} is no list with a column {test.image!r}: {error}") from None
    listed = [Path(str(name)) for name in sorted(pc.unique(table[test.image]).to_pylist(), key=str)]
    if missing := next((name for name in listed if not (test.folder / name).is_file()), None):
        raise ModelError(f"{test.location.name}: there is no picture {test.folder / missing}")
    return listed


def _opened(sets: Iterable[tuple[str, Path, Iterable[tuple[str, bytes]]]]) -> Iterator[Evaluated]:
    """The pictures of all sets, which are a name, a path and contents."""
    for set_, path, pictures in sets:
        for name, content in pictures:
            digest = hashlib.sha256(content).hexdigest()
            yield Evaluated(set_, name, digest, picture_sets.decode(path, name, content))
