"""The columns of `rows`: those that winnow makes itself, the names of score columns, and reserved names."""

import pyarrow as pa

MADE = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "status": pa.string(),  # ok, failed or quarantined
        "cause": pa.string(),  # why it failed, one word: http_404, timeout, opt_out, undecodable ...; NULL where ok
        "error": pa.string(),  # the message of whatever failed
        "sha256": pa.string(),  # of the bytes that were fetched
        "width": pa.int32(),  # as fetched, after EXIF orientation
        "height": pa.int32(),
        "bytes": pa.int64(),  # as fetched
        "shard": pa.int32(),
        "member": pa.string(),  # of the shard's tar; NULL where there is no picture
    }
)
"""Columns of `rows` that winnow makes itself."""

ORIGIN = "origin"
"""The column of a union's rows that names the member each pair comes from. `source`, in SQL, names the union itself."""

PLACE = "place"
"""The column of local pictures: where the bytes of each are, relative to the base folder of its list.

A file is `photos/a.jpg`, a member of a tar `00012.tar!000120034.jpg`, a row of a table `train-0.parquet!17`.
"""

RESERVED = frozenset(MADE.names) | {
    "entry",
    "url_number",
    "kept",
    "dropped_by",
    "unknown",
    "copies",
    "source",
    ORIGIN,
    PLACE,
    "file_row_number",  # DuckDB gives these two to the rows of a Parquet file
    "file_index",
}
"""Names, in lower case, that neither an extra column nor a score may have."""

INTERNAL = "__"
"""Columns whose name begins with this exist only inside SQL that winnow writes. No other column may begin so."""

EXPORTED = {"image": "source_image", "key": "source_key", "image_path": "source_image_path"}
"""Extra columns that have another name in exports whose own columns are called so."""

SOURCE_UID = "source_uid"
"""The extra column with the uid that a pair has in the source's own data, such as DataComp's shards."""


def score_column(scorer: str, column: str) -> str:
    """The name in `rows` of a scorer's column. `pipeline.sources.columns.score_columns` is the inverse."""
    return f"{scorer}_{column}"
