"""The difference between two manifests of a source: rows that changed sides and why, drift, and the funnel."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from pipeline.manifest.document import Inputs
from pipeline.manifest.manifest import Manifest
from pipeline.review import drift
from pipeline.review.drift import Drift
from pipeline.store import duck


@dataclass(frozen=True)
class Move:
    """Rows that changed sides. A side is kept, dropped, failed, quarantined, or absent from the manifest."""

    before: str
    after: str
    rows: int


@dataclass(frozen=True)
class Change:
    """The part of one filter.

    `drops` rows were kept before, and this filter drops them now. `frees` rows are kept now, and this filter dropped
    them before. `before` and `after` count the pairs that pass it in sequence, None without such a filter.
    """

    filter: str
    drops: int
    frees: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Difference:
    """From manifest `before` to manifest `after`. `changed` lists the inputs and settings that differ. `certificates`
    lists the scorers whose certificates differ: their decisions may flip although the data did not change.

    `moves` has no rows that stayed on their side. `examples` have uid, url, caption, both sides, and the filters that
    dropped the row in each manifest. `inputs` is the drift of the downloaded pairs, `kept` that of the kept pairs.
    """

    before: str
    after: str
    changed: list[str]
    certificates: list[str]
    rows: tuple[int, int]
    moves: list[Move]
    changes: list[Change]
    examples: list[dict[str, Any]]
    inputs: list[Drift]
    kept: list[Drift]


FLIPPED = 20
"""The least number of examples of each move if certificates differ."""


def between(before: Manifest, after: Manifest, examples: int) -> Difference:
    """Compare two manifests, with `examples` rows of each move, the first by uid; more if certificates differ."""
    for manifest in (before, after):
        manifest.files()  # raises StorageError for one that is no longer complete
    certificates = list(_certificates(before.card, after.card))
    with after.storage.scratch() as scratch, duck.connect(scratch) as con:
        _join(con, before, after)
        moves = con.execute("SELECT before, after, count(*) FROM moved GROUP BY ALL ORDER BY ALL").fetchall()
        drops, frees = (_reasons(con, *which) for which in (("kept", "dropped", "are"), ("dropped", "kept", "were")))
        shown = _shown(con, before, after, max(examples, FLIPPED if certificates else 0))
    return Difference(
        before=before.id,
        after=after.id,
        changed=list(_changed(before.document.inputs, after.document.inputs)),
        certificates=certificates,
        rows=(sum(part.count for part in before.parts), sum(part.count for part in after.parts)),
        moves=[Move(*row) for row in moves],
        changes=_changes(before, after, drops, frees),
        examples=shown,
        inputs=drift.inputs(before, after),
        kept=drift.kept(before, after),
    )


def _join(con: duckdb.DuckDBPyConnection, before: Manifest, after: Manifest) -> None:
    """Create the table `moved`: every row that changed sides, with its reasons.

    Parts that both manifests have hold the same rows in the same order. Only the others need a join by uid.
    """
    was, is_ = ({part.rows: part for part in manifest.parts} for manifest in (before, after))
    shared = [key for key in was if key in is_]
    same = [was[key] for key in shared], [is_[key] for key in shared]
    others = [was[key] for key in was if key not in is_], [is_[key] for key in is_ if key not in was]
    joins = [("FULL JOIN", "USING (uid)", others)] + ([("POSITIONAL JOIN", "", same)] if shared else [])
    selects = [
        "SELECT coalesce(a.uid, b.uid) AS uid, "
        "coalesce(b.side, 'absent') AS before, coalesce(a.side, 'absent') AS after, "
        f"{before.reasons.listed('b.bits')} AS were, {after.reasons.listed('a.bits')} AS are "
        f"FROM ({before.sides(one)}) b {join} ({after.sides(other)}) a {using} WHERE b.side IS DISTINCT FROM a.side"
        for join, using, (one, other) in joins
    ]
    con.execute(f"CREATE TABLE moved AS {' UNION ALL '.join(selects)}")


def _shown(con: duckdb.DuckDBPyConnection, before: Manifest, after: Manifest, examples: int) -> list[dict[str, Any]]:
    """The first `examples` rows of each move, by uid."""
    if not examples:
        return []
    con.execute(
        "CREATE TABLE shown AS FROM moved "
        f"QUALIFY row_number() OVER (PARTITION BY before, after ORDER BY uid) <= {examples}"
    )
    uids = [uid for (uid,) in con.execute("SELECT uid FROM shown").fetchall()]
    if not uids:
        return []
    rows = (manifest.storage.fetch(part.rows) for manifest in (before, after) for part in manifest.parts)
    files = duck.parquet(dict.fromkeys(rows))
    wanted = ", ".join(map(duck.literal, uids))  # constants let the scan skip what has none of them
    found = con.sql(
        "SELECT uid, any_value(r.url) AS url, any_value(r.caption) AS caption, before, after, "
        "were AS dropped_before, are AS dropped_after FROM shown JOIN "
        f"(SELECT uid, url, caption FROM {files} WHERE uid IN ({wanted})) r "
        "USING (uid) GROUP BY ALL ORDER BY before, after, uid"
    )
    shown: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
    return shown


def _reasons(con: duckdb.DuckDBPyConnection, before: str, after: str, reasons: str) -> dict[str, int]:
    found = con.execute(
        f"SELECT reason, count(*) FROM (SELECT unnest({reasons}) AS reason FROM moved "
        f"WHERE before = '{before}' AND after = '{after}') GROUP BY reason"
    )
    return dict(found.fetchall())


def _changed(before: Inputs, after: Inputs) -> list[str]:
    """The inputs and settings that differ between two manifests, in words."""
    found = []
    if before.ledger.digest != after.ledger.digest:
        found.append("the list of pairs")
    if before.stages.shards != after.stages.shards:
        found.append("how pictures are fetched")
    was, is_ = before.stages.scores, after.stages.scores
    found += [f"the scorer {name}" for name in sorted({*was, *is_}) if was.get(name) != is_.get(name)]
    if before.recipe != after.recipe:
        renamed = before.recipe.name != after.recipe.name
        names = f"the recipe: {before.recipe.name}, then {after.recipe.name}"
        found.append(names if renamed else "the recipe's SQL")
    if before.quarantined != after.quarantined:
        found.append("which shards are quarantined")
    if not found and before.rows != after.rows:
        found.append("pairs that were fetched again or taken down")
    return found


def _certificates(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """The scorers whose certificates on two cards differ, with these fields and the distance of the scores."""
    was, is_ = (card.get("certificates", {}) for card in (before, after))
    for name in sorted({*was} & {*is_}):
        one, other = was[name], is_[name]
        unequal = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        if unequal:
            apart = max(abs(left - right) for left, right in zip(one["golden"], other["golden"], strict=False))
            yield f"{name}: {', '.join(unequal)}; the same golden pairs score up to {apart:.2g} apart"


def _changes(before: Manifest, after: Manifest, drops: Mapping[str, int], frees: Mapping[str, int]) -> list[Change]:
    was, is_ = (
        {step.filter: step.sequence for step in manifest.funnel(manifest.recipe)} for manifest in (before, after)
    )
    return [
        Change(name, drops.get(name, 0), frees.get(name, 0), was.get(name), is_.get(name))
        for name in dict.fromkeys([*is_, *was])
    ]
