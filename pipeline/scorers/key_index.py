"""Where each key of many files of keys is: 24 bytes a row in memory, whatever the keys are."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ModelError
from pipeline.store import duck

_BETWEEN = "\x1f"
"""Stands between the columns of a key."""


class KeyIndex:
    """The rows of each key, by an MD5 of its text: two keys of a billion share one with a chance below 1e-20.

    `counts` has the number of rows of each file.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        parts = [_digests(path, columns) for path in files]
        self.counts = [len(part[0]) for part in parts]
        high, low, known = (np.concatenate([part[side] for part in parts]) for side in range(3))
        rows = np.flatnonzero(known)
        order = np.argsort(high[rows], kind="stable")  # the rows of a key stay in their order
        self._rows = rows[order]
        self._high, self._low = high[self._rows], low[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: Sequence[Any]) -> npt.NDArray[np.int64]:
        """The rows of a key, counted over all files; none for a key with a missing value."""
        if any(value is None for value in key):
            return self._rows[:0]
        digest = hashlib.md5(_BETWEEN.join(map(str, key)).encode(), usedforsecurity=False).digest()
        high, low = (np.uint64(int.from_bytes(digest[place : place + 8], "little")) for place in (0, 8))
        start, end = np.searchsorted(self._high, high, "left"), np.searchsorted(self._high, high, "right")
        found: npt.NDArray[np.int64] = self._rows[start:end][self._low[start:end] == low]
        return found


def _digests(
    path: Path, columns: Sequence[str]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """The halves of the MD5 of the key of each row, and whether it has one."""
    key = f" || {duck.literal(_BETWEEN)} || ".join(f"{duck.identifier(name)}::VARCHAR" for name in columns)
    with tempfile.TemporaryDirectory() as scratch, duck.connect(Path(scratch), threads=1) as con:
        try:
            found = con.sql(
                f"SELECT coalesce(md5_number_upper(key), 0) AS high, coalesce(md5_number_lower(key), 0) AS low, "
                f"key IS NOT NULL AS known FROM (SELECT {key} AS key FROM {duck.parquet([path])})"
            ).to_arrow_table()
        except duckdb.Error as error:
            raise ModelError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None
    high, low = (found[name].cast(pa.uint64()).to_numpy() for name in ("high", "low"))
    return high, low, found["known"].to_numpy()
