"""Embeddings that already exist in Parquet files, looked up by columns of the source."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from pipeline.errors import ModelError
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.settings.fields import ExistingPath, Table
from pipeline.store.kept_digests import digest_of

VERSION = 1

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,300}))(?:\.0+)?", re.ASCII)


class Recording(Table):
    """A Parquet file of embeddings, and the two columns that join it to the source."""

    file: ExistingPath = Field(description="Parquet, one row a key")
    key: str = Field(description="the file's column to look up in")
    column: str = Field("embedding", description="the file's column of embeddings: lists of float16 or float32")
    by: str = Field(description="what to look up: an extra column of the source, or caption, or url")
    where: dict[str, str | int] = Field({}, description="look only at the file's rows with these values")

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        try:
            known = pq.read_schema(self.file).names
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self.file} is no Parquet: {error}") from error
        for column in (self.key, self.column, *self.where):
            if column not in known:
                raise ValueError(f"{self.file.name} has no column {column!r}; it has {', '.join(known[:20])}")
        return self

    def identity(self) -> Mapping[str, Any]:
        """The file's digest, and how it is read."""
        return {**self.model_dump(mode="json", exclude={"file"}), "file": digest_of(self.file)}


class RecordedSpec(Spec):
    """Cosine of recorded image and text embeddings; needs no picture."""

    reads_extra: ClassVar[bool] = True
    kind: Literal["recorded"]
    model: str = Field(description="the model that computed them, as MODEL/WEIGHTS: ViT-B-32-quickgelu/openai")
    image: Recording
    text: Recording

    @property
    def encoder(self) -> str:
        """The model that the source file names."""
        return self.model

    @property
    def reads(self) -> Sequence[str]:
        """The columns that are looked up."""
        return self.image.by, self.text.by

    def columns(self) -> Mapping[str, pa.DataType]:
        """similarity: cosine of the embeddings, -1 to 1; NULL where a key is missing."""
        return {"similarity": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Digests of the files, and the settings."""
        return {
            "version": VERSION,
            "model": self.model,
            "image": self.image.identity(),
            "text": self.text.identity(),
        }

    def load(self) -> Scorer:
        """The two tables, in memory. Raises ModelError for vectors that do not fit."""
        image, text = Vectors(self.image), Vectors(self.text)
        if image.dim != text.dim:
            raise ModelError(
                f"{self.image.file.name} holds vectors of {image.dim} numbers and {self.text.file.name} of {text.dim}: "
                "use embeddings of one model"
            )
        return Recorded(image, text)


class Vectors:
    """Vectors by key, in the precision of the file, normalised on lookup."""

    def __init__(self, recording: Recording) -> None:
        self.by, name = recording.by, recording.file.name
        table = pq.read_table(recording.file, columns=list({recording.key, recording.column, *recording.where}))
        for column, value in recording.where.items():
            table = table.filter(pc.equal(table[column].cast(pa.string()), str(value)))
        table = table.filter(pc.is_valid(table[recording.column]))
        table = table.filter(pc.is_valid(table[recording.key]))
        keys = [str(key) for key in table[recording.key].to_pylist()]
        self._rows = {key: row for row, key in enumerate(keys)}
        self._whole = _by_whole(keys)
        if not keys:
            raise ModelError(
                f"{name} has no embeddings where {dict(recording.where)}; correct where, or name another file"
            )
        lists = table[recording.column].combine_chunks()
        values = lists.flatten().to_numpy(zero_copy_only=False)
        self.dim = len(lists[0])
        if pc.any(pc.not_equal(pc.list_value_length(lists), self.dim)).as_py() or values.dtype.kind != "f":
            raise ModelError(f"{name}: {recording.column} must hold lists of floats, all of one length")
        self._values = values.reshape(len(keys), self.dim)
        for row, key in enumerate(keys):
            last = self._rows[key]
            if row != last and not np.array_equal(self._values[row], self._values[last], equal_nan=True):
                raise ModelError(
                    f"{name}: {recording.key} = {key!r} has several vectors; choose one with where = {{...}}"
                )

    def row(self, key: Any) -> int | None:
        """The row with the same text, or else the only one with the same whole number; None if there is none."""
        if key is None:
            return None
        found = self._rows.get(str(key))
        return self._whole.get(_whole(str(key))) if found is None else found

    def look_up(self, keys: Sequence[Any]) -> npt.NDArray[np.float32]:
        """float32 [keys, dim], L2-normalised; NaN for a missing key, and for a vector of zeros."""
        found = np.full((len(keys), self.dim), np.nan, np.float32)
        rows = [(place, row) for place, key in enumerate(keys) if (row := self.row(key)) is not None]
        if rows:
            places, sources = np.array(rows).T
            found[places] = self._values[sources]
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        norms[norms == 0] = np.nan
        normalised: npt.NDArray[np.float32] = found / norms
        return normalised


class Recorded:
    """Looks up embeddings, and computes their cosine."""

    def __init__(self, image: Vectors, text: Vectors) -> None:
        self._image, self._text = image, text
        self.embedding_dim: int | None = image.dim

    def score(self, batch: Batch) -> Columns:
        """similarity, and the embeddings."""
        image, text = (vectors.look_up(_values(batch, vectors.by)) for vectors in (self._image, self._text))
        similarity = pa.array(np.einsum("nd,nd->n", image, text), from_pandas=True)
        return {"similarity": similarity, "embeddings": np.stack([image, text], axis=1)}


def _by_whole(keys: Sequence[str]) -> dict[int | None, int]:
    """The row of each whole number that exactly one of the distinct keys stands for, as 1 and 1.0 do."""
    rows = {key: row for row, key in enumerate(keys)}
    numbers = {key: number for key in rows if (number := _whole(key)) is not None}
    counts = Counter(numbers.values())
    return {number: rows[key] for key, number in numbers.items() if counts[number] == 1}


def _whole(key: str) -> int | None:
    """The whole number that a key stands for: 7 for 7, 7.0 and 7.00; None for 07, 7.5, 1e3 and other text."""
    found = _WHOLE.fullmatch(key)
    return int(found[1]) if found else None


def _values(batch: Batch, column: str) -> Sequence[Any]:
    if column == "caption":
        return batch.captions
    values: list[Any] = batch.extra[column].to_pylist()
    return values
