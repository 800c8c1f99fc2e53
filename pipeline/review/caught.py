"""What a published recipe caught of a labelled sample: how many pairs of each label each of its filters dropped.

Only a check afterwards: nothing that fetches, scores or chooses reads a label.
"""

from collections.abc import Mapping
from typing import Any

import duckdb

from pipeline.errors import SourceError
from pipeline.manifest.manifest import Manifest
from pipeline.review.sample import Labelled


def count(manifest: Manifest, known: Labelled) -> dict[str, Any]:
    """As JSON: by label, the downloaded pairs and those that each filter dropped, whatever the others said of them.
    Only `distinct` looks at nothing but what passed all others, and where it keeps the copy, it drops the original.

    `kinds` has a row a label with downloaded pairs, `failed` a row a label with others; `filters` tells of each filter
    how much it dropped, and which share of that is not good. A pair that a filter had no answer for is dropped by it.
    `absent` pairs of the sample are not in the manifest. Raises SourceError if none is in it.
    """
    with manifest.connection() as con:
        con.from_arrow(known.table.rename_columns(["__uid", "__label"])).create("sample")
        con.execute("CREATE TEMP TABLE found AS FROM rows JOIN sample ON uid = __uid")
        ((there,),) = con.execute("SELECT count(*) FROM found").fetchall()
        if not there:
            raise SourceError(
                f"{known.path.name}: none of its pairs is in manifest {manifest.id[:12]}: is it this source's?"
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
        "labels": {"file": known.path.name, "pairs": len(known.table), "repeated": known.repeated},
        "absent": len(known.table) - there,
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
    """Pairs by label and filter."""
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
    told = {label: (pairs, lost) for label, pairs, lost in found}
    return [
        {
            "label": label,
            "good": label in known.good,
            "pairs": told[label][0],
            "dropped_by": {name: dropped.get((label, name), 0) for name in names},
            "dropped": told[label][1],
            "recall": told[label][1] / told[label][0],
        }
        for label in known.labels
        if label in told
    ]


def _filter(name: str, kinds: list[dict[str, Any]]) -> dict[str, Any]:
    bad = sum(each["dropped_by"][name] for each in kinds if not each["good"])
    dropped = bad + sum(each["dropped_by"][name] for each in kinds if each["good"])
    return {"filter": name, "dropped": dropped, "bad": bad, "precision": bad / dropped if dropped else None}
