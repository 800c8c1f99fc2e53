"""Recorded embeddings of DataComp and clip-retrieval: files aligned row by row with Parquet, joined by a key."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from pipeline.errors import ModelError
from pipeline.scorers import embedding_files
from pipeline.scorers.embedding_files import Embeddings, Part
from pipeline.scorers.key_index import KeyIndex
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.settings.fields import ExistingPath

VERSION = 1

UID = "uid"
"""As `by`: winnow's own uid of a pair."""


class AlignedSpec(Spec):
    """Cosine of image and text embeddings in files of others; needs no picture."""

    reads_extra: ClassVar[bool] = True
    model: str = Field(description="the model that computed them, as MODEL/WEIGHTS: ViT-L-14-quickgelu/openai")
    folder: ExistingPath
    key: str | tuple[str, ...] = Field(description="the column of the Parquet to look up in, or several")
    by: str | tuple[str, ...] = Field(
        description="what is looked up, as many: url, caption, an extra column of the source, or uid, which is winnow's"
    )

    @model_validator(mode="after")
    def _as_many(self) -> "AlignedSpec":
        if len(self.keys) != len(self.columns_of_source) or not self.keys:
            raise ValueError(f"key and by name as many columns: {list(self.keys)} and {list(self.columns_of_source)}")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the Parquet that are the key."""
        return (self.key,) if isinstance(self.key, str) else self.key

    @property
    def columns_of_source(self) -> tuple[str, ...]:
        """The columns of the source that are looked up."""
        return (self.by,) if isinstance(self.by, str) else self.by

    @property
    def encoder(self) -> str:
        """The model that the source file names."""
        return self.model

    @property
    def reads(self) -> Sequence[str]:
        """The columns that are looked up, but for winnow's uid."""
        return [column for column in self.columns_of_source if column != UID]

    def parts(self) -> list[Part]:
        """The files, in an order that does not depend on the disk. Raises ModelError if one is missing."""
        raise NotImplementedError

    def columns(self) -> Mapping[str, pa.DataType]:
        """similarity: cosine of the embeddings, -1 to 1. rows: how many rows of the files have the pair's key.

        image_norm and text_norm: the lengths of the vectors as they are in the files; NULL without a row, with several
        that differ, and for a vector that is not finite. similarity is NULL then, too, and for a vector of zeros.
        """
        return {"similarity": pa.float32(), "rows": pa.int32(), "image_norm": pa.float32(), "text_norm": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Digests of the files, and the settings. Raises ModelError if a file or a column is missing."""
        parts = self.parts()
        for part in parts:
            _check_columns(part.keys, self.keys)
        settings = self.model_dump(mode="json", exclude={"kind", "folder"})
        return {"version": VERSION, **settings, "files": embedding_files.digests(parts)}

    def load(self) -> Scorer:
        """The index of the keys, in memory, and the mapped files. Raises ModelError for files that do not fit."""
        parts = self.parts()
        index = KeyIndex([part.keys for part in parts], self.keys)
        return Aligned(index, Embeddings(parts, index.counts), self.columns_of_source)


class DataCompSpec(AlignedSpec):
    """DataComp's metadata: NAME.parquet, and NAME.npz with the embeddings of two models."""

    kind: Literal["datacomp"]
    images: str = Field("l14_img", description="the array of image embeddings")
    texts: str = Field("l14_txt", description="the array of text embeddings")
    key: str | tuple[str, ...] = Field("uid", description="the column of the Parquet to look up in, or several")
    by: str | tuple[str, ...] = Field(
        "source_uid", description="what is looked up: url, caption, an extra column of the source, or uid of winnow"
    )

    def parts(self) -> list[Part]:
        """See `AlignedSpec.parts`."""
        return embedding_files.of_datacomp(self.folder, self.images, self.texts)


class ClipRetrievalSpec(AlignedSpec):
    """The output of clip-retrieval: img_emb/, text_emb/ and metadata/."""

    kind: Literal["clip_retrieval"]

    def parts(self) -> list[Part]:
        """See `AlignedSpec.parts`."""
        return embedding_files.of_clip_retrieval(self.folder)


class Aligned:
    """Looks up embeddings, and computes their cosine."""

    def __init__(self, index: KeyIndex, embeddings: Embeddings, by: Sequence[str]) -> None:
        self._index, self._embeddings, self._by = index, embeddings, by
        self.embedding_dim: int | None = embeddings.dim

    def score(self, batch: Batch) -> Columns:
        """The columns of the spec, and the embeddings."""
        keys = zip(*(_values(batch, column) for column in self._by), strict=True)
        found = [self._index.find(key) for key in keys]
        vectors = self._vectors(found)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(vectors, axis=2).astype(np.float32)
            norms[~np.isfinite(norms)] = np.nan
            vectors /= np.where(norms == 0, np.nan, norms)[..., None]
        return {
            "similarity": pa.array(np.einsum("nd,nd->n", vectors[:, 0], vectors[:, 1]), from_pandas=True),
            "rows": np.array([len(rows) for rows in found], np.int32),
            "image_norm": pa.array(norms[:, 0], from_pandas=True),
            "text_norm": pa.array(norms[:, 1], from_pandas=True),
            "embeddings": vectors,
        }

    def _vectors(self, found: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
        """float32 [pairs, 2, dim], image then text, of the rows of each pair; NaN without one, or where they differ."""
        vectors = np.full((len(found), 2, self._embeddings.dim), np.nan, np.float32)
        places = [place for place, rows in enumerate(found) if len(rows)]
        if places:
            vectors[places] = self._embeddings.read(np.array([found[place][0] for place in places]))
        for place in (place for place in places if len(found[place]) > 1):
            several = self._embeddings.read(found[place])
            if not all(np.array_equal(each, several[0], equal_nan=True) for each in several[1:]):
                vectors[place] = np.nan
        return vectors


def _values(batch: Batch, column: str) -> Sequence[Any]:
    if column == UID:
        return batch.uids
    if column == "caption":
        return batch.captions
    values: list[Any] = batch.extra[column].to_pylist()
    return values


def _check_columns(path: Path, keys: Sequence[str]) -> None:
    try:
        known = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise ModelError(f"{path} is no Parquet: {str(error).splitlines()[0]}") from None
    for column in keys:
        if column not in known:
            raise ModelError(f"{path.name} has no column {column!r}; it has {', '.join(known[:20])}")
