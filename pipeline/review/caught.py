"""How many labelled pairs of each label each filter of a published recipe dropped.

This is a check of the result: nothing that fetches, scores or filters reads a label.
"""

from collections.abc import Mapping
from typing import Any

import duckdb

from pipeline.errors import SourceError
from pipeline.manifest.manifest import Manifest
from pipeline.review.sample import Labelled


def count(manifest: Manifest, known: Labelled) -> dict[str, Any]:
    """Count, as JSON, the downloaded pairs of each label, and those that each filter drops regardless of the others.

    Only `distinct` depends on the others: it sees the pairs that pass them, and where it keeps a copy, it drops the
    original. A filter drops the pairs that it has no answer for.

    `kinds` has a row for each label with downloaded pairs, `failed` one for each label with failed pairs. `filters` has
    the labelled pairs that each filter drops, and the share of them that is not good. `absent` counts labelled pairs
    that are not in the manifest. Raises SourceError if all are.
    """
    with manifest.connection() as con:
        known = known.located(con)
        con.from_arrow(known.table.rename_columns(["__uid", "__label"])).create("sample")
        con.execute("CREATE TEMP TABLE found AS FROM rows JOIN sample ON uid = __uid")
        ((present,),) = con.execute("SELECT count(*) FROM found").fetchall()
        if not present:
            raise SourceError(
                f"{known.path.name}: none of its pairs is in manifest {manifest.id[:12]}: is it of another source?"
            )
        names = manifest.recipe.reasons
        dropped = _dropped(con)
        kinds = _kinds(con, known, names, dropped)
        failed = con.execute(
            "SELECT __label, cause, count(*) AS pairs FROM found WHERE status <> 'ok' "
            "GROUP BY ALL ORDER BY pairs DESC, cause"
        ).fetchall()
    causes: dict[str, dict[str, int]] = {}
    for label, cause, pairs in failed:
        causes.setdefault(label, {})[cause or "unknown"] = pairs
    return {
        "manifest": manifest.id,
        "recipe": manifest.recipe.name,
        "labels": {
            "file": known.path.name,
            "pairs": len(known.table),
            "repeated": known.repeated,
            "disputed": known.disputed,
        },
        "absent": len(known.table) - present,
        "good": list(known.good),
        "kinds": kinds,
        "filters": [_filter(name, kinds) for name in names],
        "failed": [
            {"label": label, "pairs": sum(causes[label].values()), "causes": causes[label]}
            for label in known.labels
            if label in causes
        ],
    }


def _dropped(con: duckdb.DuckDBPyConnection) -> dict[tuple[str, str], int]:
    """Dropped pairs by label and filter."""
    found = con.execute(
        "SELECT __label, name, count(*) "
        "FROM (SELECT __label, unnest(dropped_by) AS name FROM found WHERE status = 'ok') GROUP BY ALL"
    ).fetchall()
    return {(label, name): pairs for label, name, pairs in found}


def _kinds(
    con: duckdb.DuckDBPyConnection, known: Labelled, names: list[str], dropped: Mapping[tuple[str, str], int]
) -> list[dict[str, Any]]:
    found = con.execute(
        "SELECT __label, count(*), count(*) FILTER (NOT kept) FROM found WHERE status = 'ok' GROUP BY ALL"
    ).fetchall()
    counts = {label: (pairs, lost) for label, pairs, lost in found}
    return [
        {
            "label": label,
            "good": label in known.good,
            "pairs": counts[label][0],
            "dropped_by": {name: dropped.get((label, name), 0) for name in names},
            "dropped": counts[label][1],
            "recall": counts[label][1] / counts[label][0],
        }
        for label in known.labels
        if label in counts
    ]


def _filter(name: str, kinds: list[dict[str, Any]]) -> dict[str, Any]:
    bad = sum(each["dropped_by"][name] for each in kinds if not each["good"])
    dropped = bad + sum(each["dropped_by"][name] for each in kinds if each["good"])
    return {"filter": name, "dropped": dropped, "bad": bad, "precision": bad / dropped if dropped else None}
