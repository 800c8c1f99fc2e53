"""Pictures that many URLs share, and URLs whose bytes have changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from pipeline.manifest import views
from pipeline.manifest.log import commits
from pipeline.store import duck
from pipeline.store.storage import Storage

MANY = 5
"""A picture with this many URLs counts as a placeholder, as in the filter `unshared`."""


def count(con: duckdb.DuckDBPyConnection, storage: Storage, rows: Sequence[Path]) -> dict[str, Any]:
    """Counts for the card of a manifest with these rows, which is not published yet.

    `placeholders` is the number of pictures that at least `MANY` URLs share, and of the pairs with them. `rewritten` is
    the number of URLs that earlier manifests have with other bytes only. It is None if all earlier manifests lost rows
    to a takedown.
    """
    downloaded = f"(FROM {duck.parquet(rows)} WHERE status = 'ok')"
    ((pictures, pairs),) = con.execute(
        f"SELECT count(*), coalesce(sum(pairs), 0) FROM (SELECT count(*) AS pairs FROM {downloaded} GROUP BY sha256 "
        f"HAVING count(*) >= {MANY} AND count(DISTINCT url) >= {MANY})"
    ).fetchall()
    return {
        "placeholders": {"pictures": pictures, "pairs": int(pairs)},
        "rewritten": _rewritten(con, storage, rows),
    }


def remarks(card: Mapping[str, Any]) -> list[str]:
    """A line for each result of `count` that is not zero."""
    found, lines = card.get("placeholders", {}), []
    if found.get("pictures"):
        lines.append(
            f"{found['pictures']:,} pictures have {MANY} URLs or more each, {found['pairs']:,} pairs in all: "
            "winnow sql @placeholders"
        )
    if card.get("rewritten"):
        lines.append(f"{card['rewritten']:,} URLs gave other bytes than before: winnow sql @rewritten")
    return lines


def _rewritten(con: duckdb.DuckDBPyConnection, storage: Storage, rows: Sequence[Path]) -> int | None:
    before = views.every([storage])
    if not before:
        return None if commits(storage) else 0
    known = list(dict.fromkeys(storage.fetch(part.rows) for each in before for part in each.parts))
    new = [path for path in rows if path not in known]
    if not new:
        return 0
    was, is_ = (
        f"(SELECT DISTINCT url, sha256 FROM {duck.parquet(paths)} WHERE status = 'ok')" for paths in (known, new)
    )
    ((count,),) = con.execute(
        f"SELECT count(DISTINCT url) FROM {is_} AS i ANTI JOIN {was} AS w USING (url, sha256) "
        f"WHERE url IN (SELECT url FROM {was})"
    ).fetchall()
    return int(count)
