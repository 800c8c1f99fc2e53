"""The block list of a source: what somebody asked to be removed, and must not come back.

Each request is one object, `forgotten/<n>.json`, and is never changed. URLs and pictures stand there as digests alone.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

FOLDER = "forgotten"


def digest(url: str) -> str:
    """sha256 of the URL in UTF-8, in hex."""
    return hashlib.sha256(url.encode()).hexdigest()


@dataclass(frozen=True)
class Blocked:
    """uids, and sha256 digests of URLs and of pictures as they were fetched, all in hex."""

    uids: frozenset[str] = frozenset()
    urls: frozenset[str] = frozenset()
    pictures: frozenset[str] = frozenset()

    def covers(self, uid: str, url: str) -> bool:
        """Whether a pair is on the list, before its picture is known."""
        return uid in self.uids or (bool(self.urls) and digest(url) in self.urls)

    def covers_rows(self, pairs: pa.Table) -> pa.BooleanArray:
        """Which rows of a table with uid and url are on the list, before their pictures are known."""
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

    def commit(self, storage: Storage) -> None:
        """Add this, if it is anything, to the source's list. Whoever adds holds the lock."""
        if not self:
            return
        value = canonical_json({name: sorted(digests) for name, digests in asdict(self).items()})
        storage.put_if_absent(f"{FOLDER}/{len(storage.keys(FOLDER)):08d}.json", value)


def read(storage: Storage) -> Blocked:
    """All that was ever asked of a source."""
    found = Blocked()
    for key in storage.keys(FOLDER):
        found |= _read(storage, key)
    return found


def in_force(source: Source, storage: Storage) -> Blocked:
    """What a source must not fetch: what was asked of it, and of the members of a union, whose lists it reads."""
    found = read(storage)
    for member, _ in members(source):
        found |= read(Storage(storage.root.parent / member.name))
    return found


def pending(storage: Storage) -> Blocked:
    """What was asked, and may lie in storage still: a run was broken off."""
    found = Blocked()
    for key in storage.keys(FOLDER):
        if not storage.done(_mark(key)):
            found |= _read(storage, key)
    return found


def mark_done(storage: Storage) -> None:
    """Say that all of it is gone."""
    for key in storage.keys(FOLDER):
        storage.put_if_absent(_mark(key), b"{}")


def blank(table: pa.Table, gone: pa.BooleanArray, stay: Collection[str], told: Mapping[str, str]) -> pa.Table:
    """The table whose `gone` rows keep the columns that `stay`, have those that are `told`, and nothing else."""
    columns = [
        table[field.name]
        if field.name in stay
        else pc.if_else(gone, pa.scalar(told.get(field.name), field.type), table[field.name])
        for field in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _read(storage: Storage, key: str) -> Blocked:
    asked: dict[str, Collection[str]] = json.loads(storage.fetch(key).read_bytes())
    return Blocked(*(frozenset(asked[name]) for name in ("uids", "urls", "pictures")))


def _mark(key: str) -> str:
    return f"{FOLDER}/done/{Path(key).name}"
