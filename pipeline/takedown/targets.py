"""Which pairs, URLs and pictures of a source a takedown request means."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipeline.failure import FORGOTTEN
from pipeline.ledger import blocklist
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import committed, pairs_files
from pipeline.ledger.url_digests import blocking_digests, matching_digests, own_digests
from pipeline.store import duck
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request
from pipeline.web.url import CANONICAL, canonical


@dataclass(frozen=True)
class Targets:
    """What the block list lacks so far; how many pairs that adds; and the names of the request that fit no pair.

    A name fits if it means a pair of the ledger, or meant one that is gone. `unmatched_digests` are the unmatched names
    as the block list holds them.
    """

    blocked: Blocked
    pairs: int
    unmatched: tuple[str, ...]
    unmatched_digests: frozenset[str]


def targets(storage: Storage, request: Request) -> Targets:
    """What the request means in this source. A pair takes along all pairs that share its URL or its picture."""
    before, settled = blocklist.read(storage), blocklist.settled(storage)
    digests = {url: blocking_digests(url) for url in request.urls}
    named = Blocked(request.uids, frozenset().union(*digests.values()), request.pictures)
    pairs = pairs_files(storage, committed(storage))
    found, matched = _closure(storage, pairs, named | before) if pairs else (Blocked(), frozenset[str]())
    unmatched = [
        *sorted(request.uids - found.uids - settled.uids),
        *sorted(request.pictures - found.pictures - settled.pictures),
        *sorted(
            url
            for url in request.urls
            if matched.isdisjoint(digests[url]) and settled.urls.isdisjoint(own_digests(url))
        ),
    ]
    return Targets(
        (named - before) | (found - settled),
        len(found.uids - before.uids),
        tuple(unmatched),
        frozenset().union(*(digests.get(name, {name}) for name in unmatched)),
    )


def _closure(storage: Storage, pairs: Sequence[Path], names: Blocked) -> tuple[Blocked, frozenset[str]]:
    """All pairs with these names, their URLs and their pictures, and so on until nothing more is shared.

    A pair that failed as forgotten is one of them: its new URL showed a blocked picture. Also gives all digests that
    the URLs of these pairs match.
    """
    downloads = storage.fetch_all(storage.find("shards-*/*.parquet"))
    pictures = duck.parquet(downloads) if downloads else "(SELECT NULL AS uid, NULL AS sha256, NULL AS cause)"
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        for name, digests in asdict(names).items():
            con.from_arrow(pa.table({"name": pa.array(sorted(digests), pa.string())})).create(name)
        con.execute(f"CREATE TABLE listed AS SELECT DISTINCT uid, url FROM {duck.parquet(pairs, 'union_by_name')}")
        _spell(con, names)
        con.execute(
            "CREATE TABLE known AS SELECT DISTINCT uid, nullif(l.url, '') AS url, nullif(coalesce(form, l.url), '') "
            "AS form, coalesce(named, sha256(l.url) IN (FROM urls)) AS named, sha256::VARCHAR AS sha256, cause "
            f"FROM listed AS l LEFT JOIN spelled AS s ON l.url = s.url LEFT JOIN {pictures} AS f USING (uid)"
        )
        con.execute(
            "CREATE TABLE gone AS SELECT DISTINCT uid FROM known "
            "WHERE uid IN (FROM uids) OR named OR sha256 IN (FROM pictures) "
            f"OR cause = {duck.literal(FORGOTTEN)}"
        )
        while _add_sharers(con):
            pass
        uids, urls, digests = (
            [
                value
                for (value,) in con.execute(f"SELECT DISTINCT {name} FROM known SEMI JOIN gone USING (uid)").fetchall()
            ]
            for name in ("uid", "url", "sha256")
        )
    urls = [url for url in urls if url]
    found = Blocked(frozenset(uids), frozenset().union(*map(blocking_digests, urls)), frozenset(filter(None, digests)))
    return found, frozenset().union(*map(matching_digests, urls))


def _spell(con: duckdb.DuckDBPyConnection, names: Blocked) -> None:
    """Create the table `spelled`: canonical form, and whether it is named, of each URL that may have another form."""
    con.execute("CREATE TABLE spelled (url VARCHAR, form VARCHAR, named BOOLEAN)")
    for urls in _unusual_urls(con):
        forms = pa.array(map(canonical, urls), pa.string())
        named = pa.array([not names.urls.isdisjoint(matching_digests(url)) for url in urls])
        con.from_arrow(pa.table({"url": pa.array(urls, pa.string()), "form": forms, "named": named})).insert_into(
            "spelled"
        )


def _unusual_urls(con: duckdb.DuckDBPyConnection) -> Iterator[list[str]]:
    """The distinct URLs of `listed` that may have another form, in batches."""
    found = con.sql(
        f"SELECT DISTINCT url FROM listed WHERE url <> '' AND NOT "
        f"(regexp_full_match(url, {duck.literal(CANONICAL)}) AND NOT contains(url, '='))"
    ).to_arrow_table()
    for batch in found.to_batches(ROW_GROUP):
        yield batch["url"].to_pylist()


def _add_sharers(con: duckdb.DuckDBPyConnection) -> int:
    """Add the pairs to `gone` that share a URL or a picture with one that is there; gives how many."""
    ((added,),) = con.execute(
        "INSERT INTO gone SELECT DISTINCT uid FROM known WHERE uid NOT IN (FROM gone) AND ("
        "form IN (SELECT form FROM known SEMI JOIN gone USING (uid) WHERE form IS NOT NULL) OR "
        "sha256 IN (SELECT sha256 FROM known SEMI JOIN gone USING (uid) WHERE sha256 IS NOT NULL))"
    ).fetchall()
    return int(added)
