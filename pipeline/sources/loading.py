"""Source files: found by path or name, read, and checked."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from pipeline.errors import SourceError, did_you_mean
from pipeline.schema import ORIGIN, PLACE
from pipeline.scorers.label_errors import LabelErrorsSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.mixed import MixedSpec
from pipeline.scorers.target_set import TargetSet
from pipeline.sources.columns import check_columns
from pipeline.sources.faults import first_fault
from pipeline.sources.source import Source
from pipeline.text_files import read_text

_FOLDERS = (Path(__file__).parents[2] / "data_manifests", Path("data_manifests"))
"""Where source files are found by name; of two with one name the later folder's counts."""

_COMPARE = LeaksSpec | TargetSet | MixedSpec
"""The scorers that compare pictures with a test set."""


def load(path_or_name: str | Path) -> Source:
    """Read and check a source file: keys, types, files, filters, columns. Raises SourceError with the first fault."""
    source = _read(find(str(path_or_name)))
    _check_union(source)
    _check_mixed(source)
    source = with_classes(with_test_set(source))
    _check_leaks(source)
    return source


def find(path_or_name: str) -> Path:
    """The source file of a path, or of a name: "cc3m" is data_manifests/cc3m.toml. Raises SourceError."""
    if path_or_name.endswith(".toml"):
        if not Path(path_or_name).is_file():
            raise SourceError(f"there is no source file {path_or_name}")
        return Path(path_or_name).resolve()
    files = _files()
    if path_or_name not in files:
        hint = did_you_mean(path_or_name, files)
        raise SourceError(f"no source is called {path_or_name!r}{hint}; a path ends in .toml")
    return files[path_or_name].resolve()


def source_files() -> list[Path]:
    """All source files of data_manifests/ except the template, sorted by name."""
    return [path.absolute() for name, path in sorted(_files().items()) if name != "template"]


def members(source: Source) -> list[tuple[Source, float]]:
    """The members of a union, each with the share of its pairs that is drawn; none for any other source.

    Raises SourceError for a member that cannot be read, or that has no list of its own.
    """
    found: list[tuple[Source, float]] = []
    for name, share in source.union.items():
        try:
            member = _read(find(str(source.path.parent / name) if name.endswith(".toml") else name))
            if member.pairs is None:
                raise SourceError("it has no [pairs] of its own")
            if any(member.name == other.name for other, _ in found):
                raise SourceError(f"there are two sources called {member.name}")
        except SourceError as error:
            raise SourceError(f"{source.path.name}: union.{name}: {error}") from None
        found.append((member, share))
    return found


def unions_of(name: str) -> list[Source]:
    """The unions of data_manifests/ with the source of this name. Raises SourceError for one that cannot be read."""
    unions = [load(path) for path in source_files() if _is_union(path)]
    return [each for each in unions if any(member.name == name for member, _ in members(each))]


def extra_names(source: Source) -> tuple[str, ...]:
    """The extra columns of the list, for local pictures after `PLACE`; of a union `ORIGIN` and those of all members."""
    if source.pairs is not None:
        return (PLACE, *source.pairs.extra) if source.pairs.is_local else source.pairs.extra
    if not source.union:
        return ()
    return (ORIGIN, *dict.fromkeys(name for member, _ in members(source) for name in extra_names(member)))


def with_test_set(source: Source) -> Source:
    """The source whose scorers that compare with a test set have that of its task, unless they name their own."""
    if source.task is None or source.task.test is None:
        return source
    test = {"test": source.task.test}
    scorers = {
        name: spec.model_copy(update=test) if isinstance(spec, _COMPARE) and spec.test is None else spec
        for name, spec in source.scorers.items()
    }
    return source.model_copy(update={"scorers": scorers})


def with_classes(source: Source) -> Source:
    """The source whose label_errors scorers check the labels of its task, unless they name classes of their own."""
    if source.task is None or not source.task.has_classes:
        return source
    classes, column = source.task.classes, source.task.column
    scorers = {
        name: spec.model_copy(update={"classes": classes, "column": spec.column or column})
        if isinstance(spec, LabelErrorsSpec) and not spec.classes
        else spec
        for name, spec in source.scorers.items()
    }
    return source.model_copy(update={"scorers": scorers})


def _check_mixed(source: Source) -> None:
    """Raises SourceError for a mix that may learn from the pictures that the task holds out."""
    for name, spec in source.scorers.items():
        if isinstance(spec, MixedSpec) and not spec.reference.folder and source.task and source.task.split:
            raise SourceError(
                f"{source.path.name}: scorers.{name}: task.split holds out pictures of this source, and pairs of the "
                "reference may be among them; give reference a folder with other pictures, or use task.test"
            )


def _check_leaks(source: Source) -> None:
    """Raises SourceError for leaks that are looked for in no test set. That of a demo is drawn later."""
    for name, spec in source.scorers.items():
        if isinstance(spec, LeaksSpec) and not spec.sets and spec.test is None and source.demo is None:
            raise SourceError(
                f"{source.path.name}: scorers.{name}: there is no test set to compare with: name one in its sets, or "
                "in [task.test]"
            )


def _is_union(path: Path) -> bool:
    """Whether a source file has the table [union]. One that is no TOML has none."""
    try:
        return "union" in tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError):
        return False


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in _FOLDERS for path in folder.glob("*.toml")}


def _read(path: Path) -> Source:
    try:
        table = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name}: this is no TOML: {error}") from None
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise SourceError(f"{path.name}: its tables or lists are nested too deeply") from None
    table.setdefault("name", path.stem)
    try:
        return Source.model_validate(table | {"path": path}, context={"folder": path.parent})
    except ValidationError as error:
        raise SourceError(first_fault(path, error, Source)) from None


def _check_union(source: Source) -> None:
    """Check the columns of the members of a union against each other. Raises SourceError."""
    names = [name for name in extra_names(source) if name not in (ORIGIN, PLACE)]
    try:
        check_columns(names, source.scorers)
    except ValueError as error:
        raise SourceError(f"{source.path.name}: [union]: {error}") from None
