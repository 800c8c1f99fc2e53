"""webdataset tars in img2dataset's layout: beside each tar a Parquet file of the same name has the columns."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export import json_values
from pipeline.export.format import COPY, public
from pipeline.export.stored import Stored
from pipeline.schema import EXPORTED
from pipeline.store import tarfiles

KEY = "key"
"""The column that names a sample of the tar, as img2dataset calls it. Here it is the uid, with a number if a recipe
repeats the pair."""


def names(number: int, pieces: int) -> Sequence[str]:
    """The tar and its table."""
    return f"{number:05d}.tar", f"{number:05d}.parquet"


def write(paths: Sequence[Path], pairs: pa.Table, stored: Stored) -> None:
    """For each pair, named by its key: the picture as .jpg, the caption as .txt, and all columns as .json.

    The JSON is what `json_values.value` makes of a value. The table also has img2dataset's `status`.
    """
    tar, table = paths
    rows = _keyed(pairs)

    def members() -> Iterator[tuple[str, bytes]]:
        for row, picture in zip(rows.to_pylist(), stored.pictures(pairs), strict=True):
            columns = {field.name: json_values.value(row[field.name], field.type) for field in rows.schema}
            yield f"{row[KEY]}.jpg", picture
            yield f"{row[KEY]}.txt", (row["caption"] or "").encode()
            yield f"{row[KEY]}.json", json.dumps(columns, ensure_ascii=False, allow_nan=False).encode()

    tarfiles.write(tar, members())
    downloaded = pa.array(["success"] * len(rows))
    pq.write_table(rows.add_column(1, "status", downloaded), table, compression="zstd")


def end(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """Write sizes.json, from which open_clip and DataComp's resharder read the number of pairs of each tar."""
    (part / "sizes.json").write_text(json.dumps({name: len(table) for name, table in pieces}, indent=1))


def columns(rows: pa.Schema) -> pa.Schema:
    """The columns of the JSON."""
    return _keyed(rows.empty_table()).schema


def features(columns: pa.Schema) -> list[dict[str, Any]]:
    """A sample's files, and the types of the JSON's columns."""
    struct = [{"name": each.name, **json_values.feature(each.type)} for each in columns]
    return [{"name": "jpg", "dtype": "image"}, {"name": "txt", "dtype": "string"}, {"name": "json", "struct": struct}]


def _keyed(pairs: pa.Table) -> pa.Table:
    """The public columns after `KEY`. A source's own `key` has another name. A further sample of a pair has its number.

    webdataset and its readers take samples of one key for one.
    """
    rows = public(pairs)
    rows = rows.rename_columns([EXPORTED[KEY] if name.lower() == KEY else name for name in rows.column_names])
    keys = rows["uid"]
    if COPY in pairs.column_names:
        names = zip(keys.to_pylist(), pairs[COPY].to_pylist(), strict=True)
        keys = pa.array([f"{uid}-{copy}" if copy else uid for uid, copy in names], pa.string())
    return rows.add_column(0, KEY, keys)
