"""Pictures of the pool that are in a test set, or nearly: who trains on them has seen the answers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field

from pipeline import neighbours
from pipeline.collected import spread
from pipeline.errors import ModelError, SourceError
from pipeline.score import Columns, PoolSpec, Spec
from pipeline.scorers import pictured
from pipeline.settings import ExistingPath
from pipeline.task import TestSet

if TYPE_CHECKING:  # a pool is of a source, and a source of specs
    from pipeline.pool import Pool, Tell

VERSION = 1
"""Raised whenever the same pool and sets would get other columns."""


class LeaksSpec(PoolSpec):
    """How near each picture is to the nearest one of named test sets."""

    kind: Literal["leaks"]
    of: str = Field("pixels", description="the scorer that made the hashes")
    radius: int = Field(4, ge=0, le=12, description="bits of 64 in which a leaked picture's hash may differ")
    sets: dict[str, ExistingPath] = Field(
        {}, description="by name a folder, a tar, or a Parquet file with the pictures in a column image"
    )
    test: TestSet | None = Field(None, description="and the pictures that a list names; unset, those of task.test")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer that made the hashes."""
        return (self.of,)

    def columns(self) -> Mapping[str, pa.DataType]:
        """leaked: whether a test picture has the same bytes, or a perceptual hash within the radius; distance: bits to
        the nearest such picture, 0 for the same bytes; set, image: which one it is, of several the first.

        All are NULL where there is no hash, and the last three where nothing leaked.
        """
        return {"leaked": pa.bool_(), "distance": pa.uint8(), "set": pa.string(), "image": pa.string()}

    def identity(self) -> Mapping[str, Any]:
        """The version, the radius, and the digests of all files of the sets."""
        sets = {name: pictured.digest(path) for name, path in self.sets.items()}
        test = pictured.digest(self.test.folder, _listed(self.test)) if self.test else None
        settings = {"version": VERSION, "radius": self.radius, "longest": neighbours.LONGEST}
        return {**settings, "sets": sets, **({"test": test} if test else {})}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` makes no 64-bit hash, or a set has no picture."""
        if scorers[self.of].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.of!r} makes no phash; set of to a scorer of kind pixels")
        for name, path in self.sets.items():
            if not pictured.files(path):
                raise SourceError(f"there is no picture in {path}, which sets.{name} means")

    def load(self, of: Callable[[], Any] | None = None) -> "Leaks":
        """The hashes of the sets' pictures. Raises ModelError for one that is none."""
        if not self.sets and not self.test:
            raise ModelError("there is no test set to compare with: name one in the scorer's sets, or in [task.test]")
        found = [(name, *each) for name, path in self.sets.items() for each in _hashed(path, pictured.contents(path))]
        if self.test is not None:
            folder, listed = self.test.folder, _listed(self.test)
            found += [("test", *each) for each in _hashed(folder, pictured.those(folder, listed))]
        return Leaks(f"{self.of}_phash", self.radius, found)


class Leaks:
    """Compares with the test pictures, which are few beside the pool."""

    def __init__(self, hashes: str, radius: int, found: Sequence[tuple[str, str, str, int]]) -> None:
        """`found`: the set, name, sha256 and perceptual hash of each test picture."""
        self._hashes, self._radius = hashes, radius
        self._names = pa.table(
            {"set": [name for name, *_ in found], "image": [image for _, image, *_ in found]},
        )
        self._sha256 = pa.array([sha256 for *_, sha256, _ in found])
        self._targets = np.array([phash for *_, phash in found], np.uint64)

    def score(self, pool: "Pool", tell: "Tell") -> Columns:
        """The columns of `LeaksSpec`."""
        column = pool.column(self._hashes).combine_chunks()
        distinct, picture = np.unique(column.drop_null().to_numpy(), return_inverse=True)
        distance, target = (each[picture] for each in self._nearest(distinct, tell))
        sha256 = pool.column("sha256").filter(column.is_valid()).combine_chunks()
        same = pc.index_in(sha256, value_set=self._sha256)
        target = np.where(same.is_valid(), pc.fill_null(same, 0), target)
        distance[same.is_valid()] = 0
        none = target < 0
        chosen = pa.array(target, mask=none)
        found = {
            "leaked": pa.array(~none),
            "distance": pa.array(distance, mask=none),
            **{name: self._names[name].combine_chunks().take(chosen) for name in ("set", "image")},
        }
        return spread(found, column.is_valid().to_numpy(zero_copy_only=False))

    def _nearest(self, hashes: neighbours.Hashes, tell: "Tell") -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """By hash, the bits to the nearest test picture, and which it is: 255 and -1 if none is within the radius."""
        targets, first = np.unique(self._targets, return_index=True)
        edges = neighbours.within(np.union1d(hashes, targets), self._radius, tell)
        ours = np.concatenate([edges.low, edges.high, hashes])
        theirs = np.concatenate([edges.high, edges.low, hashes])
        bits = np.concatenate([edges.distance, edges.distance, np.zeros(len(hashes), np.uint8)])
        across = np.isin(ours, hashes) & np.isin(theirs, targets)
        row, bits = np.searchsorted(hashes, ours[across]), bits[across]
        place = first[np.searchsorted(targets, theirs[across])]
        nearest_last = np.lexsort((-place, -bits.astype(int)))
        distance, target = np.full(len(hashes), 255, np.uint8), np.full(len(hashes), -1)
        distance[row[nearest_last]], target[row[nearest_last]] = bits[nearest_last], place[nearest_last]
        return distance, target


def _listed(test: TestSet) -> list[Path]:
    """The pictures that the list of a test set names, relative to its folder: others in the folder are none of it."""
    try:
        if test.location.suffix == ".parquet":
            table = pq.read_table(test.location, columns=[test.image])
        else:
            table = pyarrow.csv.read_csv(test.location).select([test.image])
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise ModelError(f"{test.location.name} is no list with a column {test.image!r}: {error}") from None
    listed = [Path(str(name)) for name in sorted(pc.unique(table[test.image]).to_pylist(), key=str)]
    if missing := next((name for name in listed if not (test.folder / name).is_file()), None):
        raise ModelError(f"{test.location.name}: there is no picture {test.folder / missing}")
    return listed


def _hashed(path: Path, pictures: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, str, int]]:
    """Name, sha256 and perceptual hash of each picture of a set."""
    for name, content in pictures:
        try:
            yield name, hashlib.sha256(content).hexdigest(), neighbours.phash(content)
        except Exception as error:  # Pillow raises a dozen kinds for broken files
            raise ModelError(f"{name} in {path} is no picture ({type(error).__name__}): remove or mend it") from error
