"""The galleries of the report: thumbnails of pairs that are kept, dropped, or near a threshold."""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from pipeline.filtering.thresholds import Threshold
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.pages.untrusted import Thumbnails, plain

SAMPLE = 12
"""Pairs of a gallery."""

SHARDS = 64
"""Shards that the galleries are taken from, at most: a tar that is far away would be fetched whole."""


@dataclass(frozen=True)
class Pair:
    """A pair of a gallery. `picture` is a data URI, or None if the stored picture is gone."""

    caption: str
    url: str
    note: str
    picture: str | None


@dataclass(frozen=True)
class Gallery:
    """Pairs under a heading, with a description."""

    title: str
    description: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class _Selection:
    """Which pairs a gallery shows: SQL for the condition, the order, and the note under each pair."""

    title: str
    description: str
    where: str
    order: str
    note: str

    def rows(self, con: duckdb.DuckDBPyConnection) -> list[tuple[int, str, str, str, str]]:
        """shard, member, caption, url and note of the first pairs of the table `sample`."""
        rows: list[tuple[int, str, str, str, str]] = con.execute(
            f"SELECT shard, member, caption, url, {self.note} FROM sample WHERE {self.where} "
            f"ORDER BY {self.order} LIMIT {SAMPLE}"
        ).fetchall()
        return rows


def galleries(con: duckdb.DuckDBPyConnection, pictures: ShownPictures, lines: Sequence[Threshold]) -> list[Gallery]:
    """Kept pairs, dropped pairs, and for each threshold the pairs nearest to it. The same manifest, the same pairs."""
    chosen = f"(SELECT shard FROM rows WHERE status = 'ok' GROUP BY shard ORDER BY hash(shard) LIMIT {SHARDS})"
    con.execute(f"CREATE TEMP TABLE sample AS FROM rows WHERE status = 'ok' AND shard IN {chosen}")
    reasons = "concat('dropped by ', array_to_string(dropped_by, ', '), if(len(unknown) > 0, ' (no score)', ''))"
    selections = [
        _Selection("Kept", "A random sample.", "kept", "hash(uid)", "''"),
        _Selection(
            "Dropped", "A random sample, with every filter that dropped the pair.", "NOT kept", "hash(uid)", reasons
        ),
        *map(_near, lines),
    ]
    rows = [each.rows(con) for each in selections]
    thumbnails = Thumbnails(pictures)
    return [
        Gallery(
            each.title,
            each.description,
            [
                Pair(plain(caption), plain(url), note, thumbnails.data_uri(shard, member))
                for shard, member, caption, url, note in pairs
            ],
        )
        for each, pairs in zip(selections, rows, strict=True)
    ]


def _near(line: Threshold) -> _Selection:
    """The pairs nearest to a threshold."""
    return _Selection(
        title=f"Near the threshold of {line.filter}",
        description=f"The pairs with {line.column} nearest to {line.value:.4g}: is the threshold in the right place?",
        where=f'"{line.column}" IS NOT NULL',
        order=f'abs("{line.column}" - {line.value}), hash(uid)',
        note=f"concat(if(kept, 'kept, ', 'dropped, '), printf('%.4g', \"{line.column}\"::DOUBLE))",
    )
