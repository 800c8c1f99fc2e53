"""What strangers wrote and pictured, made fit to be shown: text without tricks, thumbnails out of the shards' tars."""

import io
import re

from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage
from pipeline.store.tarfiles import Tars

LONGEST = 240
"""Characters that are shown of a caption, a URL or an error among others."""

THUMBNAIL = 176
"""Pixels, the longer side."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: str, longest: int = LONGEST) -> str:
    """What a stranger wrote, less control characters and signs that turn the direction of writing, and not too long."""
    text = " ".join(_UNSEEN.sub(" ", text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Thumbnails:
    """The stored pictures of a manifest's pairs, made small. Of a tar only the headers and the one picture are read."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._tars = Tars(storage, manifest.stages.shards)

    def read(self, shard: int, member: str, longer: int = THUMBNAIL) -> bytes | None:
        """A JPEG, or None where the tar is gone or has no such member. Raises StorageError for a damaged tar."""
        stored = self._tars.read(shard, member)
        return None if stored is None else _smaller(stored, longer)


def _smaller(jpeg: bytes, longer: int) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.draft("RGB", (longer, longer))
        image.thumbnail((longer, longer))
        image.convert("RGB").save(data, "JPEG", quality=80)
    return data.getvalue()
