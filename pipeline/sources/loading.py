"""Source files: found by name, read, checked, and their faults put into one line."""

import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pipeline.errors import SourceError, nearest
from pipeline.schema import ORIGIN
from pipeline.scorers.leaks import LeaksSpec
from pipeline.sources.columns import check_columns
from pipeline.sources.source import Source


def members(source: Source) -> list[tuple[Source, float]]:
    """The sources of a union, each with the share of its pairs that is drawn; of any other source none.

    Raises SourceError for one that cannot be read, or has no list of its own.
    """
    found: list[tuple[Source, float]] = []
    for name, share in source.union.items():
        try:
            member = _read(find(str(source.path.parent / name) if name.endswith(".toml") else name))
            if member.pairs is None:
                raise SourceError("it has no [pairs] of its own")
            if member.name in [known.name for known, _ in found]:
                raise SourceError(f"there are two sources called {member.name}")
        except SourceError as error:
            raise SourceError(f"{source.path.name}: union.{name}: {error}") from None
        found.append((member, share))
    return found


def extra_names(source: Source) -> tuple[str, ...]:
    """The columns of the list that travel along; of a union those of all its members, and `ORIGIN`."""
    if source.pairs is not None:
        return source.pairs.extra
    named = [name for member, _ in members(source) for name in extra_names(member)]
    return (ORIGIN, *dict.fromkeys(named)) if source.union else ()


def with_test(source: Source) -> Source:
    """The source whose leaks are looked for in the test set of its task, too."""
    if source.task is None or source.task.test is None:
        return source
    test = {"test": source.task.test}
    known = {
        name: spec.model_copy(update=test) if isinstance(spec, LeaksSpec) and spec.test is None else spec
        for name, spec in source.scorers.items()
    }
    return source.model_copy(update={"scorers": known})


def find(path_or_name: str) -> Path:
    """The source file meant by a path, or by a name: "cc3m" is data_manifests/cc3m.toml. Raises SourceError."""
    if path_or_name.endswith(".toml"):
        if not Path(path_or_name).is_file():
            raise SourceError(f"there is no source file {path_or_name}")
        return Path(path_or_name).resolve()
    known = {path.stem: path for folder in _FOLDERS for path in sorted(folder.glob("*.toml"))}
    if path_or_name not in known:
        raise SourceError(f"no source is called {path_or_name!r}{nearest(path_or_name, known)}; a path ends in .toml")
    return known[path_or_name].resolve()


def every() -> list[Path]:
    """All source files of data_manifests/, the template left out, sorted by name."""
    known = {path.stem: path for folder in _FOLDERS for path in folder.glob("*.toml")}
    return [path.resolve() for name, path in sorted(known.items()) if name != "template"]


def load(path_or_name: str | Path) -> Source:
    """Read and check a source file: keys, types, files, filter names. Raises SourceError with the first fault."""
    source = _read(find(str(path_or_name)))
    _check_union(source)
    return with_test(source)


def _check_union(source: Source) -> None:
    """Read the members of a union, whose extra columns are all in its rows."""
    names = dict.fromkeys(name for member, _ in members(source) for name in extra_names(member))
    try:
        check_columns(names, source.scorers)
    except ValueError as error:
        raise SourceError(f"{source.path.name}: [union]: {error}") from None


def _read(path: Path) -> Source:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name}: this is no TOML: {error}") from None
    table.setdefault("name", path.stem)
    try:
        return Source.model_validate(table | {"path": path}, context={"folder": path.parent})
    except ValidationError as error:
        raise SourceError(_first_fault(path, error)) from None


_FOLDERS = (Path(__file__).parents[2] / "data_manifests", Path("data_manifests"))


def _first_fault(path: Path, error: ValidationError) -> str:
    """File, key, what is wrong, and the nearest valid name."""
    faults = error.errors()  # a misspelt key is also a missing one: tell the misspelling
    fault = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
    place = fault["loc"]
    key = ".".join(str(part) for part in _untagged(place))
    if fault["type"] == "extra_forbidden":
        return f"{path.name}: unknown key {key}{nearest(str(place[-1]), _keys_at(place[:-1]))}"
    if fault["type"] == "union_tag_invalid":
        kinds = [kind.strip("' ") for kind in fault["ctx"]["expected_tags"].split(",")]
        return f"{path.name}: {key}.kind: {fault['ctx']['tag']!r} is unknown{nearest(fault['ctx']['tag'], kinds)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path.name}: {key + ': ' if key else ''}{message}"


def _untagged(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Less the tag that says which kind of scorer or encoder was meant: the file has no such key."""
    at = (
        2 if place[:1] == ("scorers",) else 4 if place[:2] == ("task", "learners") and "encoder" in place[3:4] else None
    )
    return place if at is None or len(place) <= at else place[:at] + place[at + 1 :]


def _unnamed(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Less the name that the file gives to a scorer or a learner: it may be that of a kind."""
    at = 1 if place[:1] == ("scorers",) else 2 if place[:2] == ("task", "learners") else len(place)
    return place[:at] + place[at + 1 :]


def _keys_at(place: tuple[int | str, ...]) -> set[str]:
    """The keys that a table of the source file may have."""
    here: list[type[BaseModel]] = [Source]
    for part in _unnamed(place):
        below = [_models(model.model_fields[part].annotation) for model in here if part in model.model_fields]
        tagged = [
            model
            for model in here
            if "kind" in model.model_fields and part in get_args(model.model_fields["kind"].annotation)
        ]
        here = [model for models in below for model in models] or tagged or here
    return {name for model in here for name in model.model_fields} - {"path"}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
