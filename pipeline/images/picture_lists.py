"""The list of a test set, as Parquet or CSV: its columns, and the pictures that it names."""

import difflib
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.settings.task import TestSet


def read(test: TestSet, columns: Collection[str]) -> pa.Table:
    """These columns of the list, a row a caption. Raises SourceError for a broken file or a missing column."""
    return read_list(test.location, columns, text=test.image)


def read_list(location: Path, columns: Collection[str], text: str) -> pa.Table:
    """These columns of a Parquet or CSV file; `text` is read as text. Raises SourceError as `read` does."""
    try:
        if location.suffix == ".parquet":
            table = pq.read_table(location)
        else:
            _check_utf8(location)
            names = pyarrow.csv.ConvertOptions(column_types={text: pa.string()})  # 0040 is no number
            table = pyarrow.csv.read_csv(location, convert_options=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{location.name}: this is neither Parquet nor CSV: {error}") from None
    for column in columns:
        if column not in table.column_names:
            close = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.4) or table.column_names
            hint = f"did you mean {close[0]!r}?" if close else "it has no columns at all"
            raise SourceError(f"{location.name}: there is no column {column!r}; {hint}")
    return table.select(list(dict.fromkeys(columns)))


def list_pictures(test: TestSet) -> list[Path]:
    """The pictures that the list names, sorted, relative to its folder.

    Raises SourceError for a missing one, and for a list that names none.
    """
    names = pc.unique(read(test, [test.image])[test.image]).drop_null().to_pylist()
    if not names:
        raise SourceError(f"{test.location.name} names no picture in its column {test.image!r}: add some")
    paths = [Path(str(name)) for name in sorted(names, key=str)]
    check(test, [test.folder / path for path in paths])
    return paths


def check(test: TestSet, paths: Collection[Path]) -> None:
    """Raises SourceError if one of the pictures is missing."""
    if missing := next((path for path in paths if not path.is_file()), None):
        name = str(missing.relative_to(test.folder) if missing.is_relative_to(test.folder) else missing)
        raise SourceError(f"{test.location.name}: there is no picture {name!r} in {test.folder}{_nearest(name, test)}")


def _nearest(name: str, test: TestSet) -> str:
    """The end of the message about a missing picture: a file that differs in zeros or its ending, or a close name."""
    folder = (test.folder / name).parent
    files = sorted(str(Path(name).parent / path.name) for path in folder.glob("*") if path.is_file())
    same = [file for file in files if str(Path(file).with_suffix("")).lstrip("0") == name.lstrip("0")]
    close = same or difflib.get_close_matches(name, files, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; check folder and the column {test.image!r}"


def _check_utf8(path: Path) -> None:
    """Raises SourceError, with the line, for text that is not UTF-8."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceError(f"{path.name}: the text is UTF-16: save the file as UTF-8")
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        text = content.split(b"\n")[line].decode("utf-8", "replace").strip()
        raise SourceError(
            f"{path.name}, line {line + 1}: the text is not UTF-8: {text[:80]!r}; save the file as UTF-8"
        ) from None
