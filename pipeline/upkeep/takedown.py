"""Taking pairs down: what somebody asks to be removed leaves storage, and does not come back.

The request is committed to the block list before anything is touched (`pipeline.ledger.blocklist`). Then the pairs lose
their URL, caption and extra columns in the ledger, their picture in the shards' tars, their scores and embeddings, and
what was made of their shards for training. Their rows stay, as failed ones of the cause `forgotten`, so that every row
of the source is still accounted for. A manifest without them is published, and at last the parts that older manifests
are made of are removed: whoever opens one of these is told. Each step may be done twice; killed anywhere, the next run
of any command that writes goes on.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SourceError, WinnowError
from pipeline.failure import FORGOTTEN, TAKEN_DOWN
from pipeline.ledger import blocklist, ingest
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import committed, replace_shard
from pipeline.manifest import database, publish
from pipeline.manifest.manifest import Manifest, log
from pipeline.redact import hidden
from pipeline.review import calibrate
from pipeline.review.labels import Labels
from pipeline.scoring import pool
from pipeline.sources.source import Source
from pipeline.store import duck, tarfiles
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage
from pipeline.upkeep.backfill import stored


@dataclass(frozen=True)
class Names:
    """What a request names: uids, URLs as the source's list has them, sha256 of pictures as they were fetched."""

    uids: frozenset[str]
    urls: frozenset[str]
    pictures: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """One a line; blank lines mean nothing. Raises SourceError for a line that is none of the three."""
        found: dict[str, set[str]] = {"uids": set(), "urls": set(), "pictures": set()}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            kind = _kind(line)
            if line and kind is None:
                raise SourceError(f"{path.name}, line {number}: this is no uid (32 hex digits), sha256 (64) or URL")
            if kind:
                found[kind].add(line if kind == "urls" else line.lower())
        if not any(found.values()):
            raise SourceError(f"{path.name} names nothing")
        return cls(*(frozenset(found[each.name]) for each in fields(cls)))

    def __len__(self) -> int:
        return len(self.uids) + len(self.urls) + len(self.pictures)


def _kind(line: str) -> str | None:
    """The field of `Names` that a line belongs to."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", line):
        return "uids"
    if re.fullmatch(r"[0-9a-fA-F]{64}", line):
        return "pictures"
    return "urls" if "://" in line else None


@dataclass
class Takedown:
    """What a request meant in one source, and how much left storage because of it.

    `pairs` are those that it names, by their URL or picture as well; names that are `unknown` fit none, and are blocked
    all the same. Then rows of the ledger, pictures, rows of scores and of embeddings, and whole objects: parts of older
    manifests, features, pages. `manifest` is the newest now, `new` if this made it; `fault` says why none could be
    published.
    """

    pairs: int = 0
    unknown: int = 0
    rows: int = 0
    pictures: int = 0
    scores: int = 0
    embeddings: int = 0
    objects: int = 0
    manifest: str | None = None
    new: bool = False
    fault: str | None = None


def look(storage: Storage, names: Names) -> Takedown:
    """What the request would mean. Nothing is changed."""
    found = Takedown()
    for each in (storage, calibrate.room(storage)):
        _meant(each, names, found)
    return found


def forget(storage: Storage, names: Names, source: Source | None) -> Takedown:
    """Take down what is named, and publish what is left under the recipe of the newest manifest, if there is one.

    Without the source's file, or where its settings changed meanwhile, nothing can be published; what was named is gone
    all the same. The labelled sample of `winnow calibrate` is a source of its own, and is made anew when it is needed.
    """
    done = Takedown()
    with calibrate.room(storage).lock():
        _meant(calibrate.room(storage), names, done).commit(calibrate.room(storage))
        with settled(calibrate.room(storage), done):
            pass
    done.pairs = done.unknown = 0
    with storage.lock():
        _meant(storage, names, done).commit(storage)
        with settled(storage, done):
            try:
                if log(storage):
                    done.manifest, done.new = _published(storage, source)
            except WinnowError as error:
                done.fault = f"all that was named is gone, but nothing could be published: {error}"
    return done


@contextmanager
def settled(storage: Storage, done: Takedown | None = None) -> Iterator[None]:
    """Let everything go that is on the block list and may still be there.

    From what manifests are made of before the block, and from older ones after it, when there is a newer one. Whoever
    writes holds the lock, and goes through here: a takedown that was killed is finished by whatever comes next.
    """
    done = done or Takedown()
    uids = blocklist.pending(storage).uids
    if uids:
        _purge(storage, uids, done)
    try:
        yield
    finally:
        if uids:
            _sweep(storage, uids, done)
    blocklist.settle(storage)


def _meant(storage: Storage, names: Names, told: Takedown) -> Blocked:
    """What the block list lacks. With a pair go all that share its URL or its picture, whatever their captions."""
    before = blocklist.read(storage)
    named = Blocked(names.uids, frozenset(map(blocklist.digest, names.urls)), names.pictures)
    listed = [storage.fetch(shard.key) for shard in committed(storage)]
    there = _spread(storage, listed, named | before) if listed else Blocked()
    told.pairs += len(there.uids - before.uids)
    told.unknown += len(named - there - before)
    return (named | there) - before


def _spread(storage: Storage, listed: Sequence[Path], asked: Blocked) -> Blocked:
    """All pairs that are asked for, their URLs and their pictures, until there is nothing more that they share.

    So are pairs whose new URLs showed a blocked picture: what they were fetched for is known now.
    """
    fetched = [storage.fetch(key) for key in storage.find("shards-*/*.parquet")]
    pictures = duck.parquet(fetched) if fetched else "(SELECT NULL AS uid, NULL AS sha256, NULL AS cause)"
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        for name, digests in asdict(asked).items():
            con.from_arrow(pa.table({"name": pa.array(sorted(digests), pa.string())})).create(name)
        con.execute(
            "CREATE TABLE known AS SELECT DISTINCT uid, nullif(url, '') AS url, sha256::VARCHAR AS sha256, cause FROM "
            f"{duck.parquet(listed, 'union_by_name')} AS l LEFT JOIN {pictures} AS f USING (uid)"
        )
        con.execute(
            "CREATE TABLE gone AS SELECT DISTINCT uid FROM known "
            "WHERE uid IN (FROM uids) OR sha256(url) IN (FROM urls) OR sha256 IN (FROM pictures) "
            f"OR cause = {duck.literal(FORGOTTEN)}"
        )
        while con.execute(
            "INSERT INTO gone SELECT DISTINCT uid FROM known WHERE uid NOT IN (FROM gone) AND ("
            "url IN (SELECT url FROM known SEMI JOIN gone USING (uid) WHERE url IS NOT NULL) OR "
            "sha256 IN (SELECT sha256 FROM known SEMI JOIN gone USING (uid) WHERE sha256 IS NOT NULL))"
        ).fetchall() != [(0,)]:
            pass
        columns = ("uid", "sha256(url)", "sha256")
        found = [
            con.execute(f"SELECT DISTINCT {each} FROM known SEMI JOIN gone USING (uid)").fetchall() for each in columns
        ]
    return Blocked(*(frozenset(value for (value,) in rows if value) for rows in found))


def _published(storage: Storage, source: Source | None) -> tuple[str, bool]:
    """The id of the newest manifest, which has nothing of what is gone, and whether it is new."""
    newest = Manifest.open(storage)
    if not blocklist.pending(storage).uids:
        return newest.id, False
    if source is None:
        raise SourceError(
            f"no source file is called {storage.root.name!r}; name it by its path, or run `winnow curate`"
        )
    left = stored(source, newest)
    pool.run(left.plan, storage, left.ledger, left.quarantined)
    published = publish.publish(left.plan, storage, left.ledger, left.quarantined, newest.recipe)
    return published.id, published.new


def _purge(storage: Storage, uids: frozenset[str], done: Takedown) -> None:
    """Take the pairs out of all that a manifest is made from."""
    labels = Labels(storage)
    labelled = {(row["url"], row["caption"]) for row in labels.table.to_pylist()}
    for shard in committed(storage):
        table = pq.read_table(storage.fetch(shard.key), partitioning=None)
        gone = _named(table, uids)
        if gone.true_count:
            for row in table.filter(gone).select(["url", "caption"]).to_pylist() if labelled else ():
                if (hidden(row["url"]), row["caption"]) in labelled:
                    labels.put(hidden(row["url"]), row["caption"], None)
            _purge_results(storage, shard.number, gone, done)
            blank = ingest.wordless(table, gone)
            if not blank.equals(table):
                replace_shard(storage, shard, blank)
                done.rows += gone.true_count


def _purge_results(storage: Storage, shard: int, gone: pa.BooleanArray, done: Takedown) -> None:
    """Whatever settings they were made with. Each is looked at first: this may be the second time."""
    number = f"{shard:05d}"
    for key in storage.find(f"shards-*/{number}.parquet"):
        _blanked(storage, key, gone, {"status": "failed", "cause": FORGOTTEN, "error": TAKEN_DOWN})
        done.pictures += _only_members(storage, key.removesuffix("parquet") + "tar", key)
    for key in storage.find(f"scores/*/{number}.parquet"):
        done.scores += _blanked(storage, key, gone, {})
    for key in storage.find(f"embeddings/*/{number}.npy"):
        done.embeddings += _without_numbers(storage, key, gone.to_numpy(zero_copy_only=False))
    held_out = f"features/*/{'[0-9a-f]' * 16}.npz"  # of pictures of any shard
    for pattern in (f"features/*/{number}-*", f"versions-*/{number}-*", held_out):
        for key in storage.find(pattern):
            _remove(storage, key, done)


def _named(table: pa.Table, uids: frozenset[str]) -> pa.BooleanArray:
    return pc.is_in(table["uid"].combine_chunks(), pa.array(sorted(uids), pa.string()))


def _blanked(storage: Storage, key: str, gone: pa.BooleanArray, told: Mapping[str, str]) -> int:
    """Let an object of a shard stand without the rows that are gone; gives how many had something to lose."""
    table = pq.read_table(storage.fetch(key), partitioning=None)
    blank = blocklist.blank(table, gone, ("uid",), told)
    if blank.equals(table):
        return 0
    with storage.scratch() as scratch:
        pq.write_table(blank, scratch / "rows.parquet", row_group_size=ROW_GROUP, compression="zstd")
        storage.put_file(key, scratch / "rows.parquet")
    return int(gone.true_count)


def _only_members(storage: Storage, tar: str, rows: str) -> int:
    """Let a tar stand with the pictures that its rows name, and no others; gives how many went."""
    if not storage.done(tar):
        return 0
    path = storage.fetch(tar)
    named = set(pq.read_table(storage.fetch(rows), columns=["member"])["member"].to_pylist())
    lost = tarfiles.index(path).keys() - named
    if lost:
        with storage.scratch() as scratch:
            tarfiles.write(scratch / "tar", ((name, data) for name, data in tarfiles.read(path) if name not in lost))
            storage.put_file(tar, scratch / "tar")
    return len(lost)


def _without_numbers(storage: Storage, key: str, gone: npt.NDArray[np.bool_]) -> int:
    """Let embeddings stand with NaN in the rows that are gone; gives how many had one."""
    stored: npt.NDArray[np.float16] = np.load(storage.fetch(key), allow_pickle=False)
    had = int(np.count_nonzero(~np.isnan(stored[gone]).all(axis=(1, 2))))
    if had:
        stored[gone] = np.nan
        with storage.scratch() as scratch:
            np.save(scratch / "rows.npy", stored)
            storage.put_file(key, scratch / "rows.npy")
    return had


def _sweep(storage: Storage, uids: frozenset[str], done: Takedown) -> None:
    """Remove what older manifests are made of, the ledger as it was, scores of the pool as it was, and pages."""
    standing_pairs = {shard.key for shard in committed(storage)}
    for key in storage.find("pairs/[0-9]*.parquet"):
        if key not in standing_pairs:
            _remove(storage, key, done)
    for key in storage.find("rows/*.parquet"):
        rows = pq.read_table(storage.fetch(key), columns=["uid", "url", "caption"], partitioning=None)
        words = rows.filter(_named(rows, uids)).drop_columns(["uid"])
        if any(pc.any(pc.not_equal(column, "")).as_py() for column in words.columns):
            _remove(storage, key, done)
    newest = Manifest.open(storage) if log(storage) else None
    standing = newest is not None and newest.complete
    in_use = (
        {f"{name}-{key}" for name, key in newest.document["stages"]["scores"].items()} if newest and standing else set()
    )
    for key in storage.find("scores/*/key.json"):
        folder = Path(key).parent.name
        if "pool" in json.loads(storage.fetch(key).read_bytes()) and folder not in in_use:
            for each in storage.keys(f"scores/{folder}"):
                _remove(storage, each, done)
    for key in (*storage.find("*.html"), database.KEY):
        if storage.done(key):
            _remove(storage, key, done)
    if standing:
        database.refresh(storage)


def _remove(storage: Storage, key: str, done: Takedown) -> None:
    storage.remove(key)
    done.objects += 1
