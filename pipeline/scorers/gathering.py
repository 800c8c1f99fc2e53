"""Stored embeddings of the pool, for pool scorers: which rows have one, and those of chosen rows in one file on disk.

`sides` says which embeddings of a pair are meant: `IMAGE` or `BOTH`.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from pipeline.errors import SourceError
from pipeline.scorers.spec import Pool, Spec

IMAGE = 0
BOTH = slice(None)


def check(scorers: Mapping[str, Spec], of: str) -> None:
    """Raises SourceError if the scorer `of` stores no embeddings."""
    if scorers[of].encoder is None:
        raise SourceError(f"{of!r} {scorers[of].without_embeddings}; set of to a clip or recorded scorer")


def present(pool: Pool, of: str, sides: int | slice = IMAGE) -> npt.NDArray[np.bool_]:
    """Which rows of the pool have the embeddings. A stored embedding is all numbers or all NaN."""
    parts: list[npt.NDArray[np.bool_]] = [np.empty(0, bool)]
    parts += [_complete(stored, sides) for stored in pool.embeddings(of)]
    return np.concatenate(parts)


def images(pool: Pool, of: str) -> Iterator[npt.NDArray[np.float16]]:
    """Shard after shard, the image embeddings of the rows that have one: float16 [rows, dim]."""
    for stored in pool.embeddings(of):
        yield stored[_complete(stored, IMAGE), 0]


def gather(pool: Pool, of: str, rows: npt.NDArray[np.int64], sides: int | slice = IMAGE) -> npt.NDArray[np.float16]:
    """The embeddings of these rows of the pool, in this order, in a file of the pool's folder.

    float16 [rows, dim] for `IMAGE`, [rows, 2, dim] for `BOTH`.
    """
    place = np.full(len(pool), -1)
    place[rows] = np.arange(len(rows))
    gathered: npt.NDArray[np.float16] | None = None
    start = 0
    for stored in pool.embeddings(of):
        chosen = stored[:, sides]
        if gathered is None:
            shape = (len(rows), *chosen.shape[1:])
            if not len(rows):
                return np.empty(shape, np.float16)
            gathered = np.lib.format.open_memmap(pool.folder / f"{of}-gathered.npy", "w+", np.float16, shape)
        to = place[start : start + len(stored)]
        gathered[to[to >= 0]] = chosen[to >= 0]
        start += len(stored)
    if gathered is None:
        return np.empty((0, 2, 0) if sides == BOTH else (0, 0), np.float16)
    return gathered


def _complete(stored: npt.NDArray[np.float16], sides: int | slice) -> npt.NDArray[np.bool_]:
    image, text = np.isnan(stored[:, 0, 0]), np.isnan(stored[:, 1, 0])
    complete: npt.NDArray[np.bool_] = ~image if sides == IMAGE else ~(image | text)
    return complete
