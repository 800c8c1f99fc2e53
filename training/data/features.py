"""Features of pictures: plain and augmented versions through an encoder, computed once and stored by shard.

The object of a shard is named by its pictures. Other classes, or pairs that left the source, give another object; the
same pictures always give the same one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.engine.prefetch import Prefetched
from pipeline.errors import StorageError
from pipeline.images import decoders
from pipeline.images.phash import phash
from pipeline.process.machine import cores
from pipeline.settings.encoder import Encoder
from pipeline.settings.task import Budget
from pipeline.store import tarfiles
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.augment import picture_policies
from training.data import decoding, heldout
from training.encoders import encoders
from training.encoders.finite import check_finite, to_float16

S = TypeVar("S")
T = TypeVar("T")

VERSION = 1

WINDOW = 64
"""The number of pictures decoded together, while the encoder processes the previous window."""

NamedPicture = tuple[str, bytes]
"""The name of a picture in errors, and its encoded bytes."""

Resize = Callable[[picture_policies.Pixels], Image.Image]
"""Converts pixels to the picture that an encoder prepares: one of `decoders.from_pixels`."""


@dataclass(frozen=True)
class Features:
    """`views`: float16 [pictures, 1 + augmented views, dim], the plain version first; `phash`: uint64 [pictures]."""

    views: npt.NDArray[np.float16]
    phash: npt.NDArray[np.uint64]

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """The pictures of all parts, in order."""
        return cls(np.concatenate([part.views for part in parts]), np.concatenate([part.phash for part in parts]))


class Prepared(NamedTuple):
    """A picture, ready for an encoder: its name, its perceptual hash, and what the encoder prepared of each version."""

    name: str
    phash: int
    versions: Sequence[Any]


@dataclass(frozen=True)
class OwnEncoder:
    """An encoder that no source file names, such as the frozen tower of a model: its identity, and how it is loaded."""

    kind: str
    identity: Mapping[str, Any]
    load: Callable[[], encoders.LoadedEncoder]


class Extractor:
    """Features of pictures. Missing ones are computed and stored. The encoder is loaded when it is first needed.

    Pictures are resized by the source's `decoder`, as for a scorer; all decoders give the same pixels. Without a budget
    there are no augmented versions. `workers` threads decode, one for each core if unset.
    """

    def __init__(
        self,
        storage: Storage,
        encoder: Encoder | OwnEncoder,
        decoder: decoders.Name,
        budget: Budget | None,
        workers: int | None = None,
    ) -> None:
        own = encoder if isinstance(encoder, OwnEncoder) else _named(encoder)
        self.identity = {**own.identity, "decoder": dict(decoders.identity(decoder))}
        self.encoder, self.load, self.resize = encoder, own.load, decoders.from_pixels(decoder)
        self._storage, self._budget, self._workers = storage, budget, workers
        self._loaded: encoders.LoadedEncoder | None = None

    def training(self, shards_key: str, wanted: Mapping[int, Sequence[str]]) -> Iterator[Features]:
        """Features of the pictures of each shard, shard by shard, in the order of its members in `wanted`."""
        augmented = self._budget and {
            "policy": self._budget.policy,
            "views": self._budget.augmented_views,
            "augment": picture_policies.VERSION,
            "albumentations": version("albumentations"),
        }
        stage = self._stage({"shards": shards_key, "augmented": augmented})
        wanted_by_key: dict[str, Callable[[], Iterable[NamedPicture]]] = {}
        for shard, members in wanted.items():
            tar = self._storage.fetch(f"shards-{shards_key}/{shard:05d}.tar")
            wanted_by_key[stage.item(shard, f"-{digest(list(members))[:16]}.npz")] = partial(read, tar, members)
        return self._stored(stage, wanted_by_key, self._budget.augmented_views if self._budget else 0)

    def heldout(self, pictures: heldout.HeldOut) -> Features:
        """Plain features of the held-out pictures."""
        stage = self._stage({"heldout": True})
        key = f"{stage.folder}/{digest(list(pictures.sha256))[:16]}.npz"
        return next(self._stored(stage, {key: pictures.pictures}, 0))

    def _stage(self, more: dict[str, Any]) -> Stage:
        made_by = {"version": VERSION, "encoder": self.identity, "imagehash": version("imagehash"), **more}
        return Stage(f"features/{self.encoder.kind}", made_by)

    def _stored(
        self, stage: Stage, wanted: Mapping[str, Callable[[], Iterable[NamedPicture]]], views: int
    ) -> Iterator[Features]:
        missing = {key: pictures for key, pictures in wanted.items() if not self._storage.done(key)}
        computed = self._computed(missing, views)
        for key in wanted:
            if key in missing:
                made = next(computed)
                stage.describe(self._storage)
                with self._storage.scratch() as scratch:
                    np.savez(scratch / "features.npz", views=made.views, phash=made.phash)
                    self._storage.put_file(key, scratch / "features.npz")
            with np.load(self._storage.fetch(key), allow_pickle=False) as stored:
                kept = Features(stored["views"], stored["phash"])
            check_finite(kept.views, partial(_picture_name, wanted[key]))
            yield kept

    def _computed(self, missing: Mapping[str, Callable[[], Iterable[NamedPicture]]], views: int) -> Iterator[Features]:
        """The features of each missing key. Decoding does not stop between keys."""
        self._loaded = self._loaded or self.load()
        policy = self._budget.policy if self._budget else ""
        with decode(
            missing.items(), partial(prepare, self._loaded, self.resize, policy, views), self._workers
        ) as windows:
            for _, group in groupby(windows, itemgetter(0)):
                yield Features.joined([self._encoded(window) for _, window in group])

    def _encoded(self, window: Sequence[Prepared]) -> Features:
        assert self._loaded is not None
        versions = [each for picture in window for each in picture.versions]
        views = len(window[0].versions)
        encoded = to_float16(self._loaded.encode(versions), lambda row: window[row // views].name)
        hashes = np.array([picture.phash for picture in window], np.uint64)
        return Features(encoded.reshape(len(window), views, -1), hashes)


def _named(encoder: Encoder) -> OwnEncoder:
    return OwnEncoder(encoder.kind, encoders.identity(encoder), partial(encoders.load, encoder))


def _picture_name(pictures: Callable[[], Iterable[NamedPicture]], row: int) -> str:
    return next(islice(pictures(), row, None))[0]


@contextmanager
def decode(
    wanted: Iterable[tuple[str, Callable[[], Iterable[S]]]],
    make: Callable[[S], T],
    workers: int | None = None,
) -> Iterator[Iterable[tuple[str, list[T]]]]:
    """The results of `make` for the pictures under each key, in order, in windows of at most `WINDOW` with their key.

    One thread reads, and a pool of `workers` calls `make`. A window is made while the caller processes the previous
    one.
    """
    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(workers or cores(), "decode") as pool:

        def windows() -> Iterator[tuple[str, list[T]]]:
            for key, pictures in wanted:
                coming = iter(pictures())
                while window := list(islice(coming, WINDOW)):
                    yield key, list(pool.map(make, window))

        yield Prefetched(windows(), reading)


def prepare(encoder: encoders.Preparing, resize: Resize, policy: str, views: int, picture: NamedPicture) -> Prepared:
    """A picture and its augmented `views`, prepared for an encoder. Raises StorageError if it cannot be decoded."""
    name, content = picture
    try:
        images = [resize(pixels) for pixels in decoding.decode_versions(content, policy, views)]
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise StorageError(f"{name} cannot be decoded: {error!r}") from error
    return Prepared(name, phash(images[0]), [encoder.prepare(each) for each in images])


def read(tar: Path, members: Sequence[str]) -> Iterator[NamedPicture]:
    """The pictures of these members of a tar, in the tar's order, which must be that of `members`.

    Raises StorageError for a missing member.
    """
    wanted = iter(members)
    expected = next(wanted, None)
    for name, content in tarfiles.read(tar):
        if name == expected:
            yield f"{name} in {tar}", content
            expected = next(wanted, None)
    if expected is not None:
        raise StorageError(f"{tar.name} has no picture {expected}: remove it and its .parquet, and run `winnow curate`")
