"""A folder of pictures and a CSV, as open_clip reads it."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.export.stored import Stored

LIST = "train.csv"
SEPARATOR = "\t"
COLUMNS = pa.schema(dict.fromkeys(("filepath", "title", "uid", "url"), pa.string()))
"""open_clip reads the first two by default: the absolute path of the picture, and the caption."""

_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
"""Words that pandas reads as a missing value. open_clip reads a CSV with pandas."""


def names(number: int, pieces: int) -> Sequence[str]:
    """One folder of pictures."""
    return (f"images/{number:05d}",)


def write(paths: Sequence[Path], pairs: pa.Table, stored: Stored) -> None:
    """The pictures. Pairs that share a picture share its file."""
    paths[0].mkdir()
    for name, picture in zip(_files(pairs), stored.pictures(pairs), strict=True):
        (paths[0] / name).write_bytes(picture)


def end(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """Write the list, with the columns and the separator that open_clip expects."""
    with (part / LIST).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter=SEPARATOR, lineterminator="\n")
        rows.writerow(COLUMNS.names)
        for name, pairs in pieces:
            own = (pairs[column].to_pylist() for column in ("caption", "uid", "url"))
            for picture, caption, uid, url in zip(_files(pairs), *own, strict=True):
                rows.writerow([to / name / picture, nonmissing(caption or ""), uid, nonmissing(url or "")])


def columns(rows: pa.Schema) -> pa.Schema:
    """The columns of the list."""
    return COLUMNS


def features(columns: pa.Schema) -> list[dict[str, Any]]:
    """All of them are text: `datasets` would read a list of numbers as numbers."""
    return [{"name": each.name, "dtype": "string"} for each in columns]


def nonmissing(caption: str) -> str:
    """The caption, with a leading blank if pandas would read it as missing. Tokenizers strip the blank."""
    return f" {caption}" if caption in _MISSING else caption


def _files(pairs: pa.Table) -> list[str]:
    places = zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True)
    return [f"{shard:05d}-{member}" for shard, member in places]
