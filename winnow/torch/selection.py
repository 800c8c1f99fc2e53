"""The pairs that a recipe keeps, as arrays: read once, then nothing asks DuckDB again."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.core import Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.manifest.columns import check_known
from pipeline.manifest.manifest import Manifest
from pipeline.store import duck
from winnow.torch.draws import COPIES, Bits, draws

Numbers = npt.NDArray[np.int64]

MOST_COPIES = 10**6
"""Of one pair in an epoch."""

COPIES_OF_RECIPE = "copies"
"""The column that tells how often a recipe keeps a pair."""


@dataclass(frozen=True)
class Selection:
    """Pairs by shard, in the order of its tar. Pairs that share a picture are neighbours.

    `uids` is uint8 [pairs, 16]; `pictures` is int32 [pairs], the number of each pair's picture. `shards` is int32
    [pictures], `members` has the name of each picture in the tar of its shard. `columns` has one chunk for each column,
    `caption` among them. `copies` is float64 [pairs], or None for one each.
    """

    uids: npt.NDArray[np.uint8]
    pictures: npt.NDArray[np.int32]
    shards: npt.NDArray[np.int32]
    members: pa.Array
    columns: dict[str, pa.Array]
    copies: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.uids)

    @cached_property
    def numbers(self) -> npt.NDArray[np.int32]:
        """The numbers of the shards that have pairs, ascending."""
        return np.unique(self.shards)

    @cached_property
    def bounds(self) -> Numbers:
        """Where the pairs of each shard begin, and at last how many pairs there are: [shards + 1]."""
        starts = np.searchsorted(self.shards[self.pictures], self.numbers)
        return np.append(starts, len(self)).astype(np.int64)

    @cached_property
    def digest(self) -> str:
        """Which pairs they are, and in which order: 16 hex digits."""
        return blake2b(self.uids.tobytes(), digest_size=8).hexdigest()

    def uid(self, row: int) -> str:
        """The uid of a pair: 32 hex digits."""
        return bytes(self.uids[row]).hex()

    def counts(self, seed: int, epoch: int) -> Numbers | None:
        """How often each pair occurs in an epoch, int64 [pairs]; None for once each.

        2.3 copies are 3 with probability 0.3, else 2. The draw depends on the seed, the epoch and the uid alone.
        """
        if self.copies is None:
            return None
        whole = np.floor(self.copies)
        bits: Bits = self.uids[:, :8].copy().view(np.uint64)[:, 0]
        return (whole + (draws(bits, COPIES, seed, epoch) < self.copies - whole)).astype(np.int64)


def select(manifest: Manifest, recipe: Recipe | None, columns: Sequence[str], copies: str | None) -> Selection:
    """The pairs that a recipe keeps, or the published ones, with these columns of `rows`.

    `copies` names the column of how often each pair occurs in an epoch: "copies" are those of a recipe that repeats.
    Raises RecipeError, QueryError for an unknown column, and StorageError if no pair is kept.
    """
    check_known(manifest, columns)
    table = _read(manifest, recipe, {"caption", *columns}, copies)
    if not len(table):
        raise StorageError(f"manifest {manifest.id[:12]} has nothing to train on: the recipe keeps no pair")
    places = table.select(["shard", "member"])
    first = np.append(True, _changes(places["shard"]) | _changes(places["member"]))
    pictures = places.filter(pa.array(first))
    return Selection(
        _parse(table["uid"]),
        (np.cumsum(first) - 1).astype(np.int32),
        pictures["shard"].to_numpy().astype(np.int32),
        _one_chunk(pictures["member"]),
        {name: _one_chunk(table[name]) for name in ("caption", *columns) if name != "uid"},
        _checked(table[_COPIES], copies) if _COPIES in table.column_names else None,
    )


_COPIES = "__copies"


def _read(manifest: Manifest, recipe: Recipe | None, columns: set[str], copies: str | None) -> pa.Table:
    """The kept pairs, by shard and member. `__copies` is of the recipe's selection, or a column of `rows`."""
    chosen = None if recipe is None else manifest.select(recipe)
    wanted = [f"rows.{duck.identifier(name)}" for name in sorted(columns | {"uid", "shard", "member"})]
    if copies == COPIES_OF_RECIPE:
        if (recipe or manifest.recipe).repeats:
            wanted.append(f"{'rows' if chosen is None else 'chosen'}.{COPIES_OF_RECIPE} AS {_COPIES}")
    elif copies:
        check_known(manifest, [copies])
        wanted.append(f"rows.{duck.identifier(copies)} AS {_COPIES}")
    among = "rows WHERE kept" if chosen is None else "rows JOIN chosen USING (uid)"
    with manifest.connection() as con:
        if chosen is not None:
            con.from_arrow(chosen).create("chosen")
        return con.sql(
            f"SELECT {', '.join(wanted)} FROM {among} ORDER BY shard, len(member), member, uid"
        ).to_arrow_table()


def _checked(column: pa.ChunkedArray, name: str | None) -> npt.NDArray[np.float64]:
    """Raises RecipeError for what is no number of copies."""
    try:
        copies: npt.NDArray[np.float64] = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        copies = np.array([np.nan])
    wrong = np.count_nonzero(~((copies >= 0) & (copies <= MOST_COPIES)))
    if wrong:
        raise RecipeError(
            f"column {name!r} has {wrong:,} values that are no number of copies: a pair occurs 0 to {MOST_COPIES:,} "
            "times in an epoch; pass copies=None to take each pair once"
        )
    return copies


def _changes(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Where a value differs from the one before, bool [values - 1]."""
    return pc.not_equal(column.slice(1), column.slice(0, len(column) - 1)).to_numpy()  # type: ignore[no-any-return]


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The values in one piece of memory: quick to take one of, and pickled without the rest of a table."""
    kind = pa.large_string() if pa.types.is_string(column.type) else column.type
    return pa.concat_arrays([pa.array([], kind), *column.cast(kind).chunks])


def _parse(uids: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """uint8 [uids, 16] of hex digits."""
    digits = np.frombuffer("".join(uids.to_pylist()).encode(), np.uint8).reshape(len(uids), 32)
    values = np.where(digits > ord("9"), digits - (ord("a") - 10), digits - ord("0")).astype(np.uint8)
    return np.asarray(values[:, ::2] << 4 | values[:, 1::2], np.uint8)
