"""Reading a list of pairs: TSV, CSV, Parquet or JSON lines, a local file or an http(s) address, plain or gzipped.

A line that cannot be parsed is not lost. It becomes a pair without a URL whose caption is the line itself, and so a
failed row of the manifest. Each invalid UTF-8 sequence becomes U+FFFD before anything is hashed.
"""

import csv
import gzip
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ledger.list_formats import check_names, parquet_batches, text_batches
from pipeline.schema import ORIGIN
from pipeline.settings.pairs import Pairs
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.web import trusted
from pipeline.web.trusted import AddressError


def read(pairs: Pairs, scratch: Path) -> Iterator[pa.RecordBatch]:
    """Batches with the columns url and caption (strings, never NULL) and the extra columns.

    Extra columns are strings; those of a Parquet list keep their type. A list behind an address is downloaded into
    `scratch`. Raises SourceError for a list that is empty, cannot be read, or lacks a column.
    """
    path = _local(pairs, scratch)
    try:
        batches = parquet_batches(path, pairs) if pairs.file_format == "parquet" else text_batches(path, pairs)
        first = next(batches, None)
        if first is None:
            raise SourceError(f"{pairs.safe_location} has no rows")
        yield from chain([first], batches)
    except (pa.ArrowInvalid, gzip.BadGzipFile, EOFError, csv.Error, IsADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{pairs.safe_location} cannot be read as {pairs.file_format}: {reason}") from error


def extra_columns(source: Source) -> pa.Schema | None:
    """The extra columns and their types, before the list is read; None if only a list behind an address can tell."""
    if source.pairs is not None:
        return _extra_columns(source.pairs)
    types: dict[str, pa.DataType] = {ORIGIN: pa.string()} if source.union else {}
    for member, _ in members(source):
        columns = extra_columns(member)
        if columns is None:
            return None
        for field in columns:  # a column with one name and two types in two members becomes text
            types[field.name] = field.type if types.get(field.name, field.type) == field.type else pa.string()
    return pa.schema(types)


def _extra_columns(pairs: Pairs) -> pa.Schema | None:
    if pairs.file_format != "parquet":
        return pa.schema({name: pa.string() for name in pairs.extra})
    if pairs.is_address:
        return None
    try:
        schema = pq.read_schema(pairs.location)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{pairs.safe_location} is no Parquet: {str(error).splitlines()[0]}") from error
    check_names(schema.names, pairs)
    return pa.schema([schema.field(name) for name in pairs.extra])


def _local(pairs: Pairs, scratch: Path) -> Path:
    """The list as a local file, downloaded if need be."""
    if not pairs.is_address:
        return Path(pairs.location)
    target = scratch / "list"
    try:
        with trusted.stream(pairs.location) as blocks, target.open("wb") as file:
            for block in blocks:
                file.write(block)
    except AddressError as error:
        fault = f"{pairs.safe_location} cannot be fetched: {error}; check the address, or name a local copy"
        raise SourceError(fault) from None
    return target
