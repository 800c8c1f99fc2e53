"""The interfaces of scorers. A scorer computes columns for a window of pairs, without shards, files or thresholds.

A scorer reads pictures, captions or the source's extra columns. A head reads stored embeddings of another scorer, so a
new head needs no picture. A pool scorer reads all rows. A spec in the source file describes each of them. It is light:
it has the columns and the identity, and loads the scorer only when there is something to score.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline.progress import StepProgress
from pipeline.settings.fields import Table

WINDOW = 1024
"""The most pairs in a batch."""

NORM = 0.01
"""The largest difference between the norm of an embedding and 1."""

Columns: TypeAlias = Mapping[str, "npt.NDArray[Any] | pa.Array"]
"""Values by column name, each as long as the batch. NULL in an Arrow array means unscored; NaN is an error."""


@dataclass(frozen=True)
class Batch:
    """A window of at most `WINDOW` downloaded pairs of one shard, all sequences aligned by position.

    `images` holds the result of the scorer's `prepare` for each picture, or the RGB picture itself without a `prepare`.
    Pairs with the same URL share one object, so `is` finds repeated work. It is empty for a scorer whose spec does not
    look at pictures.
    `extra` holds url, the source's extra columns, and the download's width, height, bytes and sha256.
    """

    uids: Sequence[str]
    images: Sequence[Any]
    captions: Sequence[str]
    extra: pa.Table

    def __len__(self) -> int:
        return len(self.uids)


class Scorer(Protocol):
    """`score` returns exactly the columns its spec declares, one value a pair.

    A scorer with `embedding_dim` set also returns "embeddings": float32 [pairs, 2, embedding_dim], image then text,
    L2-normalised, NaN where there is none; they are stored as float16 beside the scores.
    A scorer may have `prepare(image: PIL.Image) -> Any`, picklable, which runs in the decode pool.
    """

    @property
    def embedding_dim(self) -> int | None:
        """Numbers in an embedding; None for a scorer that stores none."""
        ...

    def score(self, batch: Batch) -> Columns:
        """The columns of the spec, aligned with the batch."""
        ...


@runtime_checkable
class Prepares(Protocol):
    """A scorer with a part that runs in the decode pool."""

    def prepare(self, image: Image.Image) -> Any:
        """The value in `Batch.images` for an RGB picture."""
        ...


@runtime_checkable
class PreparesAnywhere(Prepares, Protocol):
    """Its `prepare` needs nothing of the scorer, so that it can run in processes of the decode pool."""

    @property
    def preparation(self) -> Callable[[Image.Image], Any]:
        """The same function as `prepare`, which pickles without the scorer."""
        ...


@runtime_checkable
class PerShard(Protocol):
    """In place of a `Scorer`: a scorer for each shard, which may have `prepare`."""

    def of_shard(self, number: int, key: str | None) -> Scorer:
        """The scorer of the shard whose pairs have the storage key `key`; None if a takedown has rewritten them."""
        ...


@runtime_checkable
class Certified(Protocol):
    """A scorer that is checked when it is loaded, before any shard is scored."""

    certificate: Mapping[str, Any]
    """JSON about the model, with "golden", the scores of fixed pairs, and "tolerance" by "precision"."""


class Head(Protocol):
    """A function of stored image embeddings: float32 [rows, dim], L2-normalised, no NaN."""

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns:
        """The columns of the spec, aligned with the rows."""
        ...


class Spec(Table):
    """One `[scorers.NAME]` table of a source file. Importing or validating a spec imports no torch."""

    looks_at_pictures: ClassVar[bool] = False
    reads_extra: ClassVar[bool] = False
    """Whether results may depend on the extra columns of a pair."""

    kind: str

    @property
    def encoder(self) -> str | None:
        """The model of its stored embeddings, as MODEL/WEIGHTS; None if it stores none."""
        return None

    @property
    def without_embeddings(self) -> str:
        """Why `encoder` is None, for the error of a scorer that reads its embeddings."""
        return "stores no embeddings"

    @property
    def model_folders(self) -> Sequence[Path]:
        """The open_clip folders of its models."""
        return ()

    @property
    def reads(self) -> Sequence[str]:
        """The columns of the source that it needs, besides the caption."""
        return ()

    @property
    def builds_on(self) -> Sequence[str]:
        """The names of the scorers whose results it reads."""
        return ()

    def columns(self) -> Mapping[str, pa.DataType]:
        """Column names without the scorer's name as prefix, and their types."""
        raise NotImplementedError

    def identity(self) -> Mapping[str, Any]:
        """JSON with everything that can change a score: versions, digests of weights, preprocessing, precision."""
        raise NotImplementedError

    def check_source(self, name: str) -> None:
        """Raises ModelError for a scorer that was made for another source than that of this name."""

    def load(self) -> "Scorer | PerShard | Head | PoolScorer":
        """The loaded scorer. Slow. Raises ModelError if weights are missing or do not fit."""
        raise NotImplementedError


class HeadSpec(Spec):
    """A head: reads the image embeddings that the scorer `of` stored."""

    of: str

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose embeddings it reads."""
        return (self.of,)

    def check(self, of: Spec) -> None:
        """Raises ModelError if the head was not made for embeddings of `of` (see its `encoder`)."""
        raise NotImplementedError

    def load(self, of: "Callable[[], Any] | None" = None) -> Head:
        """The loaded head. `of` returns the loaded scorer `of`, for a head that needs its model."""
        raise NotImplementedError


class SharingSpec(Spec):
    """A scorer of pairs that shares the loaded model of another scorer, `of`, if one is named."""

    of: str | None = None

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose model it uses."""
        return () if self.of is None else (self.of,)

    def check(self, of: Spec) -> None:
        """Raises SourceError if `of` has no model that it can use."""
        raise NotImplementedError

    def load(self, of: "Callable[[], Any] | None" = None) -> Scorer:
        """The loaded scorer. `of` returns the loaded scorer `of`; None if none is named."""
        raise NotImplementedError


class PoolSpec(Spec):
    """A score that needs all rows. It is computed when every shard has all other scores."""

    files: ClassVar[Sequence[str]] = ()
    """Names of files that the scorer writes to the pool's folder. They are stored beside its results."""

    @property
    def model_of(self) -> str | None:
        """The name of the scorer whose loaded model it needs; None if stored results are enough."""
        return None

    def check(self, scorers: "Mapping[str, Spec]") -> None:
        """Raises SourceError if the scorers of `builds_on` do not have the columns or embeddings that it needs."""
        raise NotImplementedError

    def load(self, of: "Callable[[], Any] | None" = None) -> "PoolScorer":
        """The loaded scorer. `of` returns the loaded scorer `model_of`; None if `model_of` is None."""
        raise NotImplementedError


class Pool(Protocol):
    """All downloaded pairs that are in the source now, a row each, in ledger order (`pipeline.scoring.pool`).

    `rows` is a Parquet file with uid, url, caption, sha256 and every column of the scorers that the spec builds on.
    `folder` is private to the run, and removed afterwards.
    """

    folder: Path
    rows: Path

    def __len__(self) -> int: ...

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all rows."""
        ...

    def embeddings(self, of: str) -> Iterator[npt.NDArray[np.float16]]:
        """The stored embeddings of a scorer, shard after shard: float16 [rows, 2, dim], NaN where there is none."""
        ...


class PoolScorer(Protocol):
    """What a `PoolSpec` loads. It runs once, for all rows."""

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of the spec, aligned with the pool's rows. The same pool must give the same values."""
        ...


def scatter(columns: Mapping[str, pa.Array], present: npt.NDArray[np.bool_]) -> Mapping[str, pa.Array]:
    """Columns of the rows that are `present`, as columns of all rows: NULL in the others."""
    place = pa.array(np.cumsum(present) - 1, mask=~present)
    return {name: values.take(place) for name, values in columns.items()}
