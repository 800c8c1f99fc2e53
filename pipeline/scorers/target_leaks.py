"""Refuses target or reference pictures that are in the test set of the task: what is chosen after them has seen it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.images import picture_lists, picture_sets
from pipeline.images.phash import phash
from pipeline.neighbours.hamming import Hashes, nearest_targets
from pipeline.settings.task import TestSet
from pipeline.store import user_cache
from pipeline.store.digests import digest

VERSION = 1

RADIUS = 4
"""Bits of 64 in which the perceptual hashes of one picture may differ, after it was resized or compressed again."""

SAME = 0.99
"""The cosine of embeddings from which on they are of one picture. Half precision and resizing move it by less."""


def refuse(pictures: Path, test: TestSet | None, chosen: Sequence[Path] | None = None) -> None:
    """Raises ModelError if a picture of the set is one of the test pictures, perhaps in another size or quality.

    `chosen` names some files of a folder; None means all pictures of the set. Two sets without a common picture are
    remembered in the user's cache, and not compared again.
    """
    if test is None:
        return
    tested = picture_lists.list_pictures(test)
    sets = {"pictures": picture_sets.digest(pictures, chosen), "test": picture_sets.digest(test.folder, tested)}
    known = user_cache.place("target-leaks", digest({**sets, "version": [VERSION, RADIUS]})[:32])
    if user_cache.read(known):
        return
    names, hashes = _hashes(pictures, chosen)
    test_names, test_hashes = _hashes(test.folder, tested)
    _, found = nearest_targets(hashes, test_hashes, RADIUS)
    _report(pictures, names, test_names, found)
    user_cache.write(known, sets)


def refuse_hashes(path: Path, hashes: Hashes, test: TestSet) -> None:
    """Raises ModelError if a perceptual hash, of a picture of the pool that a list names, is that of a test picture."""
    tested = picture_lists.list_pictures(test)
    test_names, test_hashes = _hashes(test.folder, tested)
    _, found = nearest_targets(hashes, test_hashes, RADIUS)
    _report(path, [f"the one with the hash {each:016x}" for each in hashes.tolist()], test_names, found)


def refuse_vectors(
    path: Path, vectors: npt.NDArray[np.float32], test: TestSet, of_test: npt.NDArray[np.float32]
) -> None:
    """Raises ModelError if a vector [targets, dim] of a file is the embedding of a test picture, one of `of_test`."""
    nearest = of_test @ vectors.T
    found = np.where(nearest.max(axis=0) >= SAME, nearest.argmax(axis=0), -1)
    names = [file.as_posix() for file in picture_lists.list_pictures(test)]
    _report(path, [f"row {number}" for number in range(len(vectors))], names, found)


def _report(path: Path, names: list[str], test_names: list[str], found: npt.NDArray[np.int64]) -> None:
    """`found` has for each name the place of its test picture, -1 for none."""
    leaked = np.flatnonzero(found >= 0)
    if len(leaked):
        first = int(leaked[0])
        raise ModelError(
            f"{len(leaked):,} of {len(names):,} pictures of {path} are in the test set of the task, {names[first]} "
            f"first (as {test_names[found[first]]}): a choice made after them would leak; remove them"
        )


def _hashes(path: Path, chosen: Sequence[Path] | None) -> tuple[list[str], Hashes]:
    """Names and perceptual hashes of the pictures of a set, or of the chosen ones of a folder. Raises ModelError."""
    pictures = picture_sets.read(path) if chosen is None else picture_sets.read_files(path, chosen)
    found = [(name, phash(picture_sets.decode(path, name, content))) for name, content in pictures]
    return [name for name, _ in found], np.array([bits for _, bits in found], np.uint64)
