"""Which pairs, URLs and pictures of a source a takedown request means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.failure import FORGOTTEN
from pipeline.ledger import blocklist
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import committed, pairs_files
from pipeline.store import duck
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request


@dataclass(frozen=True)
class Targets:
    """What the block list lacks so far; how many pairs that adds; and how many names of the request fit no pair."""

    blocked: Blocked
    pairs: int
    unknown: int


def targets(storage: Storage, request: Request) -> Targets:
    """What the request means in this source. A pair takes along all pairs that share its URL or its picture."""
    before = blocklist.read(storage)
    named = Blocked(request.uids, frozenset(map(blocklist.digest, request.urls)), request.pictures)
    pairs = pairs_files(storage, committed(storage))
    found = _closure(storage, pairs, named | before) if pairs else Blocked()
    return Targets((named | found) - before, len(found.uids - before.uids), len(named - found - before))


def _closure(storage: Storage, pairs: Sequence[Path], names: Blocked) -> Blocked:
    """All pairs with these names, their URLs and their pictures, and so on until nothing more is shared.

    A pair that failed as forgotten is one of them: its new URL showed a blocked picture.
    """
    downloads = [storage.fetch(key) for key in storage.find("shards-*/*.parquet")]
    pictures = duck.parquet(downloads) if downloads else "(SELECT NULL AS uid, NULL AS sha256, NULL AS cause)"
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        for name, digests in asdict(names).items():
            con.from_arrow(pa.table({"name": pa.array(sorted(digests), pa.string())})).create(name)
        con.execute(
            "CREATE TABLE known AS SELECT DISTINCT uid, nullif(url, '') AS url, sha256::VARCHAR AS sha256, cause FROM "
            f"{duck.parquet(pairs, 'union_by_name')} AS l LEFT JOIN {pictures} AS f USING (uid)"
        )
        con.execute(
            "CREATE TABLE gone AS SELECT DISTINCT uid FROM known "
            "WHERE uid IN (FROM uids) OR sha256(url) IN (FROM urls) OR sha256 IN (FROM pictures) "
            f"OR cause = {duck.literal(FORGOTTEN)}"
        )
        while _add_sharers(con):
            pass
        uids, urls, digests = (
            con.execute(f"SELECT DISTINCT {value} FROM known SEMI JOIN gone USING (uid)").fetchall()
            for value in ("uid", "sha256(url)", "sha256")
        )
    return Blocked(*(frozenset(value for (value,) in rows if value) for rows in (uids, urls, digests)))


def _add_sharers(con: duckdb.DuckDBPyConnection) -> int:
    """Add the pairs to `gone` that share a URL or a picture with one that is there; gives how many."""
    ((added,),) = con.execute(
        "INSERT INTO gone SELECT DISTINCT uid FROM known WHERE uid NOT IN (FROM gone) AND ("
        "url IN (SELECT url FROM known SEMI JOIN gone USING (uid) WHERE url IS NOT NULL) OR "
        "sha256 IN (SELECT sha256 FROM known SEMI JOIN gone USING (uid) WHERE sha256 IS NOT NULL))"
    ).fetchall()
    return int(added)
