"""Refuses target or reference pictures that are in the test set of the task: what is chosen after them has seen it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.images import picture_lists, picture_sets
from pipeline.images.phash import phash
from pipeline.neighbours.hamming import Hashes, nearest_targets
from pipeline.scorers import targets
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Spec
from pipeline.settings.task import TestSet
from pipeline.store import user_cache
from pipeline.store.digests import digest

VERSION = 1

RADIUS = 4
"""Bits of 64 in which the perceptual hashes of one picture may differ, after it was resized or compressed again."""

SAME = 0.99
"""The cosine of embeddings from which on they are of one picture. Half precision and resizing move it by less."""

_BLOCK = 4096
"""Vectors that are compared at a time."""


def refuse(pictures: Path, test: TestSet | None, chosen: Sequence[Path] | None = None) -> None:
    """Raises ModelError if a picture of the set is one of the test pictures, perhaps in another size or quality.

    `chosen` names some files of a folder; None means all pictures of the set. Two sets without a common picture are
    remembered in the user's cache, and not compared again.
    """
    if test is None:
        return
    tested = picture_lists.list_pictures(test)
    sets = {"pictures": picture_sets.digest(pictures, chosen), "test": picture_sets.digest(test.folder, tested)}
    with _once(sets, RADIUS) as known:
        if not known:
            _compare(pictures, chosen, *_hashes(test.folder, tested))


def refuse_embeddings(path: Path, test: TestSet, of: Spec) -> None:
    """Raises ModelError if a row of a .npy file is the embedding of a test picture by the model of the scorer `of`.

    It loads the model, unless the same two sets were compared before, as in `refuse`. The embeddings of a scorer that
    is no clip cannot be compared, because it encodes no pictures.
    """
    if not isinstance(of, ClipSpec):
        return
    tested = picture_lists.list_pictures(test)
    sets = {"embeddings": picture_sets.digest(path), "test": picture_sets.digest(test.folder, tested)}
    with _once({**sets, "model": digest(of.identity())}, SAME) as known:
        if not known:
            vectors, pictures = targets.embed(path, None), picture_sets.read_files(test.folder, tested)
            clip: Any = of.load()
            of_test = targets.encode(test.folder, pictures, clip)
            targets.check_width(vectors, of_test.shape[1])
            refuse_vectors(path, vectors, [file.as_posix() for file in tested], of_test)


def refuse_pictures(
    pictures: Path, chosen: Sequence[Path] | None, test_names: Sequence[str], test_hashes: Hashes
) -> None:
    """As `refuse`, for test pictures with these perceptual hashes."""
    sets = {"pictures": picture_sets.digest(pictures, chosen), "hashes": digest(sorted(map(int, test_hashes)))}
    with _once(sets, RADIUS) as known:
        if not known:
            _compare(pictures, chosen, test_names, test_hashes)


def refuse_hashes(path: Path, hashes: Hashes, test: TestSet) -> None:
    """Raises ModelError if a perceptual hash, of a picture of the pool that a list names, is that of a test picture."""
    test_names, test_hashes = _hashes(test.folder, picture_lists.list_pictures(test))
    names = [f"the one with the hash {each:016x}" for each in hashes.tolist()]
    _report(path, names, test_names, nearest_targets(hashes, test_hashes, RADIUS)[1])


def refuse_vectors(
    path: Path, vectors: npt.NDArray[np.float32], test_names: Sequence[str], of_test: npt.NDArray[np.float32]
) -> None:
    """Raises ModelError if a vector [targets, dim] of a file is that of a test picture, `of_test` [pictures, dim]."""
    found = np.full(len(vectors), -1, np.int64)
    for at in range(0, len(vectors), _BLOCK) if len(of_test) else ():
        nearest = of_test @ vectors[at : at + _BLOCK].T
        found[at : at + _BLOCK] = np.where(nearest.max(axis=0) >= SAME, nearest.argmax(axis=0), -1)
    _report(path, [f"row {number}" for number in range(len(vectors))], test_names, found)


@contextlib.contextmanager
def _once(sets: Mapping[str, str], limit: float) -> Iterator[bool]:
    """Whether these sets were compared before. If not, they are from now on, unless the block raises."""
    place = user_cache.place("target-leaks", digest({**sets, "version": [VERSION, limit]})[:32])
    known = bool(user_cache.read(place))
    yield known
    if not known:
        user_cache.write(place, dict(sets))


def _compare(pictures: Path, chosen: Sequence[Path] | None, test_names: Sequence[str], test_hashes: Hashes) -> None:
    names, hashes = _hashes(pictures, chosen)
    _report(pictures, names, test_names, nearest_targets(hashes, test_hashes, RADIUS)[1])


def _report(path: Path, names: Sequence[str], test_names: Sequence[str], found: npt.NDArray[np.int64]) -> None:
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
