"""The parts of a format of an export, and what its card says to readers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipeline.export.stored import Stored

PIECE = 1000
"""The number of pairs in a tar, a Parquet file, or a folder of pictures."""

_BOOKKEEPING = frozenset(
    {"status", "cause", "error", "bytes", "shard", "member", "kept", "dropped_by", "unknown", "copies"}
)
"""Columns of rows that are winnow's own bookkeeping."""


COPY = "__copy"
"""The internal column that numbers the samples of a pair which a recipe keeps more than once, from 0."""

COPIES = "__copies"
"""The internal column of how often a pair is kept, for a format that writes it once."""

Repeats = Literal["apart", "together", "once"]
"""The samples of one pair: as far from each other as possible, one after the other, or only one with its `COPIES`."""


@dataclass(frozen=True)
class Written:
    """What an export holds: so many pairs, as so many samples, in so many pieces."""

    pairs: int
    samples: int
    pieces: int


@dataclass(frozen=True)
class Records:
    """Where a reader of tables finds the records: files by a pattern, of one media type.

    `picture` is the column whose field `bytes` holds the picture; None if the files hold none.
    """

    pattern: str
    media_type: str
    picture: str | None = None


@dataclass(frozen=True)
class Format:
    """A way to write pairs.

    `names` are the names of the files or folders of a piece, by its number and the number of pieces. `write` takes
    their paths, the pairs and what is stored of them. `end` takes the unfinished folder, the finished one, and the
    pairs of each piece with its first name.

    The card needs the rest. `data` is the pattern of files that `datasets` loads, `settings` are those of its reader,
    `columns` are the written columns by those of the pairs, `meanings` explain those that the format adds, `features`
    are their types for `datasets` where the files have none. `load` is Python that reads the folder, `files` says what
    is in it. `stale` are patterns of the files that an older export of this format may have left in a repository.
    `piece` None is one piece for everything, of the columns `needs` only. `repeats` says where the samples of a pair go
    that a recipe keeps more than once.
    """

    names: Callable[[int, int], Sequence[str]]
    write: Callable[[Sequence[Path], pa.Table, Stored], None]
    files: str
    load: str
    stale: Sequence[str]
    end: Callable[[Path, Path, Iterator[tuple[str, pa.Table]]], None] = lambda folder, to, pieces: None
    data: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    columns: Callable[[pa.Schema], pa.Schema] = lambda rows: rows
    meanings: Mapping[str, str] = field(default_factory=dict)
    features: Callable[[pa.Schema], list[dict[str, Any]]] = lambda columns: []
    records: Records | None = None
    piece: int | None = PIECE
    needs: Sequence[str] | None = None
    repeats: Repeats = "apart"


def public(pairs: pa.Table) -> pa.Table:
    """The columns without winnow's own bookkeeping, and without metadata of their schema."""
    kept = [name for name in pairs.column_names if name not in _BOOKKEEPING | {COPY, COPIES}]
    return pairs.select(kept).replace_schema_metadata(None)


def public_schema(rows: pa.Schema) -> pa.Schema:
    """The same of a schema."""
    return public(rows.empty_table()).schema
