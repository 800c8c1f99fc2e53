"""Features of pictures, computed once: plain and augmented versions through an encoder, kept by shard.

A shard's object is named by the pictures that were asked for, so that other classes or pairs that left the source
give another object, and the same question finds the same one.
"""

import hashlib
import io
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
from PIL import Image, ImageOps

from pipeline.engine.machine import cores
from pipeline.engine.prefetch import Prefetched
from pipeline.errors import StorageError
from pipeline.images import decoders
from pipeline.images.phash import phash
from pipeline.settings.encoder import Encoder
from pipeline.settings.task import Budget
from pipeline.store import tarfiles
from pipeline.store.digests import digest
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.augment import picture_policies
from training.data import heldout
from training.encoders import encoders

T = TypeVar("T")

VERSION = 1
"""Raised whenever the same pictures would get other features."""

WINDOW = 64
"""Pictures that are decoded together, while the encoder is at those before."""

Named = tuple[str, bytes]
"""What a picture is called where something is wrong with it, and its file."""

Drawn = Callable[[picture_policies.Pixels], Image.Image]
"""From pixels to the picture that an encoder prepares: one of `decoders.from_pixels`, which says who resizes it."""


@dataclass(frozen=True)
class Features:
    """`views`: float16 [pictures, 1 + augmented views, dim], the plain version first; `phash`: uint64 [pictures]."""

    views: npt.NDArray[np.float16]
    phash: npt.NDArray[np.uint64]

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """One after the other."""
        return cls(np.concatenate([part.views for part in parts]), np.concatenate([part.phash for part in parts]))


class Prepared(NamedTuple):
    """A picture, ready for an encoder: its perceptual hash, and what the encoder prepared of each version."""

    phash: int
    versions: Sequence[Any]


class Extractor:
    """Gives features, and computes those that are not there yet. The encoder loads when it is first needed.

    Pictures are resized by the source's `decoder`, as a scorer sees them; all decoders give the same pixels. Without a
    budget there are no augmented versions. `workers` decode, as many as there are processors if unset.
    """

    def __init__(
        self,
        storage: Storage,
        encoder: Encoder,
        decoder: decoders.Name,
        budget: Budget | None,
        workers: int | None = None,
    ) -> None:
        self.identity = {**encoders.identity(encoder), "decoder": dict(decoders.identity(decoder))}
        self.encoder, self.drawn = encoder, decoders.from_pixels(decoder)
        self._storage, self._budget, self._workers = storage, budget, workers
        self._loaded: encoders.Encodes | None = None

    def training(self, shards_key: str, wanted: Mapping[int, Sequence[str]]) -> Iterator[Features]:
        """Features of pictures of each shard, by its number, in the order of its members; one shard after another."""
        augmented = self._budget and {
            "policy": self._budget.policy,
            "views": self._budget.augmented_views,
            "augment": picture_policies.VERSION,
            "albumentations": version("albumentations"),
        }
        stage = self._stage({"shards": shards_key, "augmented": augmented})
        asked: dict[str, Callable[[], Iterable[Named]]] = {}
        for shard, members in wanted.items():
            tar = self._storage.fetch(f"shards-{shards_key}/{shard:05d}.tar")
            asked[stage.item(shard, f"-{digest(list(members))[:16]}.npz")] = partial(read, tar, members)
        return self._kept(stage, asked, self._budget.augmented_views if self._budget else 0)

    def heldout(self, pictures: heldout.HeldOut) -> Features:
        """Plain features of the held-out pictures."""
        stage = self._stage({"heldout": True})
        key = f"{stage.folder}/{digest(list(pictures.sha256))[:16]}.npz"
        return next(self._kept(stage, {key: pictures.pictures}, 0))

    def _stage(self, more: dict[str, Any]) -> Stage:
        made_by = {"version": VERSION, "encoder": self.identity, "imagehash": version("imagehash"), **more}
        return Stage(f"features/{self.encoder.kind}", made_by)

    def _kept(self, stage: Stage, asked: Mapping[str, Callable[[], Iterable[Named]]], views: int) -> Iterator[Features]:
        missing = {key: pictures for key, pictures in asked.items() if not self._storage.done(key)}
        computed = self._computed(missing, views)
        for key in asked:
            if key in missing:
                made = next(computed)
                stage.describe(self._storage)
                with self._storage.scratch() as scratch:
                    np.savez(scratch / "features.npz", views=made.views, phash=made.phash)
                    self._storage.put_file(key, scratch / "features.npz")
            with np.load(self._storage.fetch(key), allow_pickle=False) as stored:
                yield Features(stored["views"], stored["phash"])

    def _computed(self, missing: Mapping[str, Callable[[], Iterable[Named]]], views: int) -> Iterator[Features]:
        """Those of each missing key. Decoding runs on from one to the next."""
        self._loaded = self._loaded or encoders.load(self.encoder)
        policy = self._budget.policy if self._budget else ""
        with decoded(missing, partial(prepared, self._loaded, self.drawn, policy, views), self._workers) as windows:
            for _, group in groupby(windows, itemgetter(0)):
                yield Features.joined([self._encoded(window) for _, window in group])

    def _encoded(self, window: Sequence[Prepared]) -> Features:
        assert self._loaded is not None
        encoded = self._loaded.encode([each for picture in window for each in picture.versions]).astype(np.float16)
        hashes = np.array([picture.phash for picture in window], np.uint64)
        return Features(encoded.reshape(len(window), len(window[0].versions), -1), hashes)


@contextmanager
def decoded(
    asked: Mapping[str, Callable[[], Iterable[Named]]], make: Callable[[Named], T], workers: int | None = None
) -> Iterator[Iterable[tuple[str, list[T]]]]:
    """What `make` gives for the pictures under each key, in order, in windows of at most `WINDOW` with their key.

    As in scoring one thread reads, a pool makes, and a window is ready while the one before is worked on.
    """
    with ThreadPoolExecutor(1, "read") as reading, ThreadPoolExecutor(workers or cores(), "decode") as pool:

        def windows() -> Iterator[tuple[str, list[T]]]:
            for key, pictures in asked.items():
                coming = iter(pictures())
                while window := list(islice(coming, WINDOW)):
                    yield key, list(pool.map(make, window))

        yield Prefetched(windows(), reading)


def prepared(encoder: encoders.Encodes, drawn: Drawn, policy: str, views: int, picture: Named) -> Prepared:
    """A picture and that many augmented versions of it, for an encoder. Raises StorageError if it cannot be decoded."""
    name, content = picture
    try:
        found = [drawn(pixels) for pixels in versions(content, policy, views)]
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise StorageError(f"{name} cannot be decoded: {error!r}") from error
    return Prepared(phash(found[0]), [encoder.prepare(each) for each in found])


def versions(picture: bytes, policy: str, views: int) -> Iterator[picture_policies.Pixels]:
    """An encoded picture as pixels, and that many augmented versions of it."""
    with Image.open(io.BytesIO(picture)) as image:
        plain = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    yield plain
    sha256 = hashlib.sha256(picture).hexdigest()
    for number in range(1, views + 1):
        yield picture_policies.view(plain, policy, picture_policies.seed(sha256, number))


def read(tar: Path, members: Sequence[str]) -> Iterator[Named]:
    """The pictures of a tar that are called for, in the tar's order, which must be that of `members`."""
    wanted = iter(members)
    waiting = next(wanted, None)
    for name, content in tarfiles.read(tar):
        if name == waiting:
            yield f"{name} in {tar}", content
            waiting = next(wanted, None)
    if waiting is not None:
        raise StorageError(f"{tar.name} has no picture {waiting}: remove it and its .parquet, and run `winnow curate`")
