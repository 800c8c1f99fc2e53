"""What a scorer is. It computes columns for a window of pairs, and has never heard of shards, files or thresholds.

A scorer looks at pictures, captions or the source's extra columns. A head looks at stored embeddings of another
scorer, so a new head never decodes a picture again. Both are described in the source file by a spec, which is light:
it knows its columns and its identity, and loads the heavy thing only when there is something to score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

WINDOW = 1024
"""Pairs in a batch, at most."""

Columns: TypeAlias = Mapping[str, "npt.NDArray[Any] | pa.Array"]
"""Values by column name, each as long as the batch. NULL in an Arrow array, or NaN, means unscored."""


@dataclass(frozen=True)
class Batch:
    """A window of at most `WINDOW` downloaded pairs of one shard, all sequences aligned by position.

    `images` holds what the scorer's `prepare` made of each picture (the RGB picture itself without a `prepare`);
    pairs that share a URL share the very same object, so `is` finds what need not be computed twice.
    `extra` holds the source's extra columns and the download's (width, height, sha256).
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
    def embedding_dim(self) -> int | None: ...

    def score(self, batch: Batch) -> Columns: ...


@runtime_checkable
class Prepares(Protocol):
    """A scorer that turns the picture into what it needs in the decode pool."""

    def prepare(self, image: Image.Image) -> Any: ...


class Head(Protocol):
    """A plain function on stored image embeddings: float32 [rows, dim], L2-normalised, no NaN."""

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns: ...


class Spec(BaseModel):
    """One `[scorers.NAME]` table of a source file. Importing or validating a spec imports no torch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def columns(self) -> Mapping[str, pa.DataType]:
        """Column names without the scorer's name as prefix, and their types."""
        raise NotImplementedError

    def identity(self) -> Mapping[str, Any]:
        """JSON with everything that can change a score: versions, digests of weights, preprocessing, precision."""
        raise NotImplementedError

    def load(self) -> Scorer | Head:
        """The loaded scorer. Heavy; raises ModelError where weights are missing or do not fit."""
        raise NotImplementedError


def existing(path: Path, info: ValidationInfo) -> Path:
    """A path relative to the source file that names it. Raises ValueError if nothing is there."""
    folder = (info.context or {}).get("folder", Path())
    resolved = Path(folder, path.expanduser())
    if not resolved.exists():
        raise ValueError(f"there is no file {resolved}")
    return resolved


ExistingPath = Annotated[Path, AfterValidator(existing)]
"""A file or folder named in a source file, relative to that file's own folder. It must exist."""


class HeadSpec(Spec):
    """A head: reads the image embeddings that the scorer `of` stored."""

    of: str
