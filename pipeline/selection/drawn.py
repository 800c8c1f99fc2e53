"""The image embeddings of survivors in an order of their own, so that a choice does not depend on the pool's order."""

import tempfile
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.selection.survivors import Survivors
from pipeline.uids import random_bits

BLOCK = 65_536

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """`vectors` [rows, dim] are the embeddings of the survivors at `places` [rows], in the order of draws by uid."""

    vectors: npt.NDArray[np.float16]
    places: Places


def unknown(survivors: Survivors, of: str) -> npt.NDArray[np.bool_]:
    """Which survivors have no image embedding of the scorer `of`."""
    pictures = survivors.embeddings(of).pictures
    parts = [np.isnan(pictures[block][:, 0]) for block in _blocks(len(survivors))]
    return np.concatenate([np.empty(0, bool), *parts])


def draw(survivors: Survivors, of: str, without: npt.NDArray[np.bool_]) -> Drawn:
    """The image embeddings of the survivors that are not `without` one, in a temporary file."""
    places = np.flatnonzero(~without)
    order = places[np.argsort(random_bits("selection", (survivors.uids[row] for row in places)), kind="stable")]
    pictures = survivors.embeddings(of).pictures
    rank = np.full(len(survivors), -1)
    rank[order] = np.arange(len(order))
    shape = (len(order), pictures.shape[1])
    if not len(order):
        return Drawn(np.empty(shape, np.float16), order)
    with tempfile.TemporaryFile() as file:
        vectors = np.memmap(file, np.float16, "w+", shape=shape)
    for block in _blocks(len(survivors)):
        known = block[rank[block] >= 0]
        vectors[rank[known]] = pictures[known]
    return Drawn(vectors, order)


def _blocks(rows: int) -> list[Places]:
    return [np.arange(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)]
