"""Histograms of sets of pairs, counted fast enough for a page that follows a slider."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.pages import charts
from pipeline.pages.explore.rows import Pairs, Rows

_NO_BIN = np.uint8(255)

Counts = npt.NDArray[np.int64]
"""Pairs by axis and bin: int64 [axes, charts.BINS]."""


class Histograms:
    """Counts by bin for each axis of the rows. Takes a byte a pair and axis."""

    def __init__(self, rows: Rows) -> None:
        self._axes = rows.axes
        columns = [rows.column(f"coalesce({axis.bin}, {_NO_BIN})::UTINYINT").to_numpy() for axis in rows.axes]
        self._bins = np.stack(columns) if columns else np.empty((0, rows.pool), np.uint8)
        totals = self._count(slice(None))
        self._counted = [(~rows.all(), 0 * totals), (rows.all(), totals)]
        """Sets of pairs with their counts: none, all, and the last one."""
        self._lock = threading.Lock()

    def of(self, pairs: Pairs) -> Mapping[str, Sequence[int]]:
        """By column, the number of these pairs in each bin of its axis.

        The counts start from those of the most similar set that is known: a slider that moves a little changes few.
        """
        with self._lock:
            similar, counts = min(self._counted, key=lambda each: np.count_nonzero(each[0] ^ pairs))
            changed = np.flatnonzero(similar ^ pairs)
            gained = pairs[changed]
            counts = counts + self._count(changed[gained]) - self._count(changed[~gained])
            self._counted = [*self._counted[:2], (pairs, counts)]
        return self._by_column(counts)

    def totals(self) -> Mapping[str, Sequence[int]]:
        """By column, the number of downloaded pairs in each bin of its axis."""
        return self._by_column(self._counted[1][1])

    def _by_column(self, counts: Counts) -> Mapping[str, Sequence[int]]:
        return {axis.column: row[: axis.bins].tolist() for axis, row in zip(self._axes, counts, strict=True)}

    def _count(self, places: Any) -> Counts:
        counts = [np.bincount(bins[places], minlength=charts.BINS)[: charts.BINS] for bins in self._bins]
        return np.stack(counts) if counts else np.empty((0, charts.BINS), np.int64)
