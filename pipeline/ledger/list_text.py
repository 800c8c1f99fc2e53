"""Text lists: TSV, CSV and JSON lines, plain or gzipped, in any encoding."""

import codecs
import gzip
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TextIO, cast

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.ledger.dialects import Dialect, find_dialect, header_names
from pipeline.ledger.list_json import json_names, json_rows
from pipeline.ledger.list_rows import DECODING, Notes
from pipeline.ledger.list_tables import table_rows
from pipeline.settings.pairs import Pairs
from pipeline.store.parquet import ROW_GROUP
from pipeline.text_files import marked_encoding

_SAMPLE = 1 << 20
"""The number of bytes at the beginning of a list from which encoding and dialect are detected."""


def text_batches(path: Path, pairs: Pairs, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of a TSV, CSV or JSON lines list, plain or gzipped; all columns are strings."""
    schema = pa.schema([(name, pa.string()) for name in ("url", "caption", *pairs.extra)])
    with _open_bytes(path) as file:
        head = file.read(_SAMPLE)
    encoding = _encoding(head, pairs)
    table = pairs.file_format != "jsonl"
    dialect = find_dialect(_sample(head, encoding), pairs) if table else Dialect("", "")
    with _open_text(path, encoding, dialect) as lines:
        rows = table_rows(lines, dialect, pairs, notes) if table else json_rows(lines, pairs, notes)
        while block := list(islice(rows, ROW_GROUP)):
            columns = [pa.array(column, pa.string()) for column in zip(*block, strict=True)]
            yield pa.record_batch(columns, schema=schema)


def column_names(path: Path, pairs: Pairs, usual: Collection[str]) -> list[str]:
    """The columns of a text list, of which one of `usual` shows what delimits them. Raises SourceError.

    Those of JSON lines are the keys of the first object.
    """
    if pairs.columns:
        return list(pairs.columns)
    with _open_bytes(path) as file:
        head = file.read(_SAMPLE)
    sample = codecs.getincrementaldecoder(_encoding(head, pairs))("replace").decode(head, final=False)
    first = next((line for line in sample.splitlines() if line.strip()), "")
    return json_names(first, pairs) if pairs.file_format == "jsonl" else header_names(first, pairs, usual)


@contextmanager
def _open_bytes(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if zipped else raw


@contextmanager
def _open_text(path: Path, encoding: str, dialect: Dialect) -> Iterator[TextIO]:
    """Lines end at a line feed only, because captions of the web contain carriage returns."""
    newline = "" if dialect.any_line_end else "\n"
    with _open_bytes(path) as plain, io.TextIOWrapper(plain, encoding, errors=DECODING, newline=newline) as text:
        yield text


def _encoding(head: bytes, pairs: Pairs) -> str:
    """The encoding of a byte order mark, or else of [pairs], or else UTF-8.

    Raises SourceError for UTF-16 without a mark and without a name.
    """
    marked = marked_encoding(head)
    if marked or pairs.encoding:
        return marked or str(pairs.encoding)
    sample = head[:4096]
    for name, place in (("utf-16-le", 1), ("utf-16-be", 0)):
        units = len(sample) // 2
        if units > 4 and sample[place : 2 * units : 2].count(0) > 0.7 * units and sample.count(0) < 1.4 * units:
            raise SourceError(f'{pairs.safe_location} looks like UTF-16: set encoding = "{name}" in [pairs]')
    return "utf-8"


def _sample(head: bytes, encoding: str) -> str:
    """The beginning of a list as text. If the list is longer, it ends at the last complete line."""
    text = codecs.getincrementaldecoder(encoding)(DECODING).decode(head, final=False)
    return text[: text.rfind("\n") + 1] if len(head) == _SAMPLE else text
