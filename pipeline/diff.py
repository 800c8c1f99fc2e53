"""What is different between two manifests of a source: rows that changed sides and why, drift, and the funnel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from pipeline import drift, tables
from pipeline.drift import Drift
from pipeline.manifest import Manifest


@dataclass(frozen=True)
class Move:
    """Rows that went from one side to another: kept, dropped, failed, quarantined, or absent from that manifest."""

    before: str
    after: str
    rows: int


@dataclass(frozen=True)
class Change:
    """A filter's part. `drops` rows were kept and are dropped now, by this filter among others; `frees` were dropped,
    by this filter among others, and are kept now. `before` and `after` are the pairs that pass it in sequence, None
    where the recipe has no such filter."""

    filter: str
    drops: int
    frees: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Difference:
    """From manifest `before` to manifest `after`. `changed` says what differs in their making, in words.

    `moves` leave out the rows that stayed; `examples` have uid, url, caption, both sides and the filters that dropped
    the row on each. Drift is told for the downloaded pairs (`inputs`) and for those that were kept.
    """

    before: str
    after: str
    changed: list[str]
    rows: tuple[int, int]
    moves: list[Move]
    changes: list[Change]
    examples: list[dict[str, Any]]
    inputs: list[Drift]
    kept: list[Drift]


def between(before: Manifest, after: Manifest, examples: int) -> Difference:
    """Compare two manifests. `examples` rows of each move are shown, the first by uid."""
    with after.storage.scratch() as scratch, tables.connect(scratch) as con:
        _join(con, before, after)
        moves = con.execute("SELECT before, after, count(*) FROM moved GROUP BY ALL ORDER BY ALL").fetchall()
        drops, frees = (_reasons(con, *which) for which in (("kept", "dropped", "are"), ("dropped", "kept", "were")))
        shown = con.sql(
            "SELECT uid, url, caption, before, after, were AS dropped_before, are AS dropped_after FROM moved "
            f"QUALIFY row_number() OVER (PARTITION BY before, after ORDER BY uid) <= {examples} "
            "ORDER BY before, after, uid"
        ).to_arrow_table()
    return Difference(
        before=before.id,
        after=after.id,
        changed=list(_changed(before.document, after.document)),
        rows=(sum(part.count for part in before.parts), sum(part.count for part in after.parts)),
        moves=[Move(*row) for row in moves],
        changes=_changes(before, after, drops, frees),
        examples=shown.to_pylist(),
        inputs=drift.inputs(before, after),
        kept=drift.kept(before, after),
    )


def _join(con: duckdb.DuckDBPyConnection, before: Manifest, after: Manifest) -> None:
    """Leave the table `moved`: every row that is on another side, with its reasons."""
    for name, manifest in (("b", before), ("a", after)):
        side = "CASE WHEN kept THEN 'kept' WHEN status = 'ok' THEN 'dropped' ELSE status END"
        con.execute(
            f"CREATE VIEW {name} AS SELECT uid, url, caption, {side} AS side, dropped_by FROM ({manifest.view()})"
        )
    con.execute(
        "CREATE TABLE moved AS SELECT uid, coalesce(a.url, b.url) AS url, coalesce(a.caption, b.caption) AS caption, "
        "coalesce(b.side, 'absent') AS before, coalesce(a.side, 'absent') AS after, "
        "b.dropped_by AS were, a.dropped_by AS are "
        "FROM b FULL JOIN a USING (uid) WHERE b.side IS DISTINCT FROM a.side"
    )


def _reasons(con: duckdb.DuckDBPyConnection, before: str, after: str, reasons: str) -> dict[str, int]:
    found = con.execute(
        f"SELECT reason, count(*) FROM (SELECT unnest({reasons}) AS reason FROM moved "
        f"WHERE before = '{before}' AND after = '{after}') GROUP BY reason"
    )
    return dict(found.fetchall())


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs in the making of two manifests."""
    found = []
    if before["ledger"]["digest"] != after["ledger"]["digest"]:
        found.append("the list of pairs")
    if before["stages"]["shards"] != after["stages"]["shards"]:
        found.append("how pictures are fetched")
    was, is_ = (document["stages"]["scores"] for document in (before, after))
    found += [f"the scorer {name}" for name in sorted({*was, *is_}) if was.get(name) != is_.get(name)]
    if before["recipe"] != after["recipe"]:
        names = [document["recipe"]["name"] for document in (before, after)]
        found.append(f"the recipe: {names[0]}, then {names[1]}" if names[0] != names[1] else "the recipe's SQL")
    if before["quarantined"] != after["quarantined"]:
        found.append("which shards are quarantined")
    return found


def _changes(before: Manifest, after: Manifest, drops: Mapping[str, int], frees: Mapping[str, int]) -> list[Change]:
    was, is_ = (
        {step.filter: step.sequence for step in manifest.funnel(manifest.recipe)} for manifest in (before, after)
    )
    return [
        Change(name, drops.get(name, 0), frees.get(name, 0), was.get(name), is_.get(name))
        for name in dict.fromkeys([*is_, *was])
    ]
