"""Text and pictures of strangers, made safe for a page: text without control characters, and thumbnails."""

import base64
import io
import re

from pipeline.manifest.shown_pictures import ShownPictures

LONGEST = 240
"""Characters of a caption, a URL or an error in a list, at most."""

THUMBNAIL = 176
"""Pixels of the longer side of a thumbnail."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def plain(text: str, longest: int = LONGEST) -> str:
    """The text without control characters and marks of writing direction, cut to `longest` characters."""
    text = " ".join(_UNSEEN.sub(" ", text).split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


class Thumbnails:
    """Thumbnails of a manifest's stored pictures. Of a tar only the headers and the one picture are read."""

    def __init__(self, pictures: ShownPictures) -> None:
        self._pictures = pictures

    def read(self, shard: int, member: str, longer: int = THUMBNAIL) -> bytes | None:
        """A JPEG, or None if the tar is gone or has no such member. Raises StorageError for a damaged tar."""
        stored = self._pictures.read(shard, member)
        return None if stored is None else _smaller(stored, longer)

    def data_uri(self, shard: int, member: str, longer: int = THUMBNAIL) -> str | None:
        """The thumbnail as the source of an img element. Otherwise as `read`."""
        jpeg = self.read(shard, member, longer)
        return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _smaller(jpeg: bytes, longer: int) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.draft("RGB", (longer, longer))
        image.thumbnail((longer, longer))
        image.convert("RGB").save(data, "JPEG", quality=80)
    return data.getvalue()
