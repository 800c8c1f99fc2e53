"""Lists in Parquet and in Arrow's files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError
from pipeline.files import tables
from pipeline.ledger.list_rows import Notes, check_names
from pipeline.settings.pairs import Pairs
from pipeline.store.parquet import ROW_GROUP


def parquet_batches(path: Path, pairs: Pairs, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet or Arrow list. A row whose caption is a list of texts becomes a row for each text."""
    schema = tables.read_schema(path)
    check_names(schema.names, pairs)
    for name in (pairs.url, pairs.caption):
        check_text(name, schema.field(name).type, pairs, lists=name == pairs.caption)
    names = (pairs.url, pairs.caption, *pairs.extra)
    for batch in tables.read_batches(path, list(dict.fromkeys(names)), ROW_GROUP):
        columns = as_rows([batch.column(name) for name in names], notes)
        yield pa.record_batch(columns, names=["url", "caption", *pairs.extra])


def as_rows(columns: list[pa.Array], notes: Notes, texts: int = 2) -> list[pa.Array]:
    """The columns with a row for each caption, which is the second column; the first `texts` are text, never NULL."""
    if _is_list(columns[1].type):
        columns = _a_row_a_caption(columns)
    columns[:texts] = [_text(column) for column in columns[:texts]]
    invalid: set[int] = set()
    columns = [_valid(column, invalid) for column in columns]
    notes.invalid += len(invalid)
    columns[texts:] = [_storable(column) for column in columns[texts:]]
    columns[:texts] = [column.cast(pa.string()).fill_null("") for column in columns[:texts]]
    return columns


def check_text(name: str, kind: pa.DataType, pairs: Pairs, *, lists: bool) -> None:
    """Raises SourceError unless the column is text, or, with `lists`, a list of texts."""
    inner = kind.value_type if (lists and _is_list(kind)) or pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(inner):
        raise SourceError(f"{pairs.safe_location}: the column {name!r} is {kind}, not text: name one that is")


def _is_list(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _a_row_a_caption(columns: list[pa.Array]) -> list[pa.Array]:
    """The columns with a row for each caption; a row without a caption stays one row."""
    captions = columns[1]
    counts = pc.fill_null(pc.list_value_length(captions), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    repeats = np.maximum(counts, 1)
    rows = pa.array(np.repeat(np.arange(len(counts)), repeats))
    without = np.repeat(counts == 0, repeats)
    texts = captions.flatten().take(pa.array(np.cumsum(~without) - 1, pa.int64(), mask=without))
    return [texts if place == 1 else column.take(rows) for place, column in enumerate(columns)]


def _text(column: pa.Array) -> pa.Array:
    """A column of url or caption as text. Bytes are interpreted as UTF-8 without a check."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        text = pa.string() if pa.types.is_binary(column.type) else pa.large_string()
        return pa.Array.from_buffers(text, len(column), column.buffers(), column.null_count, column.offset)
    return column


def _valid(column: pa.Array, invalid: set[int]) -> pa.Array:
    """The column with U+FFFD for bytes that are not UTF-8, as Python replaces them. Adds their rows to `invalid`."""
    if pa.types.is_dictionary(column.type) and not _is_valid(column.dictionary):
        column = column.dictionary_decode()
    if _is_valid(column):
        return column
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise pa.ArrowInvalid(f"text inside a column of type {column.type} is not UTF-8")
    binary = pa.binary() if pa.types.is_string(column.type) else pa.large_binary()
    values = column.cast(binary).to_pylist()
    texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
    invalid.update(
        row for row, text in enumerate(texts) if text is not None and "\ufffd" in text and text.encode() != values[row]
    )
    return pa.array(texts, column.type)


def _storable(column: pa.Array) -> pa.Array:
    """The column, as ISO text if it has times outside the range of DuckDB's microseconds."""
    if not pa.types.is_timestamp(column.type):
        return column
    try:
        column.cast(pa.timestamp("us", column.type.tz), safe=column.type.unit != "ns")
    except pa.ArrowInvalid:
        times = column.cast(pa.int64()).to_pylist()
        unit = column.type.unit
        return pa.array([None if time is None else str(np.datetime64(time, unit)) for time in times], pa.string())
    return column


def _is_valid(column: pa.Array) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
