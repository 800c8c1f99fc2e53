"""The page of a search: the pictures that were found, with captions and URLs as text.

Like the report it is one file without scripts and links, under a content policy that forbids scripts and requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.pages.rendering import write_page
from pipeline.pages.untrusted import Thumbnails
from pipeline.query.search import Hit

LONGER = 320
"""Pixels of the longer side of a picture on the page."""


@dataclass(frozen=True)
class Shown:
    """A picture on the page: a data URI, or None if the stored picture is gone."""

    hit: Hit
    picture: str | None


def write(
    manifest: Manifest,
    query: str,
    scorer: str,
    searched: str,
    hits: Sequence[Hit],
    path: Path,
    pictures: ShownPictures | None = None,
) -> None:
    """Write the page to `path`. `query` and `searched` are what was looked for, and among which pairs, in words.

    `pictures` are those of the manifest, by default with unsafe ones veiled. Raises StorageError if the file cannot be
    written.
    """
    thumbnails = Thumbnails(pictures or ShownPictures.safe(manifest))
    facts = {
        "manifest": manifest,
        "query": query,
        "scorer": scorer,
        "searched": searched,
        "shown": [Shown(hit, thumbnails.data_uri(hit.shard, hit.member, LONGER)) for hit in hits],
    }
    try:
        write_page("found.html.jinja", path, facts)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
