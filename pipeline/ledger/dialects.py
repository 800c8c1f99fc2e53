"""The dialect of a TSV or CSV: its delimiter and its quotes."""

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product

from pipeline.ledger.list_rows import wanted
from pipeline.settings.pairs import Pairs

CARRIAGE_RETURN = "\udf0d"
"""Replaces a carriage return inside a line while csv reads it. Outside quotes csv would end the line there."""

_END = "\n"

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Dialect:
    """`quote` is empty if nothing is quoted. With `any_line_end` a carriage return ends a line, as on old Macs."""

    delimiter: str
    quote: str
    any_line_end: bool = False


def find_dialect(sample: str, pairs: Pairs) -> Dialect:
    """The dialect of [pairs], or else the one detected in the beginning of the list, or else the default.

    Another delimiter is detected if the header line has all columns with this delimiter only. Quotes in a TSV are
    detected if a CSV writer would reproduce the text, or if every field of the first line is quoted.
    """
    comma = pairs.file_format == "csv"
    delimiter = pairs.delimiter or _delimiter(sample, "," if comma else "\t", pairs)
    quote = pairs.quote
    if quote is None:
        quote = '"' if comma or _is_quoted(sample, delimiter) else ""
    return Dialect(delimiter, quote, any_line_end=comma and "\n" not in sample)


def header_names(line: str, pairs: Pairs, usual: Collection[str]) -> list[str]:
    """The columns of a header line, by the delimiter of [pairs], or the first that separates one of the usual names."""
    default = "," if pairs.file_format == "csv" else "\t"
    for delimiter in [pairs.delimiter] if pairs.delimiter else [default, *_DELIMITERS]:
        names = _split(line, delimiter)
        if not set(usual).isdisjoint(names):
            return names
    return _split(line, pairs.delimiter or default)


def suggest_delimiter(line: str, count: int, delimiter: str) -> str:
    """A hint for the message about a line that does not have `count` fields; empty without one."""
    fitting = [each for each in _DELIMITERS if each != delimiter and len(_split(line, each)) == count > 1]
    if len(fitting) != 1:
        return ""
    name = "\\t" if fitting[0] == "\t" else fitting[0]
    return f'; set delimiter = "{name}" if that separates them'


def _delimiter(sample: str, usual: str, pairs: Pairs) -> str:
    if pairs.columns:
        return usual
    header = next((line for line in sample.splitlines() if line.strip()), "")
    fitting = [each for each in _DELIMITERS if set(wanted(pairs)) <= set(_split(header, each))]
    return fitting[0] if len(fitting) == 1 else usual


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return line.split(delimiter)


def _is_quoted(sample: str, delimiter: str) -> bool:
    if '"' not in sample:
        return False
    sample = sample.replace("\r\n", "\n").replace("\r", CARRIAGE_RETURN).strip("\n") + "\n"
    first = sample[: sample.index("\n")].split(delimiter)
    if all(re.fullmatch(r'"(?:[^"]|"")*"', field) for field in first):
        return True
    styles = product((csv.QUOTE_MINIMAL, csv.QUOTE_ALL), (_END, CARRIAGE_RETURN + _END))
    return any(_written(sample, delimiter, *style) == sample.replace(CARRIAGE_RETURN + _END, _END) for style in styles)


def _written(sample: str, delimiter: str, style: int, end: str) -> str:
    """The text as a CSV writer would reproduce it, with `_END` at the end of lines; empty if it cannot be parsed.

    A writer also quotes the characters of its line end, wherever they occur.
    """
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=style, lineterminator=end)  # type: ignore[arg-type]
    try:
        writer.writerows(csv.reader(_lines(sample), delimiter=delimiter, strict=True))
    except csv.Error:
        return ""
    return written.getvalue().replace(CARRIAGE_RETURN + _END, _END)


def _lines(text: str) -> Iterator[str]:
    return iter(io.StringIO(text, newline="\n"))
