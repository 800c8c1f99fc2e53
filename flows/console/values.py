"""Arrow columns as Python values that JSON, CSV and a terminal can show, for every type that DuckDB answers with.

pyarrow's own conversion fails for dates after the year 9999, needs pandas for nanoseconds, and loses a time of 24:00.
"""

import base64
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

DATES, TIMESTAMPS = 2**31 - 1, 2**63 - 1
"""What DuckDB stores for an infinite date and an infinite timestamp."""

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table, each a value by column name; see `values`."""
    columns = [[value for chunk in table[at].chunks for value in values(chunk)] for at in range(table.num_columns)]
    return [dict(zip(table.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def values(array: pa.Array) -> list[Any]:
    """None, bool, int, float, Decimal, str, list, or a dict by name, for each element.

    Dates, timestamps (UTC) and intervals are ISO 8601, bytes are base64. A map is a dict with its keys as text.
    """
    for fits, convert in _CONVERTERS:
        if fits(array.type):
            valid = array.is_valid().to_pylist()
            return [value if there else None for value, there in zip(convert(array), valid, strict=True)]
    found: list[Any] = array.to_pylist()
    return found


def _date(array: pa.Array) -> list[str]:
    return [_instant(each, "D", DATES) for each in _integers(array, pa.int32())]


def _timestamp(array: pa.Array) -> list[str]:
    zone = "" if array.type.tz is None else "Z"
    instants = (_instant(each, array.type.unit, TIMESTAMPS) for each in _integers(array, pa.int64()))
    return [text if text.endswith("infinity") else text + zone for text in instants]


def _instant(count: int, unit: Any, infinite: int) -> str:
    """Days or parts of a second since 1970, in ISO 8601."""
    if abs(count) == infinite:
        return "infinity" if count > 0 else "-infinity"
    text = str(np.datetime64(count, unit))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _time(array: pa.Array) -> list[str]:
    width = pa.int32() if kinds.is_time32(array.type) else pa.int64()
    return [_clock(each, PER_SECOND[array.type.unit]) for each in _integers(array, width)]


def _clock(count: int, per_second: int) -> str:
    seconds, part = divmod(count, per_second)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}{_fraction(part, per_second)}"


def _fraction(part: int, per_second: int) -> str:
    digits = len(str(per_second)) - 1
    return f".{part:0{digits}d}".rstrip("0").rstrip(".")


def _interval(array: pa.Array) -> list[str]:
    return [_duration(*each) if each else "" for each in array.to_pylist()]


def _duration(months: int, days: int, nanoseconds: int) -> str:
    """An ISO 8601 duration, such as P1M2DT3.5S. Each part has a sign of its own."""
    seconds, part = divmod(abs(nanoseconds), 10**9)
    sign = "-" if nanoseconds < 0 else ""
    date = "".join(f"{count}{unit}" for count, unit in ((months, "M"), (days, "D")) if count)
    time = f"T{sign}{seconds}{_fraction(part, 10**9)}S" if nanoseconds else ""
    return f"P{date}{time}" if date or time else "PT0S"


def _bytes(array: pa.Array) -> list[str]:
    return [base64.b64encode(each or b"").decode() for each in array.to_pylist()]


def _struct(array: pa.Array) -> list[dict[str, Any]]:
    names = [field.name for field in array.type]
    if not names:
        return [{} for _ in range(len(array))]
    fields = zip(*(values(each) for each in array.flatten()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in fields]


def _list(array: pa.Array) -> list[list[Any]]:
    """Null lists have length 0 here; `values` makes them None."""
    if kinds.is_fixed_size_list(array.type):
        lengths = [array.type.list_size if valid else 0 for valid in array.is_valid().to_pylist()]
    else:
        lengths = array.value_lengths().fill_null(0).to_pylist()
    return _split(values(array.flatten()), lengths)


def _map(array: pa.Array) -> list[dict[str, Any]]:
    entries = pa.ListArray.from_arrays(array.offsets, pa.StructArray.from_arrays([array.keys, array.items], ["k", "v"]))
    return [{str(each["k"]): each["v"] for each in entry or ()} for entry in values(entries)]


def _union(array: pa.Array) -> list[Any]:
    fields = [values(array.field(at)) for at in range(array.type.num_fields)]
    return [fields[code][at] for at, code in enumerate(array.type_codes.to_pylist())]


def _split(flat: list[Any], lengths: list[int]) -> list[list[Any]]:
    ends = list(accumulate(lengths))
    return [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _integers(array: pa.Array, width: pa.DataType) -> list[int]:
    found: list[int] = array.view(width).fill_null(0).to_pylist()
    return found


def _storage(array: pa.Array) -> list[Any]:
    return values(array.storage)


def _decoded(array: pa.Array) -> list[Any]:
    return values(array.dictionary_decode())


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[Any]]], ...] = (
    (kinds.is_date32, _date),
    (kinds.is_timestamp, _timestamp),
    (kinds.is_time, _time),
    (kinds.is_interval, _interval),
    (lambda kind: kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind), _bytes),
    (kinds.is_struct, _struct),
    (kinds.is_map, _map),
    (lambda kind: kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind), _list),
    (kinds.is_union, _union),
    (kinds.is_dictionary, _decoded),
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _storage),
)
