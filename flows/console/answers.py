"""The whole answer to a query, as text or as a file. It is written here, with pyarrow: SQL itself can write nothing."""

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from flows.console import tables
from pipeline.errors import QueryError, StorageError


def write(rows: pa.Table, form: str, file: TextIO) -> None:
    """As "csv" (a header line, NULL as nothing, lists as JSON) or "json" (one object: columns, and rows by column)."""
    if form == "json":
        tables.as_json({"columns": rows.schema.names, "rows": rows.to_pylist()}, file)
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            writer.writerow(json.dumps(each) if isinstance(each, list | dict) else each for each in row.values())


def put(rows: pa.Table, form: str, path: Path) -> None:
    """Make the answer the file `path`, whole or not at all, as "csv", "json" or "parquet".

    Raises QueryError for a column that Parquet has no type for, StorageError where nothing can be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".winnow-") as folder:
            made = Path(folder, "answer")
            if form == "parquet":
                pq.write_table(rows, made, compression="zstd")
            else:
                with made.open("w", encoding="utf-8", newline="") as file:
                    write(rows, form, file)
            made.replace(path)
    except pa.ArrowNotImplementedError as error:
        raise QueryError(f"{str(error).splitlines()[0]}: cast the column to another type, or choose csv") from None
    except OSError as error:
        raise StorageError(f"cannot write {path}: {os.strerror(error.errno) if error.errno else error}") from None
