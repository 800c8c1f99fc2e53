"""Tables whose columns have types: Parquet, and Arrow's files and streams, of which Feather is one.

Arrow is mapped into memory, so that a table of pictures can be listed without reading its pictures.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError

_BUFFER = 1 << 20
"""Bytes that are read at once from a column of Parquet. Without a limit a whole column of a row group is."""

_PARQUET_MARK = b"PAR1"

_FILE_MARK = b"ARROW1"
"""The beginning of Arrow's file format. The stream format has no mark."""


def is_parquet(path: Path) -> bool:
    """Whether the file is Parquet, by its first bytes or its name. Other tables are Arrow's. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MARK)) == _PARQUET_MARK or path.name.lower().endswith(".parquet")


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file that is read in pages. Raises pa.ArrowException, or OSError."""
    return pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)


def read_schema(path: Path) -> pa.Schema:
    """The columns of a table and their metadata. Raises pa.ArrowException, or OSError."""
    if is_parquet(path):
        return pq.read_schema(path)
    with pa.memory_map(str(path)) as source, _open_arrow(source) as reader:
        return reader.schema


def read_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of all rows, in order, in batches of at most `rows`. Raises pa.ArrowException, or OSError."""
    if is_parquet(path):
        with open_parquet(path) as file:
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                yield batch.select(list(columns))
        return
    for batch in arrow_batches(path, columns):
        for start in range(0, len(batch), rows):
            yield batch.slice(start, rows)


def arrow_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The record batches of an Arrow file or stream, with these columns. Raises pa.ArrowException, or OSError."""
    with pa.memory_map(str(path)) as source:
        with _open_arrow(source) as reader:
            places = sorted(reader.schema.get_field_index(name) for name in set(columns))
        source.seek(0)
        with _open_arrow(source, pa.ipc.IpcReadOptions(included_fields=places)) as reader:
            if isinstance(reader, pa.ipc.RecordBatchFileReader):
                batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
            else:
                batches = iter(reader)
            for batch in batches:
                yield batch.select(list(columns))


def _open_arrow(source: pa.MemoryMappedFile, options: Any = None) -> Any:
    """A reader of the file format or of the stream format."""
    mark = source.read(len(_FILE_MARK))
    source.seek(0)
    return (pa.ipc.open_file if mark == _FILE_MARK else pa.ipc.open_stream)(source, options=options)


def features(schema: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """What Hugging Face's `datasets` wrote about the columns: name to feature, such as {"_type": "Image"}."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def picture_column(schema: pa.Schema, named: str | None, table: str) -> str:
    """The column of pictures: the one that is named, or else the only one with Hugging Face's images, or of their form.

    `table` is named in messages. Raises SourceError if there is none, or several, or if it cannot hold pictures.
    """
    if named is None:
        types = {name: feature.get("_type") for name, feature in features(schema).items()}
        others = [each.name for each in schema if _has_bytes_and_path(each.type) and types.get(each.name) is None]
        found = [name for name in schema.names if types.get(name) == "Image"] or others
        if len(found) != 1:
            what = f"has several columns of pictures ({', '.join(found)})" if found else "has no column of pictures"
            raise SourceError(f'{table} {what}: set image = "COLUMN" in [pairs]; it has {", ".join(schema.names[:20])}')
        return str(found[0])
    if named not in schema.names:
        raise SourceError(f"{table} has no column {named!r} of pictures; it has {', '.join(schema.names[:20])}")
    kind = schema.field(named).type
    if not (_is_binary(kind) or _is_text(kind) or _has_bytes_and_path(kind)):
        raise SourceError(
            f"{table}: the column {named!r} is {str(kind)[:100]}, no pictures: they are bytes, a struct of bytes and "
            "path, or names of files"
        )
    return named


def holds_names(kind: pa.DataType) -> bool:
    """Whether a column of pictures has names of files in place of their bytes."""
    return _is_text(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _is_text(kind: pa.DataType) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(inner) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _has_bytes_and_path(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
