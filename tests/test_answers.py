"""Answers of every type that DuckDB has, in every format."""

import csv
import io
import json

import duckdb
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from flows.console import answers
from pipeline.query.portable import portable


@pytest.fixture(scope="module")
def answer():
    """Rows of the least values, the greatest values and NULL, with a column for each type."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        return portable(con.sql("select * from test_all_types()")).to_arrow_reader(100).read_all()


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_every_type_is_written_to_a_file(answer, tmp_path, form):
    path = tmp_path / "answer"
    answers.write_file(answer, form, path)
    if form == "parquet":
        assert pq.read_table(path).column_names == answer.column_names
    elif form == "csv":
        header, *rows = csv.reader(io.StringIO(path.read_text(), newline=""))
        assert (header, len(rows)) == (answer.column_names, 3)
    else:
        least, greatest, null = json.loads(path.read_text())["rows"]
        assert set(null.values()) == {None}
        assert (greatest["bigint"], greatest["ubigint"]) == (2**63 - 1, 2**64 - 1)
        assert (greatest["hugeint"], greatest["uhugeint"]) == (str(2**127 - 1), str(2**128 - 1))
        assert (least["date"], greatest["time"]) == ("-5877641-06-25", "24:00:00")


@pytest.mark.parametrize("width", [80, 120, 100_000])
def test_every_type_is_shown_in_a_table(answer, width):
    console = Console(width=width, file=io.StringIO())
    console.print(answers.table(answer))
    text = console.file.getvalue()
    for name in answer.column_names:
        assert name in text
    assert str(2**127 - 1) in text
