"""The answer to a query: a table for the terminal, CSV, JSON or Parquet. SQL itself writes no file."""

import csv
import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pyarrow as pa

from flows.console import values
from flows.console.output import dumps, printable, show_json
from pipeline.errors import StorageError

if TYPE_CHECKING:
    from flows.console.layout import Table

SHOWN = 50
"""Rows that a table shows."""

LONGEST = 200
"""Characters of one text or list that a table shows. Numbers are never cut."""


def table(answer: pa.Table) -> "Table":
    """The first `SHOWN` rows; a list of columns for each row where the terminal is too narrow."""
    from flows.console.layout import Column, Table

    columns = [Column(printable(field.name), "number" if _is_number(field.type) else "text") for field in answer.schema]
    note = f"the first {SHOWN} of {len(answer):,} rows" if len(answer) > SHOWN else ""
    made = Table(columns, note=note, by_row=True)
    for row in values.rows(answer.slice(0, SHOWN)):
        made.add(*map(cell, row.values()))
    return made


def cell(value: Any) -> str:
    """One value as a table shows it. Fractions are rounded to six digits, text is cut, NULL is empty."""
    if value is None:
        return ""
    if isinstance(value, float):
        return _rounded(value)
    if isinstance(value, list):
        return _list(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    text = printable(dumps(value) if isinstance(value, dict) else str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def write(answer: pa.Table, form: str, file: TextIO) -> None:
    """Write as "csv" (a header line, NULL as nothing, lists as JSON) or "json" (an object: columns, and rows)."""
    rows = values.rows(answer)
    if form == "json":
        show_json({"columns": answer.schema.names, "rows": rows}, file)
        return
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for row in rows:
        writer.writerow(map(_field, row.values()))


def write_file(answer: pa.Table, form: str, path: Path) -> None:
    """Write the file `path`, whole or not at all, as "csv", "json" or "parquet".

    A column that Parquet has no type for, such as an interval, becomes text. Raises StorageError if nothing can be
    written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".winnow-") as folder:
            made = Path(folder, "answer")
            if form == "parquet":
                import pyarrow.parquet as pq

                pq.write_table(_for_parquet(answer), made, compression="zstd")
            else:
                with made.open("w", encoding="utf-8", newline="") as file:
                    write(answer, form, file)
            made.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {os.strerror(error.errno) if error.errno else error}") from None


def _field(value: Any) -> Any:
    """A field of CSV. The csv module writes None as nothing, and a float with all its digits."""
    if isinstance(value, Decimal):
        return format(value, "f")
    return dumps(value) if isinstance(value, list | dict) else value


def _for_parquet(answer: pa.Table) -> pa.Table:
    import pyarrow.parquet as pq

    for at, field in enumerate(answer.schema):
        try:
            pq.write_table(pa.table([pa.array([], field.type)], [field.name]), pa.BufferOutputStream())
        except pa.ArrowException:
            texts = [_text(value) for chunk in answer.column(at).chunks for value in values.values(chunk)]
            answer = answer.set_column(at, field.name, pa.array(texts, pa.string()))
    return answer


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else dumps(value)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _rounded(value: float) -> str:
    """At least six digits, and every digit before the point."""
    if abs(value) < 1:
        return f"{value:.6g}"
    if abs(value) >= 1e15:
        return repr(value)
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _list(items: list[Any]) -> str:
    """The items, as many as `LONGEST` characters hold, and none of them in part unless the first is longer."""
    texts, length = list[str](), 0
    for each in map(cell, items):
        length += len(each) + 2
        if texts and length > LONGEST:
            return f"{', '.join(texts)}, … ({len(items):,} in all)"
        texts.append(each)
    return ", ".join(texts)
