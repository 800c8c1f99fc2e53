"""Copying pictures and scores from the members of a union, where the keys of the stages are equal.

Other sources copy from their own earlier shards: a pair of which only extra columns changed keeps its picture
and its scores, but those of scorers that read extra columns.

If the members have results for all pairs of a shard of the union, the shard gets these, row by row, and nothing of it
is fetched. Scores that no member has under the union's key are computed from the copied pictures. A shard of which the
members have only a part is downloaded whole.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import blocklist
from pipeline.ledger.ledger import Shard, committed, pairs_files
from pipeline.progress import StepProgress
from pipeline.scoring.plan import Plan
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.store import duck, tarfiles
from pipeline.store.references import is_lost
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.upkeep.member_rows import RowMap, locate, locate_earlier, row_map

DOWNLOAD = ""
"""The name of the download among the names of scorers."""


def reuse(plan: Plan, storage: Storage, wanted: Sequence[Shard], progress: StepProgress = lambda *_: None) -> None:
    """Copy what the members of a union have for these shards, or what earlier shards of another source have.

    The members' stores are beside the union's. `progress` is called with the shards that are done and their total.
    Killed at any moment, the next run continues. Raises StorageError for a missing or damaged result of a member.
    """
    copier = _Copier(plan, storage)
    fresh = [shard for shard in wanted if not shard.revised]  # a second attempt is never a copy
    missing = [shard for shard in fresh if not copier.is_complete(shard) and not copier.is_blocked(shard)]
    earlier = [] if plan.source.union else copier.earlier(missing)
    if not missing or not (plan.source.union or earlier):
        return
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        if (
            locate(con, storage, copier.members, missing)
            if plan.source.union
            else locate_earlier(con, storage, plan.source.name, earlier, missing)
        ):
            for done, shard in enumerate(missing, start=1):
                rows = row_map(con, shard)
                if rows is not None:
                    copier.copy(shard.number, rows)
                progress(done, len(missing))


def _that_read_extra(source: Source) -> set[str]:
    """The scorers whose results depend on the extra columns of a pair, and those that build on them."""
    found = {name for name, spec in source.scorers.items() if spec.reads_extra}
    for _ in range(2):  # a mix may build on a scorer that builds on another one
        found |= {name for name, spec in source.scorers.items() if found & set(spec.builds_on)}
    return found


class _Copier:
    """The stages of a union, its store, and those of its members by name."""

    def __init__(self, plan: Plan, storage: Storage) -> None:
        self._plan, self._storage, source = plan, storage, plan.source
        beside = {member.name: storage.beside(member.name) for member, _ in members(source)}
        self.members = beside or {source.name: storage}
        self._changed = set() if beside else _that_read_extra(source)
        self._blocked = blocklist.in_force(source, storage)
        self._objects: dict[str, list[tuple[Stage, str]]] = {
            DOWNLOAD: [(plan.shards, ".tar"), (plan.shards, ".parquet")]
        }
        for name, stage in plan.scores.items():
            embeddings = [(plan.embeddings[name], ".npy")] if name in plan.embeddings else []
            self._objects[name] = [*embeddings, (stage, ".parquet")]

    def is_complete(self, shard: Shard) -> bool:
        """Whether the union has all results of the shard."""
        return all(self._has(self._storage, name, shard.number) for name in self._objects)

    def earlier(self, missing: Sequence[Shard]) -> list[Shard]:
        """The other shards of the source that were downloaded."""
        others = (shard for shard in committed(self._storage) if shard not in missing)
        return [shard for shard in others if self._has(self._storage, DOWNLOAD, shard.number)]

    def is_blocked(self, shard: Shard) -> bool:
        """Whether a pair of the shard is on the union's block list, so that the shard is downloaded."""
        if not self._blocked:
            return False
        (file,) = pairs_files(self._storage, [shard])
        return bool(self._blocked.covers_rows(pq.read_table(file, columns=["uid", "url"])).true_count)

    def copy(self, number: int, rows: RowMap) -> None:
        """Store what the members have for the union's shard of that number."""
        if not self._all_have(DOWNLOAD, rows):
            return
        downloads = self._table(DOWNLOAD, rows)
        digests = downloads["sha256"].to_pylist()
        if not self._blocked.pictures.isdisjoint(digests):
            return
        if not self._has(self._storage, DOWNLOAD, number):
            pictures = set(zip(rows.url_numbers, digests, strict=True))
            if len(pictures) > len(set(rows.url_numbers)):
                return  # two members fetched one URL at different times, and it showed two pictures
            self._copy_pictures(number, rows, downloads)
            if not self._has(self._storage, DOWNLOAD, number):
                return
        ours = pq.read_table(self._fetch(self._storage, DOWNLOAD, number, ".parquet"))
        if ours["sha256"].to_pylist() != digests:
            return  # the union fetched the pictures itself, at another time
        for name in self._objects:
            missing = not self._has(self._storage, name, number)
            if (
                missing
                and name not in self._changed
                and self._all_have(name, rows)
                and self._same_certificates(name, rows)
            ):
                self._copy_scores(name, number, rows)

    def _copy_pictures(self, number: int, rows: RowMap, downloads: pa.Table) -> None:
        members = list(zip(rows.shards, downloads["member"].to_pylist(), rows.url_numbers, strict=True))
        wanted = {(shard, member): url for shard, member, url in members if member is not None}
        pictures = {
            wanted[shard, name]: stored
            for shard in rows.distinct_shards
            for name, stored in tarfiles.read_stored(
                self._fetch(self.members[shard.member], DOWNLOAD, shard.shard, ".tar")
            )
            if (shard, name) in wanted
        }
        if any(is_lost(stored) for stored in pictures.values()):
            return  # files were moved since: they are read where they are now
        names = [None if member is None else tarfiles.member_name(url) for _, member, url in members]
        place = downloads.schema.get_field_index("member")
        downloads = downloads.set_column(place, "member", pa.array(names, pa.string()))
        with self._storage.scratch() as scratch:
            tarfiles.write(scratch / "tar", ((tarfiles.member_name(url), pictures[url]) for url in sorted(pictures)))
            pq.write_table(downloads, scratch / "parquet", compression="zstd")
            self._put(DOWNLOAD, number, [scratch / "tar", scratch / "parquet"])

    def _copy_scores(self, name: str, number: int, rows: RowMap) -> None:
        with self._storage.scratch() as scratch:
            files = [scratch / "parquet"]
            pq.write_table(self._table(name, rows), scratch / "parquet", compression="zstd")
            if len(self._objects[name]) > 1:
                stored = [
                    np.load(self._fetch(self.members[member], name, of, ".npy"), mmap_mode="r", allow_pickle=False)
                    for member, of in rows.distinct_shards
                ]
                embeddings = np.concatenate(stored)[rows.concatenated([len(each) for each in stored])]
                with (scratch / "npy").open("wb") as file:
                    np.save(file, embeddings)
                files = [scratch / "npy", *files]
            self._put(name, number, files)

    def _table(self, name: str, rows: RowMap) -> pa.Table:
        """The members' rows, in the order of the union's shard."""
        stored = [
            pq.read_table(self._fetch(self.members[member], name, of, ".parquet"), partitioning=None)
            for member, of in rows.distinct_shards
        ]
        return pa.concat_tables(stored).take(rows.concatenated([len(each) for each in stored])).combine_chunks()

    def _same_certificates(self, name: str, rows: RowMap) -> bool:
        """Whether these members' certificates (golden scores) are the union's, which copies a missing one."""
        key = self._plan.certificate(name)
        storages = [self.members[member] for member in dict.fromkeys(shard.member for shard in rows.distinct_shards)]
        certificates = [storage.fetch(key).read_bytes() for storage in storages if storage.done(key)]
        return all(
            self._storage.put_if_absent(key, each) or each == self._storage.fetch(key).read_bytes()
            for each in certificates
        )

    def _all_have(self, name: str, rows: RowMap) -> bool:
        return all(self._has(self.members[member], name, of) for member, of in rows.distinct_shards)

    def _has(self, storage: Storage, name: str, number: int) -> bool:
        return all(storage.done(stage.item(number, suffix)) for stage, suffix in self._objects[name])

    def _fetch(self, storage: Storage, name: str, number: int, suffix: str) -> Path:
        stages = {ending: stage for stage, ending in self._objects[name]}
        return storage.fetch(stages[suffix].item(number, suffix))

    def _put(self, name: str, number: int, files: Sequence[Path]) -> None:
        last, _ = self._objects[name][-1]
        last.describe(self._storage)
        for (stage, suffix), local in zip(self._objects[name], files, strict=True):
            self._storage.put_file(stage.item(number, suffix), local)
