"""Reads a list of pairs: TSV, CSV, Parquet or JSON lines, local files or http(s) URLs, plain or gzipped.

A line that cannot be parsed is not lost. It becomes a pair without a URL, with the line as its caption, and so a failed
row of the manifest. Invalid bytes become U+FFFD before anything is hashed, and their rows are counted.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.ledger.asked import captioned
from pipeline.ledger.list_parquet import parquet_batches
from pipeline.ledger.list_questions import question_batches
from pipeline.ledger.list_rows import Notes, agreed_type, check_names
from pipeline.ledger.list_text import text_batches
from pipeline.schema import ORIGIN
from pipeline.settings.pairs import QUESTIONS, Pairs
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.web import trusted
from pipeline.web.trusted import AddressError


def read(pairs: Pairs, scratch: Path, warn: Callable[[str], None] = lambda line: None) -> Iterator[pa.RecordBatch]:
    """Batches with the columns url and caption (strings, never NULL) and the extra columns.

    Extra columns are strings. Those of a Parquet list keep their type, which may differ between files. A list at a URL
    is downloaded into `scratch`. `warn` is called with a line for each kind of suspect rows.
    Raises SourceError for a list that is empty, cannot be read, or lacks a column.
    """
    rows = 0
    for part in pairs.files:
        notes = Notes()
        for batch in _read(part, scratch, notes):
            rows += len(batch)
            yield captioned(batch, part) if part.question else batch
        for line in notes.lines(part):
            warn(line)
    if not rows:
        raise SourceError(f"{pairs.safe_location} has no rows")


def _read(pairs: Pairs, scratch: Path, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of one file."""
    path = _local(pairs, scratch)
    try:
        if pairs.file_format in QUESTIONS:
            yield from question_batches(path, pairs)
        else:
            yield from (parquet_batches if pairs.file_format == "parquet" else text_batches)(path, pairs, notes)
    except (pa.ArrowException, gzip.BadGzipFile, zlib.error, EOFError, csv.Error, UnicodeError) as error:
        raise SourceError(_unreadable(pairs, error)) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, IsADirectoryError):
            raise
        raise SourceError(_unreadable(pairs, error)) from error


def _unreadable(pairs: Pairs, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"{pairs.safe_location} cannot be read as {pairs.file_format}: {reason}"


def extra_columns(source: Source) -> pa.Schema | None:
    """The extra columns and their types, before the list is read; None if this requires a download."""
    if source.pairs is not None:
        return _extra_columns(source.pairs)
    columns = [pa.schema({ORIGIN: pa.string()})] if source.union else []
    for member, _ in members(source):
        found = extra_columns(member)
        if found is None:
            return None
        columns.append(found)
    return _agreed(columns)


def _agreed(schemas: Iterable[pa.Schema]) -> pa.Schema:
    types: dict[str, list[pa.DataType]] = {}
    for field in chain.from_iterable(schemas):
        types.setdefault(field.name, []).append(field.type)
    return pa.schema({name: agreed_type(each) for name, each in types.items()})


def _extra_columns(pairs: Pairs) -> pa.Schema | None:
    if pairs.file_format != "parquet":
        return pa.schema({name: pa.string() for name in pairs.extra})
    if pairs.is_address:
        return None
    return _agreed(_parquet_columns(part) for part in pairs.files)


def _parquet_columns(pairs: Pairs) -> pa.Schema:
    try:
        schema = pq.read_schema(pairs.location)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{pairs.safe_location} is no Parquet: {str(error).splitlines()[0]}") from error
    check_names(schema.names, pairs)
    return pa.schema([schema.field(name) for name in pairs.extra])


def _local(pairs: Pairs, scratch: Path) -> Path:
    """The list as a local file, downloaded if necessary."""
    if not pairs.is_address:
        return Path(str(pairs.location))
    target = scratch / "list"
    try:
        with trusted.stream(str(pairs.location)) as blocks, target.open("wb") as file:
            for block in blocks:
                file.write(block)
    except AddressError as error:
        fault = f"{pairs.safe_location} cannot be fetched: {error}; check the address, or name a local copy"
        raise SourceError(fault) from None
    return target
