"""The block list of a source: pairs and pictures that were taken down and must not be downloaded again.

Each request is one object, `forgotten/<n>.json`, which is never changed. It holds digests of URLs and pictures only.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.url_digests import matching_digests
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from pipeline.sources.source import Source

FOLDER = "forgotten"

UNMATCHED = "unmatched"


@dataclass(frozen=True)
class Blocked:
    """uids, `url_digests`, and sha256 digests of pictures as they were fetched, all in hex."""

    uids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()

    def covers(self, uid: str, url: str) -> bool:
        """Whether a pair is blocked by its uid or URL. Its picture is not known yet."""
        return uid in self.uids or (bool(self.urls) and not self.urls.isdisjoint(matching_digests(url)))

    def covers_rows(self, pairs: pa.Table) -> pa.BooleanArray:
        """Which rows of a table with uid and url are blocked. Their pictures are not known yet."""
        if not self:
            return pa.array([False] * len(pairs))
        rows = zip(pairs["uid"].to_pylist(), pairs["url"].to_pylist(), strict=True)
        return pa.array([self.covers(uid, url) for uid, url in rows], pa.bool_())

    def __or__(self, other: "Blocked") -> "Blocked":
        return Blocked(self.uids | other.uids, self.urls | other.urls, self.pictures | other.pictures)

    def __sub__(self, other: "Blocked") -> "Blocked":
        return Blocked(self.uids - other.uids, self.urls - other.urls, self.pictures - other.pictures)

    def __len__(self) -> int:
        return len(self.uids) + len(self.urls) + len(self.pictures)

    def commit(self, storage: Storage, unmatched: Collection[str] = ()) -> None:
        """Add this to the list of the source, unless it is empty. The caller holds the lock.

        `unmatched` are those of its digests that a request named and that fit no pair yet.
        """
        if not self:
            return
        value = {name: sorted(digests) for name, digests in asdict(self).items()}
        if unmatched:
            value[UNMATCHED] = sorted(unmatched)
        storage.put_if_absent(f"{FOLDER}/{len(storage.keys(FOLDER)):08d}.json", canonical_json(value))


def read(storage: Storage) -> Blocked:
    """The whole block list of a source."""
    blocked = Blocked()
    for key in storage.keys(FOLDER):
        blocked |= _read(storage, key)
    return blocked


def settled(storage: Storage) -> Blocked:
    """The block list without the names that have fitted no pair so far."""
    blocked = Blocked()
    for key in storage.keys(FOLDER):
        unmatched = frozenset(json.loads(storage.fetch(key).read_bytes()).get(UNMATCHED, ()))
        blocked |= _read(storage, key) - Blocked(unmatched, unmatched, unmatched)
    return blocked


def in_force(source: "Source", storage: Storage) -> Blocked:
    """The block list that applies to a source: its own, and those of the members of a union."""
    from pipeline.sources.loading import members

    blocked = read(storage)
    for member, _ in members(source):
        blocked |= read(storage.beside(member.name))
    return blocked


def pending(storage: Storage) -> Blocked:
    """The requests that are not complete, because a run was interrupted."""
    blocked = Blocked()
    for key in storage.keys(FOLDER):
        if not storage.done(_mark(key)):
            blocked |= _read(storage, key)
    return blocked


def mark_done(storage: Storage) -> None:
    """Record that all requests are complete."""
    for key in storage.keys(FOLDER):
        storage.put_if_absent(_mark(key), b"{}")


def blank(table: pa.Table, gone: pa.BooleanArray, keep: Collection[str], values: Mapping[str, str]) -> pa.Table:
    """The table whose `gone` rows keep the columns `keep` and get these `values`. Their other columns become NULL."""
    columns = [
        table[field.name]
        if field.name in keep
        else pc.if_else(gone, pa.scalar(values.get(field.name), field.type), table[field.name])
        for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _read(storage: Storage, key: str) -> Blocked:
    digests: dict[str, Collection[str]] = json.loads(storage.fetch(key).read_bytes())
    return Blocked(*(frozenset(digests[name]) for name in ("uids", "urls", "pictures")))


def _mark(key: str) -> str:
    return f"{FOLDER}/done/{Path(key).name}"
