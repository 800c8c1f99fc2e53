"""Lists in TSV and CSV."""

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NoReturn, TypeAlias

from pipeline.errors import SourceError
from pipeline.ledger.dialects import CARRIAGE_RETURN, Dialect, suggest_delimiter
from pipeline.ledger.list_rows import Notes, Row, check_names, unparsed, wanted
from pipeline.settings.pairs import Pairs

_FIELD = 1 << 24
"""The maximum number of characters in a field of a CSV."""

_QUOTED = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"|"https?://[^"]*"')
"""A field that is certainly quoted: it has doubled quotes or a URL inside quotes."""

Record: TypeAlias = tuple[int, list[str]]
"""The number of a line, from 1, and the fields that begin there."""


def table_rows(lines: Iterable[str], dialect: Dialect, pairs: Pairs, notes: Notes) -> Iterator[Row]:
    """The rows of a TSV or CSV. Blank lines are skipped. A row with too few or too many fields is not parsed.

    Raises SourceError if the first row has too few or too many fields, and for quotes that do not close.
    """
    records = _quoted(lines, dialect, pairs) if dialect.quote else _plain(lines, dialect)
    records = (record for record in records if record[1] not in ([], [""]))
    columns = list(pairs.columns) if pairs.columns else _header(records)
    if not columns:
        return
    check_names(columns, pairs)
    places = [columns.index(name) for name in wanted(pairs)]
    first = next(records, None)
    if first is None:
        return
    if len(first[1]) != len(columns):
        _refuse(first, columns, dialect, pairs)
    for _, fields in chain([first], records):
        fields = notes.clean(fields)
        if len(fields) != len(columns):
            yield unparsed("\t".join(fields), pairs)
            continue
        row = tuple(fields[place].replace("\0", "") for place in places)
        if not dialect.quote and pairs.quote is None:
            notes.quoted += any(field.startswith('"') and _QUOTED.fullmatch(field) for field in row)
        yield row


def _header(records: Iterator[Record]) -> list[str]:
    return next((fields for _, fields in records if any(field.strip() for field in fields)), [])


def _refuse(record: Record, columns: list[str], dialect: Dialect, pairs: Pairs) -> NoReturn:
    line, fields = record
    hint = suggest_delimiter(dialect.delimiter.join(fields), len(columns), dialect.delimiter)
    raise SourceError(
        f"{pairs.safe_location}, line {line}: the first row has {len(fields)} of {len(columns)} columns; is it really "
        f"{pairs.file_format}, and is pairs.columns = {columns} right?{hint}"
    )


def _plain(lines: Iterable[str], dialect: Dialect) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        yield number, line.rstrip("\r\n").split(dialect.delimiter)


def _quoted(lines: Iterable[str], dialect: Dialect, pairs: Pairs) -> Iterator[Record]:
    """Read with Python's csv in strict mode.

    An unclosed quote is an error; other readers would consume the next lines.
    """
    csv.field_size_limit(min(_FIELD, sys.maxsize))
    if not dialect.any_line_end:
        lines = map(_hide_returns, lines)
    table = csv.reader(lines, delimiter=dialect.delimiter, quotechar=dialect.quote, strict=True)
    while True:
        start = table.line_num + 1
        try:
            fields = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            raise SourceError(
                f"{pairs.safe_location}, line {start}: the quotes of the row that begins here do not fit ({error}): "
                f'close them and double those inside a field, or set quote = "" in [pairs] if nothing is quoted'
            ) from None
        yield start, [field.replace(CARRIAGE_RETURN, "\r") for field in fields]


def _hide_returns(line: str) -> str:
    end = 2 if line.endswith("\r\n") else 1
    return line[:-end].replace("\r", CARRIAGE_RETURN) + line[-end:] if "\r" in line[:-end] else line
