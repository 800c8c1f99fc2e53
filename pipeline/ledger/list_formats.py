"""The formats of a list of pairs: each gives batches of url, caption and the extra columns."""

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
from typing import Any, BinaryIO, TextIO, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.settings.pairs import Pairs
from pipeline.store.parquet import ROW_GROUP

MAX_LINE = 1000
"""Characters that are kept of a line that cannot be parsed."""

_CSV_FIELD = 1 << 24
"""Bytes of the longest field of a CSV."""

Row: TypeAlias = tuple[str | None, ...]
"""url, caption and the extra columns."""


def parquet_batches(path: Path, pairs: Pairs) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet list."""
    with pq.ParquetFile(path) as file:
        check_names(file.schema_arrow.names, pairs)
        for batch in file.iter_batches(ROW_GROUP, columns=[pairs.url, pairs.caption, *pairs.extra]):
            columns = [_strings(batch.column(pairs.url)), _strings(batch.column(pairs.caption))]
            columns += [batch.column(name) for name in pairs.extra]
            yield pa.record_batch(columns, names=["url", "caption", *pairs.extra])


def text_batches(path: Path, pairs: Pairs) -> Iterator[pa.RecordBatch]:
    """The batches of a TSV, CSV or JSON lines list, plain or gzipped; all columns are strings."""
    schema = pa.schema({name: pa.string() for name in ("url", "caption", *pairs.extra)})
    with _open_text(path, pairs.file_format) as lines:
        rows = _json_rows(lines, pairs) if pairs.file_format == "jsonl" else _table_rows(lines, pairs)
        while block := list(islice(rows, ROW_GROUP)):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.record_batch(columns, schema=schema)


def check_names(columns: Iterable[str], pairs: Pairs) -> None:
    """Raises SourceError for a column of [pairs] that the list does not have, with the nearest name, or has twice."""
    known = list(columns)
    for name in _wanted(pairs):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(known[:20])}"
            raise SourceError(f"{pairs.safe_location} has no column {name!r}{hint}")
        if known.count(name) > 1:
            raise SourceError(
                f"{pairs.safe_location} has {known.count(name)} columns called {name!r}: rename all but one"
            )


def _wanted(pairs: Pairs) -> tuple[str, ...]:
    return (pairs.url, pairs.caption, *pairs.extra)


def _strings(column: pa.Array) -> pa.Array:
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pa.array([(value or b"").decode("utf-8", "replace") for value in column.to_pylist()], pa.string())
    return column.cast(pa.string()).fill_null("")


@contextmanager
def _open_text(path: Path, file_format: str) -> Iterator[TextIO]:
    """Lines end at a line feed alone, since captions of the web hold carriage returns; CSV has its own rules."""
    with path.open("rb") as raw:
        plain: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        newline = "" if file_format == "csv" else "\n"
        with io.TextIOWrapper(plain, encoding="utf-8-sig", errors="replace", newline=newline) as text:
            yield text


def _table_rows(lines: TextIO, pairs: Pairs) -> Iterator[Row]:
    """The rows of a TSV or CSV. Raises SourceError if the first row has too few columns."""
    if pairs.file_format == "tsv":  # tabs cannot be quoted, and quotes are only quotes: the layout of CC3M and CC12M
        table: Iterator[list[str]] = (line.rstrip("\r\n").split("\t") for line in lines)
    else:
        csv.field_size_limit(min(_CSV_FIELD, sys.maxsize))
        table = csv.reader(lines)
    columns = list(pairs.columns) if pairs.columns else next(table, [])
    if not columns:
        return
    check_names(columns, pairs)
    places = [columns.index(name) for name in _wanted(pairs)]
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
            yield _unparsed("\t".join(row), pairs)


def _json_rows(lines: Iterable[str], pairs: Pairs) -> Iterator[Row]:
    """The rows of JSON lines. Raises SourceError if the first line is no JSON object."""
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
            yield _unparsed(line, pairs)
            continue
        if number == 0:
            check_names(row, pairs)
        url, caption, *extra = (_text(row.get(name)) for name in _wanted(pairs))
        yield url or "", caption or "", *extra


def _text(value: Any) -> str | None:
    """A JSON value as text. Half a surrogate pair, which JSON can hold, becomes a question mark."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return json.dumps(value, sort_keys=True)


def _unparsed(line: str, pairs: Pairs) -> Row:
    """A pair without a URL, for a line that cannot be parsed."""
    return ("", line.strip()[:MAX_LINE], *(None for _ in pairs.extra))
