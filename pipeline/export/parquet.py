"""Parquet as Hugging Face's `datasets` writes it: the picture in the column `image`, and all columns."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export import json_values
from pipeline.export.format import public, public_schema
from pipeline.export.stored import Stored
from pipeline.schema import EXPORTED

IMAGE = "image"
_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_FEATURES = {"info": {"features": {IMAGE: {"_type": "Image"}}}}


def names(number: int, pieces: int) -> Sequence[str]:
    """One file, named as a split is."""
    return (f"data/train-{number:05d}-of-{pieces:05d}.parquet",)


def write(paths: Sequence[Path], pairs: pa.Table, stored: Stored) -> None:
    """The picture is in `image`, with the metadata that `datasets` reads."""
    rows = _readable(public(pairs))
    named = zip(stored.pictures(pairs), rows["uid"].to_pylist(), strict=True)
    pictures = pa.array([{"bytes": picture, "path": f"{uid}.jpg"} for picture, uid in named], _PICTURE)
    table = rows.add_column(0, IMAGE, pictures).replace_schema_metadata({"huggingface": json.dumps(_FEATURES)})
    pq.write_table(table, paths[0], compression="zstd", row_group_size=100)


def columns(rows: pa.Schema) -> pa.Schema:
    """The picture, and all columns."""
    found = _readable(public_schema(rows).empty_table()).schema
    return pa.schema([pa.field(IMAGE, _PICTURE), *found])


def _readable(rows: pa.Table) -> pa.Table:
    """The same as `datasets` can read it: a source's own `image` has another name, and a map is JSON."""
    rows = rows.rename_columns([EXPORTED[IMAGE] if name.lower() == IMAGE else name for name in rows.column_names])
    for at, each in enumerate(rows.schema):
        if pa.types.is_nested(each.type) and json_values.feature(each.type) == {"dtype": "string"}:
            texts = [json_values.value(value, each.type) for value in rows.column(at).to_pylist()]
            rows = rows.set_column(at, each.name, pa.array(texts, pa.string()))
    return rows
