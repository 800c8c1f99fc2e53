"""Search of a manifest's pictures by the similarity of their stored embeddings to a query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.ledger.blocklist import Blocked
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours.nearest import Floats
from pipeline.query.embeddings import PictureEmbeddings
from pipeline.store import duck

FIRST, GROWTH = 64, 4
"""Candidates that are looked up first, and how many times as many there are in each next round."""

_COLUMNS = ("uid", "url", "caption", "sha256", "shard", "member")


@dataclass(frozen=True)
class Hit:
    """A picture that was found. `similarity` is the cosine with the query, -1 to 1, of embeddings stored in float16.

    The other fields are columns of `rows`, of the first pair in ledger order that shows this picture.
    """

    rank: int
    similarity: float
    uid: str
    url: str
    caption: str
    shard: int
    member: str


def search(
    manifest: Manifest,
    stage: str,
    query: Floats,
    count: int,
    kept: pa.Table | None = None,
    blocked: Blocked = Blocked(),  # noqa: B008 - a frozen value
) -> list[Hit]:
    """The `count` pictures of a manifest that are nearest to the query [dim], nearest first; fewer if it has fewer.

    `stage` is the folder of the scorer's results. A picture, known by the digest of the bytes that were fetched, is
    found once, however many pairs show it. Equals are in ledger order. With `kept`, a table with the column uid, only
    these pairs are searched. Pairs that failed, or that are `blocked`, are never found.
    """
    stored = PictureEmbeddings(manifest.storage, stage, query)
    hits: dict[str, Hit] = {}
    for similarity, row in _nearest(manifest, stored, count, kept):
        if len(hits) == count:
            break
        picture = row.pop("sha256")
        hidden = picture in blocked.pictures or blocked.covers(row["uid"], row["url"])
        if picture not in hits and not hidden:
            hits[picture] = Hit(len(hits) + 1, similarity, **row)
    return list(hits.values())


def _nearest(
    manifest: Manifest, stored: PictureEmbeddings, count: int, kept: pa.Table | None
) -> Iterator[tuple[float, dict[str, Any]]]:
    """The similarity and the columns of downloaded pairs, nearest first. They are looked up in growing rounds."""
    done, wanted = 0, max(FIRST, GROWTH * count)
    while True:
        places, similarities = stored.nearest(wanted)
        fresh = places[done:]
        rows = _rows(manifest, stored.uids(fresh), kept)
        for similarity, row in zip(similarities[done:].tolist(), rows, strict=True):
            if row is not None:
                yield similarity, row
        if len(places) < wanted:
            return
        done, wanted = len(places), wanted * GROWTH


def _rows(
    manifest: Manifest, wanted: Sequence[tuple[int, str]], kept: pa.Table | None
) -> Iterator[dict[str, Any] | None]:
    """The columns of each pair (shard, uid); None for one that is not in the manifest, failed, or is not `kept`.

    Row groups without these shards are not read.
    """
    if not wanted:
        return
    shards = ", ".join(str(each) for each in sorted({shard for shard, _ in wanted}))
    with manifest.storage.scratch() as scratch, duck.connect(scratch) as con:
        con.from_arrow(pa.table({"uid": [uid for _, uid in wanted]})).create("wanted")
        chosen = f"FROM {duck.parquet(manifest.row_files())} SEMI JOIN wanted USING (uid)"
        if kept is not None:
            con.from_arrow(kept).create("kept")
            chosen += " SEMI JOIN kept USING (uid)"
        table = con.sql(
            f"SELECT {', '.join(_COLUMNS)} {chosen} WHERE status = 'ok' AND shard IN ({shards})"
        ).to_arrow_table()
    found = {(row["shard"], row["uid"]): row for row in table.to_pylist()}
    yield from map(found.get, wanted)
