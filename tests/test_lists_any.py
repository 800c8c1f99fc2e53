"""Random tables, as csv, pandas and pyarrow write them, are read back equal; damaged ones are read or refused."""

import contextlib
import csv
import gzip
import io
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.settings.pairs import Pairs

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "gb18030", "cp1252", "shift_jis", "latin-1")
MARKED = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
DELIMITERS = {"csv": (",", ";", "\t", "|"), "tsv": ("\t", ",")}
STYLES = (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)


@dataclass(frozen=True)
class Written:
    """A list, its pairs, and the keys of [pairs] that it needs."""

    name: str
    content: bytes
    rows: list[tuple[str, str]]
    keys: dict[str, str]


@cache
def texts(encoding):
    without = "\0\ufeff" + ("\xa5\u203e" if encoding == "shift_jis" else "")
    letters = st.characters(codec=encoding, exclude_characters=without, exclude_categories=["Cs"])
    odd = st.sampled_from(['"', '""', ",", ";", "\t", "|", "\n", "\r", "\r\n", " ", "'", "\\", "#"])
    # a carriage return at the end of a line is part of the line's end
    return st.lists(odd | letters, max_size=8).map("".join).filter(lambda text: not text.endswith("\r"))


@cache
def tables(encoding):
    return st.lists(st.tuples(texts(encoding).map("http://host/".__add__), texts(encoding)), min_size=1, max_size=5)


def with_csv(rows, delimiter, style, end):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=style, lineterminator=end).writerows([("url", "caption"), *rows])
    return file.getvalue()


def with_pandas(rows, delimiter, style, end):
    frame = pd.DataFrame(rows, columns=["url", "caption"])
    return frame.to_csv(None, sep=delimiter, quoting=style, lineterminator=end, index=False)


def with_pyarrow(rows, delimiter, style, end):
    file = io.BytesIO()
    needed = "all_valid" if style == csv.QUOTE_ALL else "needed"
    options = pyarrow.csv.WriteOptions(delimiter=delimiter, quoting_style=needed)
    pyarrow.csv.write_csv(
        pa.table(dict(zip(("url", "caption"), map(list, zip(*rows, strict=True)), strict=True))), file, options
    )
    return file.getvalue().decode()


def packed(draw, name, text, encoding, rows):
    content = text.encode(encoding)
    keys = {} if encoding in MARKED else {"encoding": encoding}
    if draw(st.booleans()):
        return Written(f"{name}.gz", gzip.compress(content, 1), rows, keys)
    return Written(name, content, rows, keys)


@st.composite
def text_tables(draw):
    encoding, kind = draw(st.sampled_from(ENCODINGS)), draw(st.sampled_from(sorted(DELIMITERS)))
    rows, delimiter = draw(tables(encoding)), draw(st.sampled_from(DELIMITERS[kind]))
    write = draw(st.sampled_from((with_csv, with_pandas, with_pyarrow)))
    text = write(rows, delimiter, draw(st.sampled_from(STYLES)), draw(st.sampled_from(("\n", "\r\n"))))
    return packed(draw, f"list.{kind}", text, encoding, rows)


@st.composite
def json_lines(draw):
    encoding, plain = draw(st.sampled_from(ENCODINGS)), draw(st.booleans())
    rows = draw(tables(encoding))
    lines = [json.dumps({"url": url, "caption": caption}, ensure_ascii=plain) for url, caption in rows]
    return packed(draw, "list.jsonl", "\n".join(lines), encoding, rows)


@st.composite
def parquet_files(draw):
    rows = draw(tables("utf-8"))
    kind = draw(st.sampled_from((pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string()))))
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    columns = [each.dictionary_encode() if pa.types.is_dictionary(kind) else each.cast(kind) for each in columns]
    file = io.BytesIO()
    pq.write_table(pa.table(columns, names=["url", "caption"]), file)
    return Written("list.parquet", file.getvalue(), rows, {})


WRITTEN = text_tables() | json_lines() | parquet_files()


def read(written):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, written.name)
        path.write_bytes(written.content)
        try:
            batches = list(lists.read(Pairs(location=str(path), **written.keys), Path(folder)))
        except SourceError as fault:
            assert "\n" not in str(fault)  # noqa: PT017 - it is raised again
            raise
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def is_read_back_equal(written):
    assert read(written) == written.rows


def is_read_or_refused(written, places, damage):
    content = bytearray(written.content)
    for place in places:
        at = place % (len(content) + 1)
        content[at : at + (damage == b"")] = damage
    with contextlib.suppress(SourceError):
        read(Written(written.name, bytes(content), written.rows, written.keys))


PLACES = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)
DAMAGE = st.sampled_from([b"", b'"', b"\0", b"\xff", b"\n", b"\r", b",", b"\t"])


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN)
def test_any_table_is_read_back_equal(written):
    is_read_back_equal(written)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN, PLACES, DAMAGE)
def test_any_damaged_table_is_read_or_refused(written, places, damage):
    is_read_or_refused(written, places, damage)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN)
def test_any_of_many_tables_is_read_back_equal(written):
    is_read_back_equal(written)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN, PLACES, DAMAGE)
def test_any_of_many_damaged_tables_is_read_or_refused(written, places, damage):
    is_read_or_refused(written, places, damage)
