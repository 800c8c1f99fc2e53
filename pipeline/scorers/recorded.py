"""Embeddings that somebody already computed, looked up by columns of the source."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from pipeline.score import ExistingPath, Scorer, Spec

VERSION = 1


class Recording(BaseModel):
    """A Parquet file of embeddings and the two columns that join it to the source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: ExistingPath = Field(description="Parquet, one row a key")
    key: str = Field(description="the file's column to look up in")
    column: str = Field("embedding", description="the file's column of embeddings: lists of float16 or float32")
    by: str = Field(description="the source's extra column to look up, or caption or url")
    where: dict[str, str | int] = Field({}, description="look only at the file's rows with these values")


class RecordedSpec(Spec):
    """Cosine of recorded image and text embeddings; needs no picture."""

    kind: Literal["recorded"]
    model: str = Field(description="what computed them, as MODEL/WEIGHTS: ViT-B-32-quickgelu/openai")
    image: Recording
    text: Recording

    def columns(self) -> Mapping[str, pa.DataType]:
        """similarity: cosine of the embeddings, -1 to 1; NULL where a key is missing."""
        return {"similarity": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Digests of the files, and the settings."""
        raise NotImplementedError

    def load(self) -> Scorer:
        """The two tables, in memory."""
        raise NotImplementedError
