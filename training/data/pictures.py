"""Stored and held-out pictures, prepared for a network that is trained end to end."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError
from pipeline.manifest.arms import Choice
from pipeline.store.tarfiles import Tars
from training.data import features
from training.data.heldout import HeldOut
from training.encoders.encoders import Preparing

Place = tuple[int, str]
"""A shard, and the member of its tar that is a picture."""


@dataclass(frozen=True)
class Pictures:
    """The tars of stored pictures, the held-out ones, and how pixels become a picture for the network."""

    tars: Tars
    heldout: Callable[[], Iterable[features.NamedPicture]]
    resize: features.Resize

    def prepare(self, tower: Preparing, places: Sequence[Place]) -> dict[Place, Any]:
        """The tower's prepared inputs of stored pictures. Raises StorageError for a missing picture."""
        windows = self._windows(tower, partial(stored, self.tars, places))
        return dict(zip(places, (each for window in windows for each in window), strict=True))

    def prepare_heldout(self, tower: Preparing) -> Iterator[list[Any]]:
        """The tower's prepared inputs of the held-out pictures, window by window."""
        return self._windows(tower, self.heldout)

    def _windows(
        self, tower: Preparing, pictures: Callable[[], Iterable[features.NamedPicture]]
    ) -> Iterator[list[Any]]:
        make = partial(features.prepare, tower, self.resize, "", 0)
        with features.decode([("", pictures)], make) as windows:
            for _, window in windows:
                yield [picture.versions[0] for picture in window]


def stored(tars: Tars, places: Iterable[Place]) -> Iterator[features.NamedPicture]:
    """The pictures at these places, in order. Raises StorageError for a missing picture."""
    for shard, member in places:
        content = tars.read(shard, member)
        if content is None:
            raise StorageError(f"shard {shard} has no picture {member}: run `winnow curate`, which fetches it again")
        yield f"{member} in shard {shard}", content


def split_off(choice: Choice, tars: Tars, test: HeldOut) -> Iterator[features.NamedPicture]:
    """The held-out pictures that were split off the pool, in their order."""
    known = pa.Table.from_batches(choice.downloaded())
    first = known.take(pc.index_in(pa.array(test.sha256), value_set=known["sha256"].combine_chunks()))
    return stored(tars, zip(first["shard"].to_pylist(), first["member"].to_pylist(), strict=True))
