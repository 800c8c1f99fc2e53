"""Spherical k-means: clusters of unit vectors by their direction (Dhillon & Modha 2001)."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

BLOCK = 4096
"""Vectors that are compared with all centres at a time."""


def centres(vectors: Floats, count: int, rounds: int = 10) -> Floats:
    """The centres of `count` clusters of unit vectors [n, dim], as unit vectors; as many as vectors if these are fewer.

    It begins with vectors drawn blindly, the same each time. A cluster that loses all of its vectors begins anew with
    one that lies farthest from its own centre.
    """
    from scipy.sparse import csr_array

    chosen = np.random.default_rng(0).choice(len(vectors), min(count, len(vectors)), replace=False)
    found: Floats = vectors[np.sort(chosen)]
    for _ in range(rounds):
        cluster, cosine = (each[:, 0] for each in nearest(vectors, found, 1))
        members = (np.ones(len(vectors), np.float32), cluster, np.arange(len(vectors) + 1))
        sums: Floats = csr_array(members, shape=(len(vectors), len(found))).T @ vectors
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        empty = lengths[:, 0] == 0
        found = (sums / np.where(lengths == 0, 1, lengths)).astype(np.float32)
        found[empty] = vectors[np.argsort(cosine, kind="stable")[: empty.sum()]]
    return found


def nearest(vectors: Floats, centres: Floats, count: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Of each vector the `count` nearest centres, the nearest first, and the cosines: both [n, count].

    Where there are fewer centres, it is so many.
    """
    count = min(count, len(centres))
    found, cosine = np.empty((len(vectors), count), np.int32), np.empty((len(vectors), count), np.float32)
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ centres.T
        rows = np.arange(len(cosines))
        for place in range(count):
            best = cosines.argmax(axis=1)
            found[start + rows, place], cosine[start + rows, place] = best, cosines[rows, best]
            cosines[rows, best] = -np.inf
    return found, cosine
