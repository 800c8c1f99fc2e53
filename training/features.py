"""Features of pictures, computed once: plain and augmented versions through an encoder, kept by shard.

A shard's object is named by the pictures that were asked for, so that other classes or pairs that left the source
give another object, and the same question finds the same one.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipeline import shards
from pipeline.errors import StorageError
from pipeline.neighbours import phash
from pipeline.stage import Stage, digest
from pipeline.storage import Storage
from pipeline.task import Budget, Encoder
from training import augment, encoders, heldout

VERSION = 1
"""Raised whenever the same pictures would get other features."""

WINDOW = 64
"""Pictures that are decoded before the encoder runs."""


@dataclass(frozen=True)
class Features:
    """`views`: float16 [pictures, 1 + augmented views, dim], the plain version first; `phash`: uint64 [pictures]."""

    views: npt.NDArray[np.float16]
    phash: npt.NDArray[np.uint64]

    @classmethod
    def joined(cls, parts: Sequence["Features"]) -> "Features":
        """One after the other."""
        return cls(np.concatenate([part.views for part in parts]), np.concatenate([part.phash for part in parts]))


class Extractor:
    """Gives features, and computes those that are not there yet. The encoder loads when it is first needed."""

    def __init__(self, storage: Storage, encoder: Encoder, budget: Budget) -> None:
        self.identity = encoders.identity(encoder)
        self.encoder = encoder
        self._storage, self._budget = storage, budget
        self._loaded: encoders.Encodes | None = None

    def training(self, shards_key: str, shard: int, members: Sequence[str]) -> Features:
        """Plain and augmented features of some pictures of a shard, in the order of `members`."""
        augmented = {
            "policy": self._budget.policy,
            "views": self._budget.augmented_views,
            "augment": augment.VERSION,
            "albumentations": version("albumentations"),
        }
        stage = self._stage({"shards": shards_key, "augmented": augmented})
        tar = self._storage.fetch(f"shards-{shards_key}/{shard:05d}.tar")
        key = stage.item(shard, f"-{digest(list(members))[:16]}.npz")
        return self._kept(stage, key, lambda: _members(tar, members), self._budget.augmented_views)

    def heldout(self, pictures: heldout.HeldOut) -> Features:
        """Plain features of the held-out pictures."""
        stage = self._stage({"heldout": True})
        return self._kept(stage, f"{stage.folder}/{digest(list(pictures.sha256))[:16]}.npz", pictures.pictures, 0)

    def _stage(self, more: dict[str, Any]) -> Stage:
        made_by = {"version": VERSION, "encoder": self.identity, "imagehash": version("imagehash"), **more}
        return Stage(f"features/{self.encoder.kind}", made_by)

    def _kept(self, stage: Stage, key: str, pictures: Callable[[], Iterable[bytes]], views: int) -> Features:
        if not self._storage.done(key):
            made = self._computed(pictures(), views)
            stage.describe(self._storage)
            with self._storage.scratch() as scratch:
                np.savez(scratch / "features.npz", views=made.views, phash=made.phash)
                self._storage.put_file(key, scratch / "features.npz")
        with np.load(self._storage.fetch(key), allow_pickle=False) as stored:
            return Features(stored["views"], stored["phash"])

    def _computed(self, pictures: Iterable[bytes], views: int) -> Features:
        self._loaded = self._loaded or encoders.load(self.encoder)
        parts = []
        for window in _windows(pictures, WINDOW):
            prepared = [
                self._loaded.prepare(Image.fromarray(pixels))
                for picture in window
                for pixels in versions(picture, self._budget.policy, views)
            ]
            encoded = self._loaded.encode(prepared).astype(np.float16)
            hashes = np.array([phash(picture) for picture in window], np.uint64)
            parts.append(Features(encoded.reshape(len(window), 1 + views, -1), hashes))
        return Features.joined(parts)


def versions(picture: bytes, policy: str, views: int) -> Iterator[augment.Pixels]:
    """An encoded picture as pixels, and that many augmented versions of it."""
    with Image.open(io.BytesIO(picture)) as image:
        plain = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    yield plain
    sha256 = hashlib.sha256(picture).hexdigest()
    for number in range(1, views + 1):
        yield augment.view(plain, policy, augment.seed(sha256, number))


def _members(tar: Path, members: Sequence[str]) -> Iterator[bytes]:
    """The pictures of a tar that are called for, in the tar's order, which must be that of `members`."""
    wanted = iter(members)
    waiting = next(wanted, None)
    for name, content in shards.read(tar):
        if name == waiting:
            yield content
            waiting = next(wanted, None)
    if waiting is not None:
        raise StorageError(f"{tar.name} has no picture {waiting}: remove it and its .parquet, and run `winnow curate`")


def _windows(pictures: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    window: list[bytes] = []
    for picture in pictures:
        window.append(picture)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
