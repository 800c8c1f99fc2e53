"""Cuts new pairs into shards."""

from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.parquet import ROW_GROUP


def cut(con: duckdb.DuckDBPyConnection, size: int, fresh: str = "fresh") -> Iterator[pa.Table]:
    """Tables of about `size` pairs in ledger order: by the first occurrence of a URL, all pairs of a URL together.

    Reads the tables `listed` (all columns of the list) and `fresh` (the ordinals of new pairs). A shard begins with the
    first URL at or after each multiple of `size`, so that the captions of its last URL may make it longer. Each row
    without a URL is a URL of its own.
    """
    reader = con.sql(
        f"""
        WITH rows AS (SELECT *, CASE url WHEN '' THEN uid ELSE url END AS __page
                      FROM listed SEMI JOIN (SELECT __ordinal FROM {fresh}) USING (__ordinal)),
        pages AS (SELECT __page, min(__ordinal) AS first, count(*) AS pairs FROM rows GROUP BY __page),
        slots AS (SELECT __page, first, ((sum(pairs) OVER (ORDER BY first) - pairs) // {size})::BIGINT AS __slot
                  FROM pages),
        numbers AS (SELECT __page, __slot,
                           (row_number() OVER (PARTITION BY __slot ORDER BY first) - 1)::INTEGER AS url_number
                    FROM slots)
        SELECT __slot, uid, entry, url, caption, url_number,
               rows.* EXCLUDE (__ordinal, __page, uid, entry, url, caption)
        FROM rows JOIN numbers USING (__page) ORDER BY __slot, url_number, __ordinal
        """
    ).to_arrow_reader(ROW_GROUP)
    parts: list[pa.Table] = []
    for batch in reader:
        table = pa.Table.from_batches([batch])
        for slot in pc.unique(table["__slot"]):
            part = table.filter(pc.equal(table["__slot"], slot))
            if parts and parts[0]["__slot"][0] != slot:
                yield _join(parts)
                parts = []
            parts.append(part)
    if parts:
        yield _join(parts)


def _join(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).drop_columns(["__slot"]).combine_chunks()
