"""The columns of `rows`: those that winnow makes itself, and the names that no extra column may take."""

import pyarrow as pa

MADE = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "status": pa.string(),  # ok, failed or quarantined
        "cause": pa.string(),  # why it failed, one word: http_404, timeout, opt_out, undecodable ...; NULL where ok
        "error": pa.string(),  # the same in the words of whatever said so
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
"""The column of a union's rows that names the source each comes from. `source` is, in SQL, whose rows they are now."""


RESERVED = frozenset(MADE.names) | {"entry", "url_number", "kept", "dropped_by", "unknown", "source", ORIGIN}
"""Names that no extra column may take."""
