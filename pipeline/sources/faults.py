"""The first fault that pydantic finds in a source file, as one line: file, key, what is wrong, the nearest name."""

from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import did_you_mean


def first_fault(path: Path, error: ValidationError, top: type[BaseModel]) -> str:
    """The line for a file that was read as a `top`. A misspelt key is also a missing one, and is reported first."""
    faults = error.errors()
    fault = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
    return f"{path.name}: {_line(fault, top)}"


def _line(fault: ErrorDetails, top: type[BaseModel]) -> str:
    location = fault["loc"]
    key = ".".join(map(str, _keys(top, location)))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key}{did_you_mean(str(location[-1]), _known_keys(top, location[:-1]))}"
    if fault["type"] == "union_tag_invalid":
        kinds = [kind.strip("' ") for kind in fault["ctx"]["expected_tags"].split(",")]
        return f"{key}.kind: {fault['ctx']['tag']!r} is unknown{did_you_mean(fault['ctx']['tag'], kinds)}"
    if fault["type"] == "union_tag_not_found" and fault["ctx"]["discriminator"] == "'kind'":
        return f"{key}.kind: Field required"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _keys(top: type[BaseModel], location: Sequence[int | str]) -> list[int | str]:
    """The keys in the file that lead to a location of pydantic's, which has more parts than the file has keys."""
    types: list[Any] = [top]
    keys = []
    for part in location:
        if not _is_tag(types, part) and part != "[key]":
            keys.append(part)
        types = _below(types, part)
    return keys


def _known_keys(top: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """The keys that the table at a location may have."""
    types: list[Any] = [top]
    for part in location:
        types = _below(types, part)
    return {name for each in types if _is_table(each) for name in each.model_fields} - {"path"}


def _below(types: Sequence[Any], part: int | str) -> list[Any]:
    """The types that a value may have whose location continues with `part`."""
    if _is_tag(types, part):
        return [each for each in types if part in _tags(each)]
    below: list[Any] = []
    for each in types:
        if _is_table(each) and part in each.model_fields:
            below += _alternatives(each.model_fields[part].annotation)
        elif get_origin(each) is dict:
            below += _alternatives(get_args(each)[1])
        elif get_origin(each) is tuple:
            below += _alternatives(get_args(each)[0])
    return below


def _is_tag(types: Sequence[Any], part: int | str) -> bool:
    """Whether this part of a location names the `kind` of table among several; the file has no such key."""
    return len(types) > 1 and any(part in _tags(each) for each in types)


def _tags(table: Any) -> tuple[Any, ...]:
    """The values of `kind` that mean this table."""
    return get_args(table.model_fields["kind"].annotation) if _is_table(table) and "kind" in table.model_fields else ()


def _alternatives(annotation: Any) -> list[Any]:
    """The types of a union, or the one type, without None."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for inner in get_args(annotation) for each in _alternatives(inner) if each is not NoneType]
    return [annotation]


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
