"""What the selection of a recipe keeps of pairs on the page."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.core import SELECTION
from filters.selections import Selection
from pipeline.errors import RecipeError
from pipeline.filtering.finite import finite
from pipeline.pages.explore.rows import Pairs, Rows
from pipeline.selection import choosing
from pipeline.selection.survivors import Size, Survivors

Value = TypeVar("Value")

CACHED = 16
"""Sets of pairs whose choice is remembered. A funnel of few filters, and the recipe that it is compared with."""


class Cache(Generic[Value]):
    """The last results by selection and set of pairs."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Selection, bytes], Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, selection: Selection, pairs: Pairs, compute: Callable[[], Value]) -> Value:
        """The known result, or else a computed one."""
        key = selection, hashlib.sha256(np.packbits(pairs).tobytes()).digest()
        with self._lock:
            if key in self._known:
                return self._known[key]
        found = compute()
        with self._lock:
            self._known[key] = found
            while len(self._known) > CACHED:
                self._known.popitem(last=False)
        return found


class Selections:
    """Evaluates selections over the rows, and remembers the last results."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._kept: Cache[Pairs] = Cache()
        self._sizes: Cache[Size] = Cache()

    def kept(self, selection: Selection, pairs: Pairs) -> Pairs:
        """The pairs that a selection keeps of these. Raises RecipeError."""

        def choose() -> Pairs:
            copies = choosing.choose(selection, self._survivors(selection, pairs)).copies
            kept = np.zeros(len(pairs), bool)
            kept[np.flatnonzero(pairs)[copies > 0]] = True
            return kept

        return self._kept.get(selection, pairs, choose).copy()

    def size(self, selection: Selection, pairs: Pairs) -> Size:
        """How many of these pairs a selection keeps, and how many lack what it needs. Raises RecipeError."""
        return self._sizes.get(selection, pairs, lambda: choosing.size(selection, self._survivors(selection, pairs)))

    def _survivors(self, selection: Selection, pairs: Pairs) -> Survivors:
        places = np.flatnonzero(pairs)
        uids = self._uids.take(pa.array(places))
        return Survivors(
            uids=uids.to_pylist(),
            pool=self._rows.pool,
            values={name: self._values(sql)[places] for name, sql in selection.values.items()},
            embeddings=lambda scorer: self._rows.manifest.embeddings(scorer, uids),
            target=self._rows.manifest.target,
        )

    @cached_property
    def _uids(self) -> pa.Array:
        return self._rows.column("uid").combine_chunks()

    def _values(self, sql: str) -> npt.NDArray[np.float64]:
        try:
            column = self._rows.column(f"(\n{finite(sql)}\n)::DOUBLE")
        except duckdb.Error as error:
            raise RecipeError(f"{SELECTION}: fails on a row: {str(error).splitlines()[0]}") from None
        found: npt.NDArray[np.float64] = column.fill_null(np.nan).to_numpy()
        return found
