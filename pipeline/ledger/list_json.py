"""Lists in JSON lines."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.errors import SourceError
from pipeline.ledger.list_rows import Notes, Row, check_names, unparsed, wanted
from pipeline.settings.pairs import Pairs


def json_rows(lines: Iterable[str], pairs: Pairs, notes: Notes) -> Iterator[Row]:
    """The rows of JSON lines. A row whose caption is a list becomes a row for each of its values.

    Raises SourceError if the first line that is not blank is not a JSON object, lacks a column, or has an object for
    text.
    """
    first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        (line,) = notes.clean([line])
        row = _object(line)
        if first:
            _check_first(row, number, pairs)
            first = False
        if row is None or _nested(row, pairs):
            yield unparsed(line, pairs)
            continue
        url, captions, *extra = (row.get(name) for name in wanted(pairs))
        for caption in captions if isinstance(captions, list) and captions else [captions]:
            yield text_of(url) or "", ("" if caption == [] else text_of(caption)) or "", *map(text_of, extra)


def json_names(line: str, pairs: Pairs) -> list[str]:
    """The keys of the first object. Raises SourceError if it is none."""
    row = _object(line)
    if row is None:
        raise SourceError(f"{pairs.safe_location}: the first line is no JSON object; is it really JSON lines?")
    return list(row)


def _object(line: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, Mapping) else None


def _check_first(row: Mapping[str, Any] | None, number: int, pairs: Pairs) -> None:
    if row is None:
        place = "the first line" if number == 1 else f"line {number}, the first that is not blank,"
        raise SourceError(f"{pairs.safe_location}: {place} is no JSON object; is it really JSON lines?")
    check_names(row, pairs)
    name = _nested(row, pairs)
    if name:
        raise SourceError(f"{pairs.safe_location}, line {number}: the column {name!r} is not text: name one that is")


def _nested(row: Mapping[str, Any], pairs: Pairs) -> str | None:
    """The name of the column, of url and caption, whose value is an object or an unsupported list; None without one."""
    url, caption = row.get(pairs.url), row.get(pairs.caption)
    if isinstance(url, Mapping | list):
        return pairs.url
    captions = caption if isinstance(caption, list) else [caption]
    return pairs.caption if any(isinstance(each, Mapping | list) for each in captions) else None


def text_of(value: Any) -> str | None:
    """A JSON value as text. A lone surrogate, which is valid in JSON, becomes a question mark."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return json.dumps(value, sort_keys=True)
