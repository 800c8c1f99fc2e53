"""Reading a list of pairs: TSV, CSV, Parquet or JSON lines, local or over http(s), plain or gzipped.

A line that cannot be understood is not lost: it becomes a pair without a URL whose caption is the line itself, and so
a failed row of the manifest. Bytes that are no UTF-8 become U+FFFD, one for each invalid sequence, before anything is
hashed.
"""

import csv
import difflib
import gzip
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.schema import ORIGIN
from pipeline.settings.pairs import Pairs
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.web import trusted
from pipeline.web.trusted import AddressError

ROWS = 65_536
"""Rows of one record batch."""

LONGEST_LINE = 1000
"""Characters that are kept of a line that could not be understood."""

_CSV_FIELD = 1 << 24


def read(pairs: Pairs, scratch: Path) -> Iterator[pa.RecordBatch]:
    """Batches with the columns url and caption (strings, never NULL) and the extra columns.

    Extra columns are strings, but keep their type where the list is Parquet. `scratch` takes a list that is fetched.
    Raises SourceError for a list that is empty, cannot be read, or lacks a column.
    """
    path = _fetched(pairs, scratch)
    try:
        batches = _parquet(path, pairs) if pairs.file_format == "parquet" else _text(path, pairs)
        first = next(batches, None)
        if first is None:
            raise SourceError(f"{pairs.safe_location} has no rows")
        yield from chain([first], batches)
    except (pa.ArrowInvalid, gzip.BadGzipFile, EOFError, csv.Error, IsADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{pairs.safe_location} cannot be read as {pairs.file_format}: {reason}") from error


def extra_columns(source: Source) -> pa.Schema | None:
    """The extra columns and their types, before anything is read; None where only the fetched list can tell."""
    if source.pairs is not None:
        return _extra_columns(source.pairs)
    kinds: dict[str, pa.DataType] = {ORIGIN: pa.string()} if source.union else {}
    for member, _ in members(source):
        known = extra_columns(member)
        if known is None:
            return None
        for field in known:  # DuckDB makes text of what two members call alike and mean differently
            kinds[field.name] = field.type if kinds.get(field.name, field.type) == field.type else pa.string()
    return pa.schema(kinds)


def _extra_columns(pairs: Pairs) -> pa.Schema | None:
    if pairs.file_format != "parquet":
        return pa.schema({name: pa.string() for name in pairs.extra})
    if pairs.location.startswith(("http://", "https://")):
        return None
    try:
        known = pq.read_schema(pairs.location)
    except pa.ArrowInvalid as error:
        raise SourceError(f"{pairs.safe_location} is no Parquet: {str(error).splitlines()[0]}") from error
    _need(known.names, pairs)
    return pa.schema([known.field(name) for name in pairs.extra])


def _fetched(pairs: Pairs, scratch: Path) -> Path:
    if not pairs.location.startswith(("http://", "https://")):
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


def _parquet(path: Path, pairs: Pairs) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        _need(file.schema_arrow.names, pairs)
        for batch in file.iter_batches(ROWS, columns=[pairs.url, pairs.caption, *pairs.extra]):
            columns = [_strings(batch.column(pairs.url)), _strings(batch.column(pairs.caption))]
            columns += [batch.column(name) for name in pairs.extra]
            yield pa.record_batch(columns, names=["url", "caption", *pairs.extra])


def _strings(column: pa.Array) -> pa.Array:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pa.array([(value or b"").decode("utf-8", "replace") for value in column.to_pylist()], pa.string())
    return column.cast(pa.string()).fill_null("")


def _text(path: Path, pairs: Pairs) -> Iterator[pa.RecordBatch]:
    names = ("url", "caption", *pairs.extra)
    wanted = (pairs.url, pairs.caption, *pairs.extra)
    schema = pa.schema({name: pa.string() for name in names})
    with _opened(path, pairs.file_format) as lines:
        rows = _json_rows(lines, pairs, wanted) if pairs.file_format == "jsonl" else _table_rows(lines, pairs, wanted)
        while block := list(islice(rows, ROWS)):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.record_batch(columns, schema=schema)


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[TextIO]:
    """Lines end at a line feed alone, since captions of the web hold carriage returns; CSV has its own rules."""
    with path.open("rb") as raw:
        plain: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        newline = "" if kind == "csv" else "\n"
        with io.TextIOWrapper(plain, encoding="utf-8-sig", errors="replace", newline=newline) as text:
            yield text


def _table_rows(lines: TextIO, pairs: Pairs, wanted: tuple[str, ...]) -> Iterator[tuple[str | None, ...]]:
    if pairs.file_format == "tsv":  # tabs cannot be quoted, and quotes are only quotes: the layout of CC3M and CC12M
        table: Iterator[list[str]] = (line.rstrip("\r\n").split("\t") for line in lines)
    else:
        csv.field_size_limit(min(_CSV_FIELD, sys.maxsize))
        table = csv.reader(lines)
    columns = list(pairs.columns) if pairs.columns else next(table, [])
    if not columns:
        return
    _need(columns, pairs)
    places = [columns.index(name) for name in wanted]
    first = next(table, None)
    if first is None:
        return
    if len(first) < len(columns):
        raise SourceError(
            f"{pairs.safe_location}: the first row has {len(first)} of {len(columns)} columns; is it really "
            f"{pairs.file_format}, and is pairs.columns = {columns} right?"
        )
    for row in chain([first], table):
        if len(row) == len(columns):
            yield tuple(row[place].replace("\0", "") for place in places)
        elif row not in ([], [""]):
            yield _misread("\t".join(row), wanted)


def _json_rows(lines: Iterable[str], pairs: Pairs, wanted: tuple[str, ...]) -> Iterator[tuple[str | None, ...]]:
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, Mapping):
            if number == 0:
                raise SourceError(f"{pairs.safe_location}: the first line is no JSON object; is it really JSON lines?")
            yield _misread(line, wanted)
            continue
        if number == 0:
            _need(row, pairs)
        url, caption, *extra = (_scalar(row.get(name)) for name in wanted)
        yield url or "", caption or "", *extra


def _scalar(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else value.encode("utf-8", "replace").decode()  # JSON can hold half a character
    return json.dumps(value, sort_keys=True)


def _misread(line: str, wanted: tuple[str, ...]) -> tuple[str | None, ...]:
    return "", line.strip()[:LONGEST_LINE], *(None for _ in wanted[2:])


def _need(columns: Iterable[str], pairs: Pairs) -> None:
    known = list(columns)
    for name in (pairs.url, pairs.caption, *pairs.extra):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known[:20])}"
            raise SourceError(f"{pairs.safe_location} has no column {name!r}{hint}")
