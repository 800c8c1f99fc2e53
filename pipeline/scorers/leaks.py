"""Pictures of the pool that are in a test set, or nearly. A model that is trained on them has seen the answers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from pipeline.errors import ModelError, SourceError
from pipeline.images import picture_lists, picture_sets, variants
from pipeline.neighbours.hamming import Hashes
from pipeline.progress import StepProgress
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.leak_index import EmbeddingRule, LeakIndex, open_pictures
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, scatter
from pipeline.settings.fields import ExistingPath
from pipeline.settings.task import TestSet

if TYPE_CHECKING:
    pass

VERSION = 2

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
        test = picture_sets.digest(self.test.folder, picture_lists.list_pictures(self.test)) if self.test else None
        settings = {"version": [VERSION, variants.VERSION], "radius": self.radius}
        settings |= {"loose": self.loose, "similarity": self.similarity} if self.embeddings else {}
        return {**settings, "sets": sets, **({"test": test} if test else {})}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` makes no 64-bit hash, `embeddings` is no model, a set is empty, or a
        picture of `test` is missing.

        Raises ModelError for a set that cannot be read.
        """
        if scorers[self.of].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.of!r} makes no phash; set of to a scorer of kind pixels")
        if self.embeddings and not isinstance(scorers[self.embeddings], ClipSpec):
            raise SourceError(
                f"{self.embeddings!r} cannot encode test pictures; set embeddings to a scorer of kind clip"
            )
        for name, path in self.sets.items():
            if picture_sets.is_empty(path):
                raise SourceError(f"there is no picture in {path}, which sets.{name} means")
        if self.test:
            picture_lists.list_pictures(self.test)

    def load(self, of: Callable[[], Any] | None = None) -> "Leaks":
        """Hashes and embeddings of the sets' pictures. Raises ModelError for a picture that cannot be decoded."""
        sets = [(name, path, picture_sets.read(path)) for name, path in self.sets.items()]
        if self.test is not None:
            folder = self.test.folder
            sets.append(("test", folder, picture_sets.read_files(folder, picture_lists.list_pictures(self.test))))
        index = LeakIndex.read(open_pictures(sets), of() if of else None)
        if not len(index.names):
            raise ModelError("the test sets hold no picture: there is nothing to compare with")
        rule = (
            EmbeddingRule(self.embeddings, self.loose, self.similarity) if self.embeddings and self.similarity else None
        )
        return Leaks(f"{self.of}_phash", self.radius, index, rule)


class Leaks:
    """Compares every picture of the pool with the test pictures."""

    def __init__(self, hashes: str, radius: int, index: LeakIndex, rule: EmbeddingRule | None = None) -> None:
        self._hashes, self._radius, self._index, self._rule = hashes, radius, index, rule

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `LeaksSpec`."""
        column = pool.column(self._hashes).combine_chunks()
        present, hashes = column.is_valid().to_numpy(zero_copy_only=False), column.drop_null().to_numpy()
        distinct, picture = np.unique(hashes, return_inverse=True)
        distance, target = (each[picture] for each in self._index.by_hash(distinct, self._radius, progress))
        same = pc.index_in(
            pool.column("sha256").filter(column.is_valid()).combine_chunks(), value_set=self._index.sha256
        )
        target = np.where(same.is_valid(), pc.fill_null(same, 0), target)
        distance[same.is_valid()] = 0
        more = {}
        if self._rule is not None:
            embeddings = (stored[:, 0] for stored in pool.embeddings(self._rule.of))
            cosine, bits, other = self._compared(embeddings, pc.fill_null(column, 0).to_numpy(), self._rule)
            far = target < 0
            distance, target = np.where(far, bits[present], distance), np.where(far, other[present], target)
            more["similarity"] = pa.array(cosine[present], mask=np.isnan(cosine[present]))
        none = target < 0
        chosen = pa.array(target, mask=none)
        found = {
            "leaked": pa.array(~none),
            "distance": pa.array(distance, mask=none),
            **{name: self._index.names[name].combine_chunks().take(chosen) for name in ("set", "image")},
            **more,
        }
        return scatter(found, present)

    def _compared(
        self, embeddings: Iterable[npt.NDArray[np.float16]], hashes: Hashes, rule: EmbeddingRule
    ) -> tuple[Floats, npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """`LeakIndex.by_vector` for all shards."""
        found, start = [], 0
        for vectors in embeddings:
            found.append(self._index.by_vector(vectors, hashes[start : start + len(vectors)], rule))
            start += len(vectors)
        cosine, bits, target = (np.concatenate(each) for each in zip(*found, strict=True))
        return cosine, bits, target
