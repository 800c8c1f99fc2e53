"""DuckDB connections, and SQL literals for values and files."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import duckdb

SETTINGS = {
    "autoinstall_known_extensions": "false",  # they are downloaded at run time
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # a table name never means a Python variable
    "memory_limit": "50%",  # the rest is for what runs beside it
}


def connect(scratch: Path, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """An empty in-memory database that spills into `scratch`, keeps insertion order and counts time in UTC.

    One thread makes a sum of floats the same every time; None takes what the machine has.
    """
    config = SETTINGS | {"temp_directory": str(scratch)} | ({"threads": str(threads)} if threads else {})
    con = duckdb.connect(":memory:", config=config)
    con.execute("SET TimeZone = 'UTC'")
    return con


def literal(text: str) -> str:
    """The text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def file_list(paths: Iterable[Path]) -> str:
    """The files as an SQL list, in this order; nothing in their names is a glob."""
    return "[" + ", ".join(literal(escape(path)) for path in paths) + "]"


def escape(path: Path) -> str:
    """The path as a glob that fits this path alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


FILE = "__file"
"""The column of `parquet(..., "filename")` with the path of the file that a row was read from."""


def parquet(paths: Iterable[Path], *options: Literal["filename", "file_row_number", "union_by_name"]) -> str:
    """SQL for the rows of these files, in this order. A folder called run=3 adds no column.

    Options are those of DuckDB's read_parquet; `filename` adds the column `FILE`, `file_row_number` one of its name.
    """
    values = {"filename": literal(FILE)}
    added = "".join(f", {name} = {values.get(name, 'true')}" for name in options)
    return f"read_parquet({file_list(paths)}, hive_partitioning = false{added})"
