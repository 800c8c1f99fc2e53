"""Captions in files beside pictures: the text of a .txt, or keys of a .json."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.failure import RowError
from pipeline.files import plain
from pipeline.files.places import join
from pipeline.ledger.list_json import text_of
from pipeline.ledger.list_rows import Notes
from pipeline.ledger.picture_columns import caption_name
from pipeline.settings.pairs import Pairs
from pipeline.text_files import marked_encoding

_MAX_BYTES = 1 << 20
"""Of a file beside a picture."""


def captions_of(pairs: Pairs, place: str, notes: Notes) -> tuple[str | None, list[str], dict[str, str | None]]:
    """URL, captions and extra columns of a .txt or .json in the folder of pictures.

    A file that cannot be read has an empty caption, and is noted. Links out of the folder are not read.
    """
    nothing = dict.fromkeys(pairs.extra)
    try:
        path = pairs.base / place
        if path.is_symlink():  # only files are found, in folders without links, so that no other check is needed
            path = join(pairs.base, place, pairs.symlinks)
        content = plain.read(path, place, _MAX_BYTES)
        text = content.decode(marked_encoding(content) or pairs.encoding or "utf-8", "replace")
        if "\ufffd" in text and b"\xef\xbf\xbd" not in content:
            notes.invalid += 1
        if not place.lower().endswith(".json"):
            return None, [text.replace("\0", "").strip()], nothing
        row = json.loads(text)
        if not isinstance(row, Mapping):
            raise ValueError("this is no JSON object")
    except (RowError, ValueError, RecursionError) as error:
        notes.unread += 1
        notes.example = notes.example or f"{place}: {error}"
        return None, [""], nothing
    return _of_object(row, pairs)


def _of_object(row: Mapping[str, Any], pairs: Pairs) -> tuple[str | None, list[str], dict[str, str | None]]:
    found = row.get(caption_name(row, pairs))
    captions = (
        [text_of(each) or "" for each in found if not isinstance(each, Mapping)]
        if isinstance(found, list)
        else [text_of(found) or ""]
    )
    url = row.get(pairs.url) if pairs.url else None
    return (
        url if isinstance(url, str) else None,
        captions or [""],
        {name: text_of(row.get(name)) for name in pairs.extra},
    )
