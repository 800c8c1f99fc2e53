"""What the members of a union have done already: pictures and scores of its pairs, where the keys of the stages agree.

A shard of the union whose pairs all have results in their members' folders gets these, row by row, and nothing of it is
fetched; scores that no member has under the union's key are computed from the pictures taken over. A shard of which
only a part is there is downloaded whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import blocklist
from pipeline.ledger.ledger import SHARD_NUMBER, Shard, committed
from pipeline.schema import ORIGIN
from pipeline.scoring.plan import Plan
from pipeline.sources.loading import members
from pipeline.store import duck, tarfiles
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

PICTURES = ""
"""Among the names of scorers: the download."""

Whose: TypeAlias = tuple[str, int]
"""A member, and the number of one of its shards."""


@dataclass(frozen=True)
class Places:
    """Where the rows of one of the union's shards lie: row i is row `place[i]` of the shard `whose[i]`."""

    url_numbers: Sequence[int]
    whose: Sequence[Whose]
    place: npt.NDArray[np.int64]

    @property
    def sources(self) -> Sequence[Whose]:
        """The members' shards that have a row of it, each once."""
        return list(dict.fromkeys(self.whose))

    def among(self, lengths: Sequence[int]) -> npt.NDArray[np.int64]:
        """By row its position if the `sources`, which have so many rows each, stand one after the other."""
        starts = dict(zip(self.sources, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
        return self.place + np.array([starts[whose] for whose in self.whose], np.int64)


def reuse(
    plan: Plan, storage: Storage, wanted: Sequence[Shard], tell: Callable[[int, int], None] = lambda *_: None
) -> None:
    """Leave what can be taken over for these shards. Does nothing for a source that is no union.

    The members' results lie beside the union's. `tell` is told how many shards of how many were looked through. Killed
    at any moment, the next run goes on. Raises StorageError for a result of a member's that is missing or damaged.
    """
    if not plan.source.union:
        return
    taking = _Taking(plan, storage)
    fresh = [shard for shard in wanted if not shard.revised]  # a second attempt is made by the union itself
    missing = [shard for shard in fresh if not taking.complete(shard) and not taking.blocks(shard)]
    with storage.scratch() as scratch, duck.connect(scratch) as con:
        if missing and taking.locate(con, missing):
            for done, shard in enumerate(missing, start=1):
                places = _places(con, shard)
                if places is not None:
                    taking.take(shard.number, places)
                tell(done, len(missing))


class _Taking:
    """The union's stages and its members' folders."""

    def __init__(self, plan: Plan, storage: Storage) -> None:
        self._plan, self._storage, source = plan, storage, plan.source
        self._members = {member.name: Storage(storage.root.parent / member.name) for member, _ in members(source)}
        self._blocked = blocklist.in_force(source, storage)
        self._made: dict[str, list[tuple[Stage, str]]] = {PICTURES: [(plan.shards, ".tar"), (plan.shards, ".parquet")]}
        for name, stage in plan.scores.items():
            embeddings = [(plan.embeddings[name], ".npy")] if name in plan.embeddings else []
            self._made[name] = [*embeddings, (stage, ".parquet")]

    def complete(self, shard: Shard) -> bool:
        """Whether the union has all results of the shard."""
        return all(self._done(self._storage, what, shard.number) for what in self._made)

    def blocks(self, shard: Shard) -> bool:
        """Whether a pair of the shard is on the union's block list: then the download decides."""
        rows = (
            pq.read_table(self._storage.fetch(shard.key), columns=["uid", "url"]).to_pylist() if self._blocked else ()
        )
        return any(self._blocked.covers(row["uid"], row["url"]) for row in rows)

    def locate(self, con: duckdb.DuckDBPyConnection, wanted: Sequence[Shard]) -> bool:
        """Leave the table `places`, a row for each pair of the shards; False where no member has any shard."""
        theirs = [
            f"SELECT {duck.literal(name)} AS {ORIGIN}, uid, number, row AS place FROM ({_rows(store, known, ('uid',))})"
            for name, store in self._members.items()
            if (known := committed(store))
        ]
        if theirs:
            ours = _rows(self._storage, wanted, ("uid", "url_number", ORIGIN))
            con.execute(
                f"CREATE TABLE places AS SELECT ours.*, theirs.* EXCLUDE ({ORIGIN}, uid) "
                f"FROM ({ours}) AS ours LEFT JOIN (SELECT {ORIGIN}, uid, "
                f"max(number) AS of, arg_max(place, number) AS place FROM ({' UNION ALL '.join(theirs)}) "
                f"GROUP BY ALL) AS theirs USING ({ORIGIN}, uid)"
            )
        return bool(theirs)

    def take(self, number: int, places: Places) -> None:
        """Put what all these members have for the union's shard of that number."""
        if not self._all_have(PICTURES, places):
            return
        downloaded = self._table(PICTURES, places)
        if not self._blocked.pictures.isdisjoint(downloaded["sha256"].to_pylist()):
            return
        if not self._done(self._storage, PICTURES, number):
            if len(set(zip(places.url_numbers, downloaded["sha256"].to_pylist(), strict=True))) > len(
                set(places.url_numbers)
            ):
                return  # two members fetched one address at two times, and it showed two pictures
            self._take_pictures(number, places, downloaded)
        ours = pq.read_table(self._fetch(self._storage, PICTURES, number, ".parquet"))
        if ours["sha256"].to_pylist() != downloaded["sha256"].to_pylist():
            return  # the union fetched the pictures itself, at another time
        for name in self._made:
            if (
                not self._done(self._storage, name, number)
                and self._all_have(name, places)
                and self._alike(name, places)
            ):
                self._take_scores(name, number, places)

    def _take_pictures(self, number: int, places: Places, downloaded: pa.Table) -> None:
        rows = list(zip(places.whose, downloaded["member"].to_pylist(), places.url_numbers, strict=True))
        wanted = {(whose, member): url for whose, member, url in rows if member is not None}
        pictures = {
            wanted[whose, name]: content
            for whose in places.sources
            for name, content in tarfiles.read(self._fetch(self._members[whose[0]], PICTURES, whose[1], ".tar"))
            if (whose, name) in wanted
        }
        renamed = pa.array(
            [None if member is None else tarfiles.member_name(url) for _, member, url in rows], pa.string()
        )
        downloaded = downloaded.set_column(downloaded.schema.get_field_index("member"), "member", renamed)
        with self._storage.scratch() as scratch:
            tarfiles.write(scratch / "tar", ((tarfiles.member_name(url), pictures[url]) for url in sorted(pictures)))
            pq.write_table(downloaded, scratch / "parquet", compression="zstd")
            self._put(PICTURES, number, [scratch / "tar", scratch / "parquet"])

    def _take_scores(self, name: str, number: int, places: Places) -> None:
        with self._storage.scratch() as scratch:
            finished = [scratch / "parquet"]
            pq.write_table(self._table(name, places), scratch / "parquet", compression="zstd")
            if len(self._made[name]) > 1:
                stored = [
                    np.load(self._fetch(self._members[member], name, of, ".npy"), mmap_mode="r", allow_pickle=False)
                    for member, of in places.sources
                ]
                rows = np.concatenate(stored)[places.among([len(each) for each in stored])]
                with (scratch / "npy").open("wb") as file:
                    np.save(file, rows)
                finished = [scratch / "npy", *finished]
            self._put(name, number, finished)

    def _table(self, what: str, places: Places) -> pa.Table:
        """The members' rows, in the order of the union's."""
        stored = [
            pq.read_table(self._fetch(self._members[member], what, of, ".parquet"), partitioning=None)
            for member, of in places.sources
        ]
        return pa.concat_tables(stored).take(places.among([len(each) for each in stored])).combine_chunks()

    def _alike(self, name: str, places: Places) -> bool:
        """Whether the models of all these members said the same of golden pairs as the union's; it takes their word."""
        key = self._plan.certificate(name)
        said = [store.fetch(key).read_bytes() for store in self._stores(places) if store.done(key)]
        return all(
            self._storage.put_if_absent(key, each) or each == self._storage.fetch(key).read_bytes() for each in said
        )

    def _stores(self, places: Places) -> list[Storage]:
        return [self._members[member] for member in dict.fromkeys(member for member, _ in places.sources)]

    def _all_have(self, what: str, places: Places) -> bool:
        return all(self._done(self._members[member], what, of) for member, of in places.sources)

    def _done(self, store: Storage, what: str, number: int) -> bool:
        return all(store.done(stage.item(number, suffix)) for stage, suffix in self._made[what])

    def _fetch(self, store: Storage, what: str, number: int, suffix: str) -> Path:
        return store.fetch({ending: stage for stage, ending in self._made[what]}[suffix].item(number, suffix))

    def _put(self, what: str, number: int, finished: Sequence[Path]) -> None:
        self._made[what][-1][0].describe(self._storage)
        for (stage, suffix), local in zip(self._made[what], finished, strict=True):
            self._storage.put_file(stage.item(number, suffix), local)


def _rows(store: Storage, shards: Sequence[Shard], columns: Sequence[str]) -> str:
    """SQL for all pairs of these shards: number (of the shard), row, and these columns of the ledger."""
    files = [store.fetch(shard.key) for shard in shards]
    return (
        f"SELECT {SHARD_NUMBER} AS number, file_row_number AS row, {', '.join(columns)} "
        f"FROM {duck.parquet(files, 'filename', 'file_row_number', 'union_by_name')}"
    )


def _places(con: duckdb.DuckDBPyConnection, shard: Shard) -> Places | None:
    """Where the shard's rows lie; None if one of them was in no list that its member read."""
    sql = f"SELECT {ORIGIN}, of, place, url_number FROM places WHERE number = $number ORDER BY row"
    origin, of, place, url_numbers = con.sql(sql, params={"number": shard.number}).to_arrow_table().columns
    if of.null_count:
        return None
    return Places(url_numbers.to_pylist(), list(zip(origin.to_pylist(), of.to_pylist(), strict=True)), place.to_numpy())
