"""The stored pictures of one shard. A pool decodes them window by window, each picture once."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ShardError, StorageError
from pipeline.scorers.spec import Scorer
from pipeline.scoring.decode_pool import DecodePool, PictureError
from pipeline.store import tarfiles


class Pictures:
    """Reads a shard's tar once. Only the pictures of one window are in memory, as prepared by the scorers."""

    def __init__(self, shard: int, tar: Path, scorers: Mapping[str, Scorer], pool: DecodePool) -> None:
        self._shard, self._tar, self._pool, self._scorers = shard, tar, pool, scorers
        self._members = self._read()
        self._held: dict[str, Mapping[str, Any]] = {}

    def take(self, members: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        """The prepared pictures by scorer, aligned with `members`. Repeated members share one object.

        Members must be in the order of the tar, across all windows. Raises ShardError for a missing or broken picture.
        """
        wanted = set(members)
        self._held = {member: made for member, made in self._held.items() if member in wanted}
        new = list(self._until(wanted - self._held.keys()))
        named = [(f"{member} in {self._tar}", content) for member, content in new]
        try:
            self._held |= zip((member for member, _ in new), self._pool.map(named, self._scorers), strict=True)
        except PictureError as error:
            raise self._error(str(error)) from error
        return {name: [self._held[member][name] for member in members] for name in self._scorers}

    def close(self) -> None:
        """Close the tar."""
        self._members.close()

    def _read(self) -> Generator[tuple[str, bytes], None, None]:
        try:
            yield from tarfiles.read(self._tar)
        except (StorageError, OSError) as error:
            raise self._error(str(error)) from error

    def _until(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Read until every wanted member was read."""
        while wanted:
            member, content = next(self._members, ("", b""))
            if not member:
                raise self._error(
                    f"{min(wanted)} is missing from {self._tar}: delete it, and run the same command again"
                )
            if member in wanted:
                wanted.remove(member)
                yield member, content

    def _error(self, reason: str) -> ShardError:
        return ShardError("score", self._shard, reason)
