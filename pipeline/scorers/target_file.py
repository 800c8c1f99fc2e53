"""The features of a target set, as the scorer of kind target_features stores them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = "features.parquet"
"""A file beside the scores: a row a feature, with its share of the target, and its centroid of length 1."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Target:
    """The file `FEATURES`: `centroids` [features, dim], of length 1, and the `shares` [features] of the target.

    `of` is the scorer of the embeddings, `temperature` that of the soft assignment.
    """

    of: str
    temperature: float
    centroids: Vectors
    shares: npt.NDArray[np.float64]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The stored features."""
        table = pq.read_table(path)
        settings = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        centroids = np.stack([np.asarray(row, np.float32) for row in table["centroid"].to_numpy(zero_copy_only=False)])
        return cls(settings["of"], float(settings["temperature"]), centroids, table["share"].to_numpy())

    def write(self, path: Path) -> None:
        """Write the file."""
        table = pa.table({"share": self.shares, "centroid": pa.array(list(self.centroids), pa.list_(pa.float32()))})
        settings = {"of": self.of, "temperature": repr(self.temperature)}
        pq.write_table(table.replace_schema_metadata(settings), path, compression="zstd")
