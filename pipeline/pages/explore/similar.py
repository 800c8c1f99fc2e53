"""Stored embeddings of all downloaded pairs, by place: the nearest pairs, and similarities to centres."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.manifest.embeddings import Vectors
from pipeline.neighbours.nearest import Floats, Places, exact_products, inner_products, nearest
from pipeline.pages.explore.rows import Rows
from pipeline.process.machine import cores
from pipeline.scorers.norm_sim import NormSim

BLOCK = 65_536
"""Pairs that are read at once."""

PICTURE, TEXT = 0, 1


class Similar:
    """The embeddings that one scorer stored of the rows. Nothing is read before it is used."""

    def __init__(self, rows: Rows, scorer: str) -> None:
        """Raises ModelError for a scorer without embeddings."""
        self._stored = rows.manifest.embeddings(scorer, rows.column("uid").combine_chunks())

    def pictures(self, places: Places) -> Vectors:
        """The embeddings of the pictures at these places: float16 [places, dim]."""
        return self._stored.read(places, PICTURE)

    def nearest(self, place: int, side: int, count: int) -> list[tuple[int, float]]:
        """The places and cosines of the `count` pairs whose picture or text is nearest to that of this one.

        The pair itself is among them. None if the pair has no embedding.
        """
        query = self._stored.read(np.array([place]), side)[0].astype(np.float32)
        if not len(query) or np.isnan(query[0]):
            return []
        products = np.concatenate(inner_products(lambda at: self._block(at, side), self._blocks, query, cores()))
        places, cosines = nearest(
            products, count, len(query), lambda places: exact_products(self._stored.read(places, side), query)
        )
        return list(zip(places.tolist(), cosines.tolist(), strict=True))

    def similarity(self, centres: Floats) -> pa.Array:
        """For each pair the highest cosine of its picture with one of the centres, as a scorer norm_sim computes it.

        NULL for a picture without an embedding.
        """
        head, parts = NormSim(centres), list[pa.Array]()
        for at in range(self._blocks):
            vectors = self._block(at, PICTURE)
            there = ~np.isnan(vectors[:, 0])
            found = np.zeros(len(vectors), np.float32)
            found[there] = head.score(vectors[there].astype(np.float32))["inf"]
            parts.append(pa.array(found, mask=~there))
        return pa.concat_arrays(parts) if parts else pa.array([], pa.float32())

    @property
    def _blocks(self) -> int:
        return math.ceil(len(self._stored) / BLOCK)

    def _block(self, at: int, side: int) -> Vectors:
        return self._stored.read(np.arange(at * BLOCK, min((at + 1) * BLOCK, len(self._stored))), side)


def distinct(found: Sequence[tuple[int, float]], names: Sequence[str | None], count: int) -> list[tuple[int, float]]:
    """The first `count` of these pairs, each name once."""
    seen: set[str | None] = set()
    left = []
    for each, name in zip(found, names, strict=True):
        if name not in seen:
            seen.add(name)
            left.append(each)
    return left[:count]
