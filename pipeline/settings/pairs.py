"""Where pairs come from: the tables `[pairs]` and `[demo]`."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from pipeline.errors import SourceError
from pipeline.redact import redact
from pipeline.settings.fields import Table, existing_path


def _located(location: str, info: ValidationInfo) -> str:
    return location if location.startswith(("http://", "https://")) else str(existing_path(Path(location), info))


class Pairs(Table):
    """Where the (URL, caption) rows come from, and which columns mean what."""

    location: Annotated[str, AfterValidator(_located)] = Field(
        description="a file (relative to this one) or an http(s) address; .gz is unpacked"
    )
    format: Literal["tsv", "csv", "parquet", "jsonl"] | None = Field(None, description="by the file's ending if unset")
    columns: tuple[str, ...] | None = Field(None, description="the columns of a TSV or CSV without a header line")
    url: str = "url"
    caption: str = "caption"
    extra: tuple[str, ...] = Field((), description="columns that travel along: labels, keys, answers")

    @property
    def safe_location(self) -> str:
        """`location` as a message may have it."""
        return redact(self.location)

    @property
    def file_format(self) -> str:
        """The format, as said or by the ending. Raises SourceError if neither tells."""
        if self.format:
            return self.format
        name = urlsplit(self.location).path.removesuffix(".gz")
        ending = name.rpartition(".")[2].lower()
        kinds = {"tsv": "tsv", "csv": "csv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
        if ending not in kinds:
            raise SourceError(
                f"{self.safe_location}: no format is known for this ending; set format = tsv, csv, parquet or jsonl"
            )
        return kinds[ending]


class Demo(Table):
    """The embedded source: scenes rendered on this machine and served over HTTP on loopback, badly."""

    pairs: int = Field(2500, ge=50, le=1_000_000)
    test_images: int = Field(400, ge=50)
    seed: int = 7
    stream: Literal["pool", "calibration"] = Field("pool", description="two streams of one seed share no scene")
    port: int = Field(8377, ge=1024, le=65535)
