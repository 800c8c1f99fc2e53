"""What strangers wrote and pictured, made fit to be shown: text without tricks, thumbnails out of the shards' tars."""

import io
import re
from functools import lru_cache

from pipeline import shards
from pipeline.manifest import Manifest
from pipeline.storage import Storage

LONGEST = 240
"""Characters that are shown of a caption, a URL or an error among others."""

THUMBNAIL = 176
"""Pixels, the longer side."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

_INDEXED = 64
"""Tars whose index is remembered."""


def plain(text: str, longest: int = LONGEST) -> str:
    """What a stranger wrote, less control characters and signs that turn the direction of writing, and not too long."""
    text = " ".join(_UNSEEN.sub(" ", text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Thumbnails:
    """The stored pictures of a manifest's pairs, made small. Of a tar only the headers and the one picture are read."""

    def __init__(self, storage: Storage, manifest: Manifest) -> None:
        self._storage, self._stage = storage, manifest.document["stages"]["shards"]
        self._index = lru_cache(_INDEXED)(self._indexed)

    def read(self, shard: int, member: str, longer: int = THUMBNAIL) -> bytes | None:
        """A JPEG, or None where the tar is gone or has no such member. Raises StorageError for a damaged tar."""
        if not self._storage.done(self._key(shard)):
            return None
        offset, size = self._index(shard).get(member, (0, 0))
        if not size:
            return None
        with self._storage.fetch(self._key(shard)).open("rb") as tar:
            tar.seek(offset)
            return _smaller(tar.read(size), longer)

    def _key(self, shard: int) -> str:
        return f"shards-{self._stage}/{shard:05d}.tar"

    def _indexed(self, shard: int) -> dict[str, tuple[int, int]]:
        return shards.index(self._storage.fetch(self._key(shard)))


def _smaller(jpeg: bytes, longer: int) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.draft("RGB", (longer, longer))
        image.thumbnail((longer, longer))
        image.convert("RGB").save(data, "JPEG", quality=80)
    return data.getvalue()
