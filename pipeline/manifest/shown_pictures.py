"""Stored pictures for people to look at. Those that a scorer calls unsafe are veiled, unless somebody asks for them."""

from collections.abc import Iterable
from typing import Self

import pyarrow as pa

from pipeline.images.veil import veiled
from pipeline.manifest.manifest import Manifest
from pipeline.store.tarfiles import Tars

NSFW = "nsfw"
"""A column of this name, of any scorer, is the probability that a picture is unsafe, or whether it is."""

LEAST = 0.2
"""The least probability of a picture that is veiled. open_nsfw's authors call a picture below it safe."""

Place = tuple[int, str]
"""Shard and member of a stored picture."""


class ShownPictures(Tars):
    """The pictures of a manifest. `read` and `require` give a veiled JPEG in place of a picture in `hidden`."""

    def __init__(self, manifest: Manifest, hidden: Iterable[Place] = ()) -> None:
        super().__init__(manifest.storage, manifest.stages.shards)
        self._hidden = frozenset(hidden)

    @classmethod
    def safe(cls, manifest: Manifest) -> Self:
        """With every picture veiled that a scorer calls unsafe, or that a scorer of unsafe pictures has no score of."""
        return cls(manifest, unsafe(manifest))

    @classmethod
    def of(cls, manifest: Manifest, show_unsafe: bool) -> Self:
        """All as they are if somebody asked for unsafe pictures, else `safe`."""
        return cls(manifest) if show_unsafe else cls.safe(manifest)

    def read(self, shard: int, member: str) -> bytes | None:
        """A JPEG, or None if the tar is gone or has no such member."""
        stored = super().read(shard, member)
        return veiled(stored) if stored is not None and (shard, member) in self._hidden else stored


def unsafe(manifest: Manifest) -> list[Place]:
    """The places of the pictures to veil; none of a manifest without a score of unsafe pictures."""
    columns = nsfw_columns(manifest)
    if not columns:
        return []
    where = " OR ".join(f'coalesce("{name}"::DOUBLE, 1) >= {LEAST}' for name in columns)
    with manifest.connection() as con:
        found: list[Place] = con.sql(
            f"SELECT DISTINCT shard, member FROM rows WHERE status = 'ok' AND ({where})"
        ).fetchall()
    return found


def nsfw_columns(manifest: Manifest) -> list[str]:
    """The columns with the probability that a picture is unsafe, or with whether it is."""
    scored = {f"{name}_{NSFW}" for name in manifest.stages.scores}
    return [each.name for each in manifest.columns if each.name in scored and pa.types.is_primitive(each.type)]
