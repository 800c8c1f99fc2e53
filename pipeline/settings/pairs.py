"""Where pairs come from: the tables `[pairs]` and `[demo]`."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from pipeline.errors import SourceError
from pipeline.redact import redact
from pipeline.settings.fields import Table, existing_path

ADDRESS = ("http://", "https://")
"""How the location of a list begins that is not a local file."""


def _location(location: str, info: ValidationInfo) -> str:
    return location if location.startswith(ADDRESS) else str(existing_path(Path(location), info))


class Pairs(Table):
    """Where the (URL, caption) rows come from, and which columns mean what."""

    location: Annotated[str, AfterValidator(_location)] = Field(
        description="a file (relative to this one) or an http(s) address; .gz is unpacked"
    )
    format: Literal["tsv", "csv", "parquet", "jsonl"] | None = Field(None, description="by the file's ending if unset")
    columns: tuple[str, ...] | None = Field(None, description="the columns of a TSV or CSV without a header line")
    url: str = "url"
    caption: str = "caption"
    extra: tuple[str, ...] = Field((), description="columns that travel along: labels, keys, answers")

    @property
    def safe_location(self) -> str:
        """`location` without secrets, for messages."""
        return redact(self.location)

    @property
    def is_address(self) -> bool:
        """Whether the list is behind an http(s) address, and no local file."""
        return self.location.startswith(ADDRESS)

    @property
    def file_format(self) -> str:
        """`format`, or else the format that the ending of the file means. Raises SourceError for an unknown ending."""
        if self.format:
            return self.format
        name = urlsplit(self.location).path.removesuffix(".gz")
        ending = name.rpartition(".")[2].lower()
        formats = {"tsv": "tsv", "csv": "csv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
        if ending not in formats:
            raise SourceError(f"{self.safe_location}: unknown ending; set format = tsv, csv, parquet or jsonl")
        return formats[ending]


class Demo(Table):
    """The embedded source: scenes rendered on this machine and served over loopback HTTP with planted faults."""

    pairs: int = Field(2500, ge=50, le=1_000_000)
    test_images: int = Field(400, ge=50)
    seed: int = 7
    stream: Literal["pool", "calibration"] = Field("pool", description="two streams of one seed share no scene")
    port: int = Field(8377, ge=1024, le=65535)
