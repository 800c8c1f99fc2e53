"""Source files: found by name, read, checked, and their faults put into one line."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import SourceError, did_you_mean
from pipeline.schema import ORIGIN
from pipeline.scorers.leaks import LeaksSpec
from pipeline.sources.columns import check_columns
from pipeline.sources.faults import first_fault
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


def with_test_set(source: Source) -> Source:
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
        raise SourceError(
            f"no source is called {path_or_name!r}{did_you_mean(path_or_name, known)}; a path ends in .toml"
        )
    return known[path_or_name].resolve()


def source_files() -> list[Path]:
    """All source files of data_manifests/, the template left out, sorted by name."""
    known = {path.stem: path for folder in _FOLDERS for path in folder.glob("*.toml")}
    return [path.resolve() for name, path in sorted(known.items()) if name != "template"]


def load(path_or_name: str | Path) -> Source:
    """Read and check a source file: keys, types, files, filter names. Raises SourceError with the first fault."""
    source = _read(find(str(path_or_name)))
    _check_union(source)
    return with_test_set(source)


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
        raise SourceError(first_fault(path, error, Source)) from None


_FOLDERS = (Path(__file__).parents[2] / "data_manifests", Path("data_manifests"))
