"""The formats of an export: webdataset tars, Parquet for Hugging Face's `datasets`, a CSV for open_clip."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.manifest import dataset_card
from pipeline.schema import EXPORTED
from pipeline.store import tarfiles

_BOOKKEEPING = frozenset({"status", "cause", "error", "bytes", "shard", "member", "kept", "dropped_by", "unknown"})
"""Columns of rows that are winnow's own bookkeeping."""

_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
"""Words that pandas reads as a missing value. open_clip reads a CSV with pandas."""

_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


@dataclass(frozen=True)
class Format:
    """A way to write pairs: the name of a piece, how to write one, and what to write at the end.

    `{piece}` and `{pieces}` in `name` are the number of a piece and how many there are. `write` takes the path, the
    pairs and their pictures. `end` takes the unfinished folder, the finished one, and the pairs of each piece by name.
    """

    name: str
    write: Callable[[Path, pa.Table, Iterator[bytes]], None]
    end: Callable[[Path, Path, Iterator[tuple[str, pa.Table]]], None] = lambda folder, to, pieces: None


def _public(pairs: pa.Table) -> pa.Table:
    """The columns without winnow's own bookkeeping."""
    return pairs.select([name for name in pairs.column_names if name not in _BOOKKEEPING])


def _tar(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """For each pair, named by its uid: the picture as .jpg, the caption as .txt, and all columns as .json.

    The JSON is what `dataset_card.value` makes of a value.
    """

    def members() -> Iterator[tuple[str, bytes]]:
        rows = _public(pairs)
        for row, picture in zip(rows.to_pylist(), pictures, strict=True):
            columns = {field.name: dataset_card.value(row[field.name], field.type) for field in rows.schema}
            yield f"{row['uid']}.jpg", picture
            yield f"{row['uid']}.txt", (row["caption"] or "").encode()
            yield f"{row['uid']}.json", json.dumps(columns, ensure_ascii=False, allow_nan=False).encode()

    tarfiles.write(path, members())


def _sizes(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """Write sizes.json, from which open_clip reads the number of pairs of each tar, and the dataset card."""
    sizes, columns = {}, pa.schema([])
    for name, table in pieces:
        sizes[name], columns = len(table), _public(table).schema
    (part / "sizes.json").write_text(json.dumps(sizes, indent=1))
    struct = [{"name": each.name, **dataset_card.feature(each.type)} for each in columns]
    features: list[dict[str, Any]] = [
        {"name": "jpg", "dtype": "image"},
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": struct},
    ]
    (part / dataset_card.NAME).write_text(dataset_card.card("*.tar", features), encoding="utf-8")


def _parquet(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """The picture is in `image`, with the metadata that `datasets` reads. `EXPORTED` renames a source's own `image`."""
    rows = _public(pairs).replace_schema_metadata(None)
    rows = rows.rename_columns([EXPORTED.get(name.lower(), name) for name in rows.column_names])
    images = pa.array(
        [
            {"bytes": picture, "path": f"{uid}.jpg"}
            for picture, uid in zip(pictures, rows["uid"].to_pylist(), strict=True)
        ],
        _IMAGE,
    )
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = rows.add_column(0, "image", images).replace_schema_metadata({"huggingface": features})
    pq.write_table(table, path, compression="zstd", row_group_size=100)


def _folder(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """The pictures. Pairs that share a picture share its file."""
    path.mkdir()
    for name, picture in zip(_files(pairs), pictures, strict=True):
        (path / name).write_bytes(picture)


def _files(pairs: pa.Table) -> list[str]:
    places = zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True)
    return [f"{shard:05d}-{member}" for shard, member in places]


def _list(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """train.csv, with the columns and the separator that open_clip expects. Paths are absolute."""
    with (part / "train.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["filepath", "title"])
        for name, pairs in pieces:
            for picture, caption in zip(_files(pairs), pairs["caption"].to_pylist(), strict=True):
                rows.writerow([to / name / picture, nonmissing(caption or "")])
    (part / dataset_card.NAME).write_text(dataset_card.card("train.csv", sep="\t"), encoding="utf-8")


def nonmissing(caption: str) -> str:
    """The caption, with a leading blank if pandas would read it as missing. Tokenizers strip the blank."""
    return f" {caption}" if caption in _MISSING else caption


FORMATS: Mapping[str, Format] = {
    "webdataset": Format("{piece:05d}.tar", _tar, _sizes),
    "datasets": Format("data/train-{piece:05d}-of-{pieces:05d}.parquet", _parquet),
    "csv": Format("images/{piece:05d}", _folder, _list),
}
"""By name: webdataset tars; Parquet for `datasets.load_dataset`; a folder of a CSV for open_clip."""
