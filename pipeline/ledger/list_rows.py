"""Shared code of all list formats: the columns to read, rows that cannot be parsed, and warnings."""

import codecs
import csv
import difflib
import gzip
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

from pipeline.errors import MissingColumnError, SourceError
from pipeline.settings.pairs import Pairs

MAX_NAMES = 300
"""The maximum number of characters for column names in a message."""

MAX_LINE = 1000
"""The number of characters to keep of a line that cannot be parsed."""

Row: TypeAlias = tuple[str | None, ...]
"""url, caption and the extra columns."""

_INVALID = "\udffd"
"""Replaces invalid bytes until they are counted. No decoder returns a lone surrogate."""

DECODING = "winnow-count"
"""The error handler of a decoder that puts `_INVALID` where Python's "replace" puts U+FFFD."""


def _mark_invalid(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _INVALID, error.end


codecs.register_error(DECODING, _mark_invalid)


@dataclass
class Notes:
    """Rows of a list that were changed, or are suspect: `invalid` with bytes that are not text, `quoted` in quotes.

    `unread` files beside pictures have no caption that could be read; `example` says why of the first.
    """

    invalid: int = 0
    quoted: int = 0
    unread: int = 0
    example: str = ""

    def clean(self, fields: list[str]) -> list[str]:
        """The fields of a row, with U+FFFD for invalid bytes. A row with invalid bytes is counted."""
        if not any(_INVALID in field for field in fields):
            return fields
        self.invalid += 1
        return [field.replace(_INVALID, "\ufffd") for field in fields]

    def lines(self, pairs: Pairs) -> Iterable[str]:
        """The warnings, one line each."""
        if self.invalid:
            encoding = pairs.encoding or "UTF-8"
            hint = (
                ""
                if pairs.location is None or pairs.file_format == "parquet"
                else "; set encoding in [pairs] if the list has another"
            )
            yield (
                f"{pairs.safe_location}: rows with bytes that are not {encoding}: {self.invalid:,}; U+FFFD is read "
                f"instead{hint}"
            )
        if self.unread:
            yield f"{pairs.safe_location}: captions that cannot be read: {self.unread:,}; the first is {self.example}"
        if self.quoted:
            yield (
                f"{pairs.safe_location}: rows with a field in quotes: {self.quoted:,}; the quotes are read as part of "
                'the field; set quote = \'"\' in [pairs] if they are not, or quote = "" if they are'
            )


@contextmanager
def faults_of(pairs: Pairs) -> Iterator[None]:
    """Faults of a file as a SourceError with its location. A fault of the disk stays as it is."""
    try:
        yield
    except (pa.ArrowException, gzip.BadGzipFile, zlib.error, EOFError, csv.Error, UnicodeError) as error:
        raise SourceError(_unreadable(pairs, error)) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, IsADirectoryError):
            raise
        raise SourceError(_unreadable(pairs, error)) from error


def _unreadable(pairs: Pairs, error: Exception) -> str:
    kind = f" as {pairs.file_format}" if pairs.location is not None else ""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"{pairs.safe_location} cannot be read{kind}: {reason}"


def wanted(pairs: Pairs) -> tuple[str, ...]:
    """The columns to read: url, caption and the extra columns, as the list names them."""
    return (pairs.url, pairs.caption, *pairs.extra)


def check_names(columns: Iterable[str], pairs: Pairs) -> None:
    """Raises SourceError for a column of [pairs] that the list lacks, with the most similar name, or has twice."""
    known = list(columns)
    for name in wanted(pairs):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = (
                f"; did you mean {close[0]!r}?"
                if close
                else f"; it has {' '.join(', '.join(known[:20]).split())[:MAX_NAMES]}"
            )
            raise MissingColumnError(f"{pairs.safe_location} has no column {name!r}{hint}")
        if known.count(name) > 1:
            raise SourceError(
                f"{pairs.safe_location} has {known.count(name)} columns called {name!r}: rename all but one"
            )


def unparsed(line: str, pairs: Pairs) -> Row:
    """A pair without a URL, for a line that cannot be parsed."""
    return ("", line.strip()[:MAX_LINE], *(None for _ in pairs.extra))


def agreed_type(types: Iterable[pa.DataType]) -> pa.DataType:
    """A type for the values of all these types: the wider of numbers or times, or else text."""
    distinct = [each for each in dict.fromkeys(types) if not pa.types.is_null(each)] or [pa.string()]
    if len(distinct) == 1:
        return distinct[0]
    whole = [each for each in distinct if pa.types.is_integer(each)]
    if pa.uint64() in whole and any(pa.types.is_signed_integer(each) for each in whole):
        return pa.decimal128(20, 0) if len(whole) == len(distinct) else pa.float64()
    try:
        schemas = [pa.schema([("column", each)]) for each in distinct]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return pa.string()
