"""Writes the columns of one scorer for one shard. They are checked, and aligned with the pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.schema import score_column
from pipeline.scorers.spec import NORM, Columns, Spec
from pipeline.store.parquet import ROW_GROUP


class ScoreWriter:
    """Collects the scores of a shard's rows, window by window, and writes them. Rows without a score are NULL."""

    def __init__(self, name: str, spec: Spec, rows: int, scratch: Path, dim: int | None) -> None:
        self._name, self._scratch = name, scratch
        self._promised = spec.columns()
        self._chunks: dict[str, list[pa.Array]] = {column: [] for column in self._promised}
        self._place = np.full(rows, -1, np.int64)
        self._scored = 0
        self._embeddings: npt.NDArray[np.float16] | None = None
        if dim is not None:
            self._embeddings = np.lib.format.open_memmap(
                scratch / f"{name}.npy", mode="w+", dtype=np.float16, shape=(rows, 2, dim)
            )
            self._embeddings[:] = np.nan

    def add(self, rows: npt.NDArray[np.int64], columns: Columns) -> None:
        """Add the values of these rows. Raises ValueError unless the columns and types are those of the spec."""
        expected = set(self._promised) | ({"embeddings"} if self._embeddings is not None else set())
        if set(columns) != expected:
            raise ValueError(f"it promised the columns {sorted(expected)} and returned {sorted(columns)}")
        for column, kind in self._promised.items():
            self._chunks[column].append(_checked(column, columns[column], kind, rows))
        if self._embeddings is not None:
            self._embeddings[rows] = _checked_embeddings(columns["embeddings"], rows, self._embeddings.shape[2])
        self._place[rows] = np.arange(self._scored, self._scored + len(rows))
        self._scored += len(rows)

    def write(self, uids: pa.ChunkedArray) -> Path:
        """Write the score Parquet: uid and the columns, a row for each pair. The same values give the same bytes."""
        place = pa.array(self._place, mask=self._place < 0)
        columns = {"uid": uids}
        for column, kind in self._promised.items():
            columns[score_column(self._name, column)] = (
                pa.chunked_array(self._chunks[column], kind).combine_chunks().take(place)
            )
        path = self._scratch / f"{self._name}.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=ROW_GROUP, compression="zstd")
        return path

    def write_embeddings(self) -> Path:
        """Write the .npy file of the embeddings. Nothing can be added afterwards."""
        assert isinstance(self._embeddings, np.memmap)
        self._embeddings.flush()
        self._embeddings = None
        return self._scratch / f"{self._name}.npy"


def _checked(column: str, values: Any, kind: pa.DataType, rows: npt.NDArray[np.int64]) -> pa.Array:
    """The values as an Arrow array of the promised type. NULL is a missing score; NaN is an error."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    if len(array) != len(rows):
        raise ValueError(f"column {column!r} has {len(array)} values for {len(rows)} pairs")
    if array.type != kind:
        raise ValueError(f"column {column!r} is {array.type}, and {kind} was promised")
    if pa.types.is_floating(kind):
        strange = np.flatnonzero(~pc.fill_null(pc.is_finite(array), True).to_numpy(zero_copy_only=False))
        if len(strange):
            raise ValueError(f"column {column!r} is {array[strange[0]].as_py()} at row {rows[strange[0]]}")
    return array


def _checked_embeddings(values: Any, rows: npt.NDArray[np.int64], dim: int) -> npt.NDArray[np.float16]:
    """Normalised vectors as float16, NaN for missing ones."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.shape != (len(rows), 2, dim):
        raise ValueError(f"embeddings must be a float32 array of shape {(len(rows), 2, dim)}")
    norms = np.linalg.norm(values, axis=2)
    wrong = np.flatnonzero((np.abs(norms - 1) > NORM).any(axis=1))  # a comparison with NaN is false
    if len(wrong):
        raise ValueError(
            f"the embedding at row {rows[wrong[0]]} has norm {np.nanmax(norms[wrong[0]]):.3g} instead of 1"
        )
    return np.where(np.isnan(norms)[:, :, None], np.nan, values).astype(np.float16)
