"""Pairs as the page shows them in a grid."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.pages.explore.rows import Pairs, Rows
from pipeline.pages.untrusted import plain


def cards(rows: Rows, places: Sequence[int], kept: Pairs, notes: Mapping[int, str]) -> list[dict[str, Any]]:
    """The pairs at these places as JSON: caption, URL, where the picture is, whether it is kept, and its note."""
    return [
        {
            "place": place,
            "shard": row["shard"],
            "member": row["member"],
            "caption": plain(row["caption"] or ""),
            "url": plain(row["url"] or ""),
            "kept": bool(kept[place]),
            "note": notes.get(place, ""),
        }
        for place, row in zip(places, rows.read(places).to_pylist(), strict=True)
    ]
