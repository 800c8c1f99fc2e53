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
    try:
        if test.location.suffix == ".parquet":
            table = pq.read_table(test.location)
        else:
            table = pyarrow.csv.read_csv(test.location)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{test.location.name}: this is neither Parquet nor CSV: {error}") from None
    for column in columns:
        if column not in table.column_names:
            close = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.4) or table.column_names
            raise SourceError(f"{test.location.name}: there is no column {column!r}; did you mean {close[0]!r}?")
    return table.select(list(dict.fromkeys(columns)))


def list_pictures(test: TestSet) -> list[Path]:
    """The pictures that the list names, sorted, relative to its folder. Raises SourceError for a missing one."""
    names = pc.unique(read(test, [test.image])[test.image]).to_pylist()
    paths = [Path(str(name)) for name in sorted(names, key=str)]
    check(test, [test.folder / path for path in paths])
    return paths


def check(test: TestSet, paths: Collection[Path]) -> None:
    """Raises SourceError if one of the pictures is missing."""
    if missing := next((path for path in paths if not path.is_file()), None):
        raise SourceError(f"{test.location.name}: there is no picture {missing}")
