"""Where the members of a union hold the rows of its shards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt

from pipeline.ledger.ledger import SHARD_NUMBER, Shard, committed, pairs_files
from pipeline.schema import ORIGIN
from pipeline.store import duck
from pipeline.store.storage import Storage


class MemberShard(NamedTuple):
    """One shard of one member."""

    member: str
    shard: int


@dataclass(frozen=True)
class RowMap:
    """The rows of one shard of the union: row i is row `positions[i]` of the member's shard `shards[i]`.

    `url_numbers` are those of the union's shard.
    """

    url_numbers: Sequence[int]
    shards: Sequence[MemberShard]
    positions: npt.NDArray[np.int64]

    @property
    def distinct_shards(self) -> Sequence[MemberShard]:
        """The members' shards with at least one row, each once."""
        return list(dict.fromkeys(self.shards))

    def concatenated(self, lengths: Sequence[int]) -> npt.NDArray[np.int64]:
        """The position of each row in the concatenation of the `distinct_shards`, which have these lengths."""
        starts = dict(zip(self.distinct_shards, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
        return self.positions + np.array([starts[shard] for shard in self.shards], np.int64)


def locate(
    con: duckdb.DuckDBPyConnection, union: Storage, members: Mapping[str, Storage], wanted: Sequence[Shard]
) -> bool:
    """Create the table `places`, a row for each pair of the wanted shards. False if no member has any shard."""
    theirs = []
    for name, storage in members.items():
        shards = committed(storage)
        if shards:
            rows = _rows(storage, shards, ("uid",))
            theirs.append(f"SELECT {duck.literal(name)} AS {ORIGIN}, uid, number, row AS place FROM ({rows})")
    if not theirs:
        return False
    ours = _rows(union, wanted, ("uid", "url_number", ORIGIN))
    con.execute(
        f"CREATE TABLE places AS SELECT ours.*, theirs.* EXCLUDE ({ORIGIN}, uid) "
        f"FROM ({ours}) AS ours LEFT JOIN (SELECT {ORIGIN}, uid, "
        f"max(number) AS of, arg_max(place, number) AS place FROM ({' UNION ALL '.join(theirs)}) "
        f"GROUP BY ALL) AS theirs USING ({ORIGIN}, uid)"
    )
    return True


def locate_earlier(
    con: duckdb.DuckDBPyConnection, storage: Storage, name: str, earlier: Sequence[Shard], wanted: Sequence[Shard]
) -> bool:
    """As `locate`, for a source's own earlier shards. `name` stands for the member. False if no pair is in them."""
    ours = _rows(storage, wanted, ("uid", "url_number"))
    con.execute(
        f"CREATE TABLE places AS SELECT ours.*, {duck.literal(name)} AS {ORIGIN}, of, place FROM ({ours}) AS ours "
        "LEFT JOIN (SELECT uid, max(number) AS of, arg_max(row, number) AS place "
        f"FROM ({_rows(storage, earlier, ('uid',))}) GROUP BY uid) USING (uid)"
    )
    ((found,),) = con.execute("SELECT count(of) FROM places").fetchall()
    return bool(found)


def row_map(con: duckdb.DuckDBPyConnection, shard: Shard) -> RowMap | None:
    """Where the rows of a shard are; None if a member has not read one of them yet. Needs the table of `locate`."""
    sql = f"SELECT {ORIGIN}, of, place, url_number FROM places WHERE number = $number ORDER BY row"
    origin, of, place, url_numbers = con.sql(sql, params={"number": shard.number}).to_arrow_table().columns
    if of.null_count:
        return None
    shards = [MemberShard(*each) for each in zip(origin.to_pylist(), of.to_pylist(), strict=True)]
    return RowMap(url_numbers.to_pylist(), shards, place.to_numpy())


def _rows(storage: Storage, shards: Sequence[Shard], columns: Sequence[str]) -> str:
    """SQL for all pairs of these shards: number (of the shard), row, and these columns of the ledger."""
    return (
        f"SELECT {SHARD_NUMBER} AS number, file_row_number AS row, {', '.join(columns)} "
        f"FROM {duck.parquet(pairs_files(storage, shards), 'filename', 'file_row_number', 'union_by_name')}"
    )
